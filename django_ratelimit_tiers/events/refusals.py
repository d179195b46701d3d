"""The moment of a refusal: everybody who wants to know is told."""

from __future__ import annotations

from django.http import HttpRequest

from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.signals import request_throttled


def announce_refusal(request: HttpRequest, decision: Decision) -> None:
    """Send the signal `request_throttled`; what a receiver raises is logged, not raised."""
    request_throttled.send_robust(type(request), request=request, decision=decision)
