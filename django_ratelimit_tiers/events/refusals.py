"""What is told of a refusal at once: a line in the log, and the signal `request_throttled`."""

from __future__ import annotations

import logging

from django.http import HttpRequest

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.policies import MICROSECONDS
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.events.log_gates import LogGate
from django_ratelimit_tiers.signals import request_throttled

logger = logging.getLogger("django_ratelimit_tiers.throttled")


_gate = LogGate()


def unnoticed() -> bool:
    """Return whether nobody would learn of one more refusal: no receiver, and no line in the log.

    The line is then counted among those left out.
    """
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
