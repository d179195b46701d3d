"""The moment of a refusal: everybody who wants to know is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock

from django.http import HttpRequest

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.policies import MICROSECONDS
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.signals import request_throttled

logger = logging.getLogger("django_ratelimit_tiers.throttled")


class LogGate:
    """Lets so many lines pass in a second, and counts those left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = self._passed = self._left_out = 0
        self._lock = Lock()

    def passes(self, most: int) -> tuple[bool, int]:
        """Return whether one more line passes, and how many were left out before this second."""
        with self._lock:
            left_out = 0
            second = int(self._clock())
            if second != self._second:
                left_out, self._left_out = self._left_out, 0
                self._second, self._passed = second, 0
            if self._passed < most:
                self._passed += 1
                return True, left_out
            self._left_out += 1
            return False, left_out

    def leaves_out(self, most: int) -> bool:
        """Return whether one more line is left out, and count it then; otherwise `passes` does."""
        with self._lock:
            if self._passed < most or int(self._clock()) != self._second:
                return False
            self._left_out += 1
            return True


_gate = LogGate()


def unnoticed() -> bool:
    """Return whether nobody receives the signal and the line is left out; then it is counted."""
    return not request_throttled.receivers and _gate.leaves_out(conf.EVENTS["LOG_PER_SECOND"])


def announce_refusal(request: HttpRequest, decision: Decision, client: str, endpoint: str) -> None:
    """Log a refusal and send the signal `request_throttled`.

    At most LOG_PER_SECOND lines are written in each process and second; how many were left out is
    logged, too. What a receiver of the signal raises is logged, not raised.
    """
    _log_some(decision, client, endpoint)
    request_throttled.send_robust(type(request), request=request, decision=decision)


async def aannounce_refusal(
    request: HttpRequest, decision: Decision, client: str, endpoint: str
) -> None:
    """Do what `announce_refusal` does; receivers that block run in a thread."""
    _log_some(decision, client, endpoint)
    await request_throttled.asend_robust(type(request), request=request, decision=decision)


def _log_some(decision: Decision, client: str, endpoint: str) -> None:
    passes, left_out = _gate.passes(conf.EVENTS["LOG_PER_SECOND"])
    if left_out:
        logger.warning("%d more refusals were not logged", left_out, extra={"left_out": left_out})
    if passes:
        _log(decision, printable(client), printable(endpoint))


def _log(decision: Decision, client: str, endpoint: str) -> None:
    binding = decision.binding if decision.refusing else None
    policy = binding.charge.policy.name if binding else ""
    logger.warning(
        "%s refused %s at %s",
        policy or "the unavailable store",
        client,
        endpoint,
        extra={
            "key": printable(binding.charge.subject) if binding else "",
            "client": client,
            "endpoint": endpoint,
            "policy": policy,
            "decision_id": decision.id,
            "retry_after": (decision.retry_after or 0) / MICROSECONDS,
        },
    )
