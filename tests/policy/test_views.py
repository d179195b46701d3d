from __future__ import annotations

from functools import partial, update_wrapper
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy, override
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView
from rest_framework.decorators import api_view
from rest_framework.viewsets import ViewSet

from django_ratelimit_tiers.decorators import ratelimit
from django_ratelimit_tiers.policy.views import view_identity, view_marks, view_paths


def plain(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse()


def other(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class Shown(View):
    setting: object = None


@method_decorator(never_cache, name="dispatch")
class Decorated(View):
    pass


@method_decorator(never_cache, name="dispatch")
class AlsoDecorated(View):
    pass


class Notes(ViewSet):
    lookup = "pk"

    def list(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Instance:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Reports:
    @method_decorator(never_cache)
    def show(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


reports = Reports()


@api_view()
def decorated_api(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@api_view()
def other_api(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


instance = Instance()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (plain, plain),
        (plain, csrf_exempt(never_cache(plain))),
        (Shown.as_view(), Shown.as_view()),
        (Shown.as_view(), never_cache(Shown.as_view())),
        (Shown.as_view(setting={"a": [1]}), Shown.as_view(setting={"a": [1]})),
        (Shown.as_view(setting={1}), Shown.as_view(setting={1})),
        (Decorated.as_view(), Decorated.as_view()),
        (partial(plain, a=1), partial(csrf_exempt(plain), a=1)),
        (Notes.as_view({"get": "list"}), Notes.as_view({"get": "list"}, basename="v2")),
        (instance, instance),
        (reports.show, csrf_exempt(reports.show)),
        (decorated_api, csrf_exempt(decorated_api)),
    ],
)
def test_a_view_is_the_same_however_it_is_wrapped(one: Any, two: Any) -> None:
    assert view_identity(one) == view_identity(two)
    assert view_paths(one) == view_paths(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (plain, other),
        (Shown.as_view(), Decorated.as_view()),
        (Decorated.as_view(), AlsoDecorated.as_view()),
        (Shown.as_view(setting=1), Shown.as_view(setting=2)),
        (Shown.as_view(setting={"a": [1]}), Shown.as_view(setting={"a": [2]})),
        (TemplateView.as_view(template_name="a"), TemplateView.as_view(template_name="b")),
        (partial(plain, a=1), partial(plain, a=2)),
        (Notes.as_view({"get": "list"}), Notes.as_view({"get": "retrieve"})),
        (Notes.as_view({"get": "list"}), Notes.as_view({"get": "list"}, lookup="slug")),
        (Instance(), instance),
        (Reports().show, reports.show),
        (csrf_exempt(Reports().show), csrf_exempt(reports.show)),
        (decorated_api, other_api),
    ],
)
def test_different_views_are_told_apart(one: Any, two: Any) -> None:
    assert view_identity(one) != view_identity(two)


def test_a_viewset_stays_the_same_once_a_request_has_come_to_it() -> None:
    notes = Notes.as_view({"get": "list"})
    before = view_identity(notes)
    notes(RequestFactory().get("/"))
    assert view_identity(notes) == before == view_identity(Notes.as_view({"get": "list"}))


def test_an_unhashable_argument_is_only_itself() -> None:
    thing = type("Thing", (), {"__eq__": lambda *_: True, "__hash__": None})
    same = thing()
    assert view_identity(Shown.as_view(setting=same)) == view_identity(Shown.as_view(setting=same))
    assert view_identity(Shown.as_view(setting=same)) != view_identity(
        Shown.as_view(setting=thing())
    )


@pytest.mark.parametrize("make", [lambda lazy: lazy, lambda lazy: {"title": [lazy]}])
def test_a_lazy_argument_is_never_looked_at(make: Any) -> None:
    for lazy in (reverse_lazy("missing"), SimpleLazyObject(lambda: pytest.fail("it was woken"))):
        shown = Shown.as_view(setting=make(lazy))
        assert view_identity(shown) == view_identity(Shown.as_view(setting=make(lazy)))


def test_a_view_is_the_same_in_every_language() -> None:
    shown, found = Shown.as_view(setting=gettext_lazy("Monday")), set()
    for language in ("en", "de"):
        with override(language):
            found.add(view_identity(shown))
    assert len(found) == 1


def test_a_view_has_the_path_of_its_function_or_class() -> None:
    here = __name__
    assert view_paths(csrf_exempt(plain)) == {f"{here}.plain"}
    assert view_paths(never_cache(Shown.as_view())) == {f"{here}.Shown"}
    assert view_paths(Notes.as_view({"get": "list"})) == {f"{here}.Notes"}
    assert view_paths(api_view()(plain)) == {f"{here}.plain"}
    assert view_paths(partial(plain, a=1)) == {f"{here}.plain"}
    assert view_paths(instance) == {f"{here}.Instance"}


def test_a_nested_view_has_a_short_and_a_qualified_path() -> None:
    class Inner(View):
        pass

    function = "test_a_nested_view_has_a_short_and_a_qualified_path"
    assert view_paths(Inner.as_view()) == {
        f"{__name__}.Inner",
        f"{__name__}.{function}.<locals>.Inner",
    }


def test_a_mark_below_the_api_view_of_adrf_is_seen() -> None:
    func = ratelimit(cost=3)(plain)

    def handler(self: Any, *args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    handler.__module__ = "adrf.decorators"
    view = api_view(["GET"])(other)
    view.cls.get = handler
    assert view_marks(view, "GET") == (False, 3)


class Traced:
    """A decorator that is an object, and looks like what it wraps."""

    def __init__(self, wrapped: Any) -> None:
        update_wrapper(self, wrapped)


def test_a_decorator_that_only_looks_like_a_method_of_api_view_has_no_marks() -> None:
    view = api_view(["GET"])(plain)
    view.cls.get = Traced(view.cls.get)
    assert view_marks(view, "GET") == (False, None)
