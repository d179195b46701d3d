"""Limits for every view of a project, before authentication and after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.policy.flows import Flow, adrive, drive
from django_ratelimit_tiers.policy.ledgers import Ledger, open_ledger
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.responses import add_fields, discard, refusal

View = Callable[..., Any]


class RateLimitMiddleware:
    """Decides every request in two stages; put it first in `MIDDLEWARE`.

    The first stage, by address and for everyone, comes before sessions and authentication. The
    second comes before the view, or is left to a REST framework view that lists `TierThrottle`.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            # Django looks at this name to tell whether the hook needs a thread.
            self.process_view = self.aprocess_view  # type: ignore[assignment,method-assign]

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self.__acall__(request)
        if not conf.ENABLED:
            return self.get_response(request)  # type: ignore[no-any-return]
        ledger = open_ledger(request)
        passes_door = limiter().passes_door(ledger, request)
        response = None if passes_door else drive(self._enter(request))
        response = response or self.get_response(request)
        if ledger.client_decided and not ledger.has_reservations:  # nothing is left to be decided
            add_fields(response, ledger.decision)
            return response
        return drive(self._leave(ledger, request, response))

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        if not conf.ENABLED:
            return await self.get_response(request)  # type: ignore[no-any-return]
        ledger = open_ledger(request)
        passes_door = limiter().passes_door(ledger, request)
        response = None if passes_door else await adrive(self._enter(request))
        response = response or await self.get_response(request)
        if ledger.client_decided and not ledger.has_reservations:  # nothing is left to be decided
            add_fields(response, ledger.decision)
            return response
        return await adrive(self._leave(ledger, request, response))

    def process_view(
        self, request: HttpRequest, view: View, _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Decide what the resolved route and the client add, before the view."""
        if not conf.ENABLED:
            return None
        decision = drive(limiter().reach(request, view))
        if decision.allowed:
            return None
        return drive(refusal(request, decision))

    async def aprocess_view(
        self, request: HttpRequest, view: View, _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Do what `process_view` does, on the event loop."""
        if not conf.ENABLED:
            return None
        decision = await adrive(limiter().reach(request, view))
        if decision.allowed:
            return None
        return await adrive(refusal(request, decision))

    def _enter(self, request: HttpRequest) -> Flow[HttpResponse | None]:
        decision = yield from limiter().door(request)
        return None if decision.allowed else (yield from refusal(request, decision))

    def _leave(
        self, ledger: Ledger, request: HttpRequest, response: HttpResponseBase
    ) -> Flow[HttpResponseBase]:
        if not ledger.client_decided:
            was_allowed = ledger.decision.allowed
            decision = yield from limiter().unreached(request, _true_status(response))
            if was_allowed and not decision.allowed:
                discard(response)
                return (yield from refusal(request, decision))
        yield from limiter().settle(request, response.status_code)
        add_fields(response, ledger.decision)
        return response


def _true_status(response: HttpResponseBase) -> int:
    """Return a status that is an error for what the REST framework has made of an exception.

    Some sites answer everything with 200, and tell in the body what went wrong.
    """
    is_error = getattr(response, "exception", False)
    return max(response.status_code, HTTPStatus.BAD_REQUEST) if is_error else response.status_code
