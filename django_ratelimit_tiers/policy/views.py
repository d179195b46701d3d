"""Which callables are one view, whatever they were wrapped in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

from django.utils.functional import LazyObject, Promise

View: TypeAlias = Callable[..., Any]

MOST_MARKED = 10_000
"""How many views' marks are remembered."""

API_VIEW_MODULES = frozenset(("rest_framework.decorators", "adrf.decorators"))
"""Where `@api_view` is defined; that of adrf is for asynchronous functions."""

COSMETIC = frozenset(("basename", "detail", "suffix", "name", "description"))
"""Arguments with which DRF's routers only label a view."""


def view_identity(callback: View) -> Hashable:
    """Return what is equal for callables that are the same view.

    A class-based view is its class with the arguments of `as_view()`, and for a viewset also the
    actions of its methods: its list and its detail are two views. A function, and a method of an
    object, is itself, without the decorators that tell what they wrap.
    """
    callback = _unwrapped(callback)
    cls = _view_class(callback)
    if cls is not None:
        arguments = getattr(callback, "view_initkwargs", None) or getattr(
            callback, "initkwargs", {}
        )
        own = {name: value for name, value in arguments.items() if name not in COSMETIC}
        return cls, _frozen(own), _frozen(_own_actions(callback))
    if isinstance(callback, partial):
        return view_identity(callback.func), _frozen(callback.args), _frozen(callback.keywords)
    return _frozen(callback)


def view_paths(callback: View) -> frozenset[str]:
    """Return the dotted paths of a view's function or class, by short and by qualified name.

    Not by a qualified name that is another's: `@api_view` of the REST framework leaves the same one
    to every view.
    """
    callback = _unwrapped(callback)
    if isinstance(callback, partial):
        return view_paths(callback.func)
    named = _view_class(callback) or callback
    if not hasattr(named, "__name__"):
        named = type(named)
    name, qualified = named.__name__, named.__qualname__
    names = (name, qualified) if qualified.rpartition(".")[2] == name else (name,)
    return frozenset(f"{named.__module__}.{name}" for name in names)


def steady_view(callback: View) -> View:
    """Return the callable that stays the same from request to request: what to remember a view by.

    Agents that trace requests put a new proxy around the view for each. A proxy claims the class of
    what it wraps, and has all its attributes; a decorator may have others, and stays.
    """
    while type(callback) is not FunctionType and callback.__class__ is not type(callback):
        wrapped: View | None = getattr(callback, "__wrapped__", None)
        if wrapped is None:
            break
        callback = wrapped
    return callback


class Marks(NamedTuple):
    """What decorators have set on a view; `cost` is None where it has none of its own."""

    is_exempt: bool
    cost: int | None


def view_marks(callback: View, method: str) -> Marks:
    """Return what decorators have set on a view, or on the method of its class that answers.

    The method's own mark counts before that of the whole view. They are read once.
    """
    callback = steady_view(callback)
    known = _MARKED.get((id(callback), method))
    if known is None:
        is_exempt = _mark(callback, method, "ratelimit_exempt", False)
        marks = Marks(is_exempt, _mark(callback, method, "ratelimit_cost", None))
        if len(_MARKED) >= MOST_MARKED:
            _MARKED.clear()
        known = _MARKED[id(callback), method] = callback, marks
    return known[1]


def _mark(callback: View, method: str, name: str, default: Any) -> Any:
    wrapped = getattr(callback, "__wrapped__", None)
    below = callback.func if isinstance(callback, partial) else wrapped
    if below is not None:
        default = _mark(below, method, name, default)
    marked = getattr(callback, name, default)
    cls = _view_class(callback)
    if cls is None:
        return marked
    actions = getattr(callback, "actions", None) or {}
    for word in (method.lower(), "get") if method == "HEAD" else (method.lower(),):
        answering = getattr(cls, actions.get(word, word), None)
        if answering is not None:
            below_api_view = getattr(_below_api_view(answering), name, marked)
            return getattr(answering, name, below_api_view)
    return marked


def _below_api_view(answering: Any) -> Any:
    """Return the function that `@api_view` has made a method of, any other method as it is.

    Only the method's closure tells of it, and marks may well be below: that is where DRF's own are.
    """
    if not isinstance(answering, FunctionType) or answering.__module__ not in API_VIEW_MODULES:
        return answering
    of_closure = zip(answering.__code__.co_freevars, answering.__closure__ or (), strict=True)
    cell = dict(of_closure).get("func")
    return answering if cell is None else cell.cell_contents


def _own_actions(callback: View) -> object:
    """Return the actions of a viewset's methods, None for any other view.

    Without a `HEAD` that does what `GET` does: the first request adds it, to the view that it has
    come to and to no other of the same viewset.
    """
    actions = getattr(callback, "actions", None)
    if not isinstance(actions, Mapping):
        return actions
    own = dict(actions)  # at once, since another thread may be adding to them
    if own.get("head") == own.get("get"):
        own.pop("head", None)
    return own


def _unwrapped(callback: View) -> View:
    while not _is_whole(callback) and hasattr(callback, "__wrapped__"):
        callback = callback.__wrapped__
    return callback


def _is_whole(callback: View) -> bool:
    """Return whether what a callable says it wraps is only a part of the view.

    A view made by `as_view()` carries what wraps its `dispatch()`, and a method of an object what
    its function wraps: without the object all lists of Django's admin would be one view.
    """
    return type(callback) is MethodType or _view_class(callback) is not None


def _view_class(callback: View) -> type | None:
    found = getattr(callback, "view_class", None) or getattr(callback, "cls", None)
    return found if isinstance(found, type) else None


def _frozen(value: object) -> Hashable:
    """Return something hashable that is equal where the values are, or are the same object.

    A lazy value is not looked at: it may fail, ask the database, or depend on the language.
    """
    if isinstance(value, LazyObject | Promise):  # in this order: the other one wakes lazy objects
        return "lazy", id(value)
    if isinstance(value, Mapping):
        return frozenset((name, _frozen(item)) for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(map(_frozen, value))
    if isinstance(value, AbstractSet):
        return frozenset(map(_frozen, value))
    try:
        hash(value)
    except TypeError:
        return "unhashable", id(value)
    return value


_MARKED: dict[tuple[int, str], tuple[View, Marks]] = {}
"""Marks by a view's identity and a method; the view is kept, so that no other comes to have it."""
