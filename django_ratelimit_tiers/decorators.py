"""Marks for single views, which also limit them where the middleware is not installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.policies import MAX_REQUESTS
from django_ratelimit_tiers.policy.flows import Flow, adrive, drive
from django_ratelimit_tiers.policy.ledgers import ledger_of
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.policy.statuses import error_status
from django_ratelimit_tiers.responses import add_fields, refusal

View = TypeVar("View", bound=Callable[..., Any])


def ratelimit(cost: int = 1) -> Callable[[View], View]:
    """Return a decorator by which a view costs `cost` requests of its client's tier.

    Without the middleware the decorator limits the view by itself. Raises ValueError for a cost
    that no limit can hold, and TypeError for a view: `@ratelimit` needs its parentheses.
    """
    if not isinstance(cost, int):
        raise TypeError(f"ratelimit: cost must be a number, as in @ratelimit(cost=5), not {cost!r}")
    if not 1 <= cost <= MAX_REQUESTS:
        raise ValueError(f"ratelimit: cost must be from 1 to {MAX_REQUESTS:,}, not {cost}")

    def decorate(view: View) -> View:
        if _is_method(view):
            name = getattr(view, "__qualname__", view)
            raise TypeError(
                f"ratelimit: {name} is a method, which gets no request first: write "
                f"@method_decorator(ratelimit(cost={cost}))"
            )
        if _is_asynchronous(view):

            @wraps(view)
            async def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                if not conf.ENABLED or ledger_of(request) is not None:
                    return await view(request, *args, **kwargs)
                plain = _plain(request)
                try:
                    refused = await adrive(_enter(plain, view, cost))
                    response = refused or await view(request, *args, **kwargs)
                except Exception as error:
                    await adrive(limiter().settle(plain, error_status(error)))
                    raise
                return await adrive(_leave(plain, response))
        else:

            @wraps(view)
            def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                if not conf.ENABLED or ledger_of(request) is not None:
                    return view(request, *args, **kwargs)
                plain = _plain(request)
                try:
                    response = drive(_enter(plain, view, cost)) or view(request, *args, **kwargs)
                except Exception as error:
                    drive(limiter().settle(plain, error_status(error)))
                    raise
                return drive(_leave(plain, response))

        limited.ratelimit_cost = cost  # type: ignore[attr-defined]
        return limited  # type: ignore[return-value]

    return decorate


def ratelimit_exempt(view: View) -> View:
    """Return the view, exempt from its client's tier and from rules decided at the view.

    The view that was given stays limited where it is used without this decorator.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def exempt(*args: Any, **kwargs: Any) -> Any:
            return await view(*args, **kwargs)
    else:

        @wraps(view)
        def exempt(*args: Any, **kwargs: Any) -> Any:
            return view(*args, **kwargs)

    exempt.ratelimit_exempt = True  # type: ignore[attr-defined]
    return exempt  # type: ignore[return-value]


def _is_method(view: Any) -> bool:
    """Return whether a view is a function of a class, not yet bound to an object of it."""
    try:
        return next(iter(signature(view, follow_wrapped=False).parameters), "") == "self"
    except (TypeError, ValueError):  # it is not known of everything what it takes
        return False


def _is_asynchronous(view: Any) -> bool:
    """Return whether a view is to be awaited.

    `dispatch()` of an asynchronous class is a plain function that returns a coroutine;
    `method_decorator` hands it over as a partial of the bound method, maybe below other decorators.
    """
    if iscoroutinefunction(view):
        return True
    while not isinstance(view, partial) and hasattr(view, "__wrapped__"):
        view = view.__wrapped__
    instance = getattr(getattr(view, "func", None), "__self__", None)
    return getattr(instance, "view_is_async", False)


def _plain(request: HttpRequest) -> HttpRequest:
    """Return the request of Django that one of the REST framework wraps, any other as it is.

    That one tells the content type with its parameters, and keeps its stream elsewhere.
    """
    return getattr(request, "_request", request)


def _enter(request: HttpRequest, view: View, cost: int) -> Flow[HttpResponse | None]:
    match = request.resolver_match  # `view` may be no more than a method of what was resolved
    decision = yield from limiter().reach(request, match.func if match else view, cost)
    return None if decision.allowed else (yield from refusal(request, decision))


def _leave(request: HttpRequest, response: HttpResponseBase) -> Flow[HttpResponseBase]:
    ledger = ledger_of(request)
    yield from limiter().settle(request, response.status_code)
    if ledger is not None:
        add_fields(response, ledger.decision)
    return response
