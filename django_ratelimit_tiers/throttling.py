"""Limits for views of the REST framework, whose users are known only inside the view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpRequest
from rest_framework.exceptions import APIException, ErrorDetail, Throttled
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.headers import (
    refusal_body,
    refusal_status,
    retry_after_seconds,
)
from django_ratelimit_tiers.policy.fields import note_parsed
from django_ratelimit_tiers.policy.flows import drive
from django_ratelimit_tiers.policy.ledgers import ledger_of, open_ledger
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.policy.statuses import error_status
from django_ratelimit_tiers.responses import add_fields

if TYPE_CHECKING:  # as a default throttle this module is imported while that one is being imported
    from rest_framework.views import APIView


class ErrorNumber(int):
    """A number with a code, as `ErrorDetail` is a text with one: handlers ask every leaf for it."""

    code = Throttled.default_code


class Refused(Throttled):
    """The refusal of a request, in the shape of the REST framework's own."""

    def __init__(self, decision: Decision) -> None:
        APIException.__init__(self)
        self.detail: Any = {
            name: ErrorNumber(value)
            if isinstance(value, int)
            else ErrorDetail(value, self.default_code)
            for name, value in refusal_body(decision).items()
        }
        self.status_code = refusal_status(decision)
        self.wait = retry_after_seconds(decision)
        self.decision = decision


def _tell_afterwards(request: HttpRequest, view: APIView) -> None:
    """Have the response of a view looked at, as the middleware would where it is installed.

    What the REST framework does not handle has no response but Django's.
    """
    finalize, handle = view.finalize_response, view.handle_exception

    def settle(status: int) -> None:
        drive(limiter().settle(request, status))

    def finalize_and_tell(given: Request, response: Response, *args: Any, **options: Any) -> Any:
        try:
            finalized = finalize(given, response, *args, **options)
        except Exception as unhandled:
            settle(error_status(unhandled))
            raise
        ledger = open_ledger(request)
        if ledger.has_reservations:
            settle(finalized.status_code)
        add_fields(finalized, ledger.decision)
        return finalized

    def handle_or_settle(error: Exception) -> Response:
        try:
            return handle(error)
        except Exception as unhandled:
            settle(error_status(unhandled))
            raise

    view.finalize_response = finalize_and_tell  # type: ignore[assignment,method-assign]
    view.handle_exception = handle_or_settle  # type: ignore[assignment,method-assign]


class TierThrottle(BaseThrottle):
    """Decides requests by the user that the view has authenticated.

    List it in `throttle_classes`. With the middleware installed the first stage has been decided
    by then; without it both stages are decided here, together.
    """

    decides_client = True

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Return True, or raise Refused with everything a client should know."""
        if not conf.ENABLED:
            return True
        if ledger_of(request._request) is None:  # there is no middleware
            _tell_afterwards(request._request, view)
        # A permission may have looked at the data: then they are here, and the body may be gone.
        note_parsed(request._request, getattr(request, "_full_data", None))
        decision = drive(limiter().client(request._request, request.user))
        if not decision.allowed:
            raise Refused(decision)
        return True
