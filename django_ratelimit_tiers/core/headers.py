"""What a client is told of a decision: header fields and the data of a refusal's body.

Clients never hear of shadow policies or of policies that are not disclosed. When one that is not
disclosed refuses, the wait is all that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from django_ratelimit_tiers.core.algorithms import Standing
from django_ratelimit_tiers.core.decisions import Decision, Grant, Outcome
from django_ratelimit_tiers.core.policies import MICROSECONDS, Charge, QuotaPolicy
from django_ratelimit_tiers.core.strings import encoded
from django_ratelimit_tiers.core.tuples import filled

DEGRADED_WAIT = 5
"""Seconds to wait after a refusal that no policy made, because the store was unavailable."""

ALMOST_A_SECOND = MICROSECONDS - 1
"""Added to microseconds before they are divided into seconds, so that these round up."""

DECISION_FIELD = "X-RateLimit-Decision"
"""Names the decision of a refusal."""

DECISION_KEY = DECISION_FIELD.lower()
"""What it is found by among other fields (`Fields`)."""

PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
"""Where the RateLimit draft registers its problem types (section 10.2)."""


class Told(NamedTuple):
    """What a client is told of a decision: how each policy stands at a time in microseconds.

    `policies` tells the policies alone, as the draft writes them.
    """

    standings: Sequence[Standing]
    policies: str
    now: int


Fields: TypeAlias = dict[str, tuple[str, str]]
"""Header fields, each a name and a value, by the name in small letters."""

Serializer = Callable[[Told, Fields], None]
"""Adds the fields of a style to others."""


class HeaderStyle(StrEnum):
    """A family of header fields."""

    X_RATELIMIT = "x-ratelimit"
    DRAFT_11 = "ratelimit-draft-11"


def header_fields(decision: Decision, styles: Collection[str]) -> Fields:
    """Return the header fields that tell a decision, `Retry-After` among them on a refusal.

    `styles` are values of `HeaderStyle`; the first of them also names the decision of a refusal, so
    that staff can look it up. Times round up. Where two outcomes have policies of one
    name, the tighter one is told.
    """
    fields: Fields = {}
    told = _told(decision)
    if told is not None:
        for style in styles:
            SERIALIZERS[style](told, fields)
    if not decision.allowed:
        if told is not None and decision.id and HeaderStyle.X_RATELIMIT in styles:
            fields[DECISION_KEY] = DECISION_FIELD, decision.id
        fields["retry-after"] = "Retry-After", str(retry_after_seconds(decision))
    return fields


def retry_after_seconds(decision: Decision) -> int | None:
    """Return the seconds a refused client should wait, at least 1, or None if it may pass."""
    if decision.allowed:
        return None
    wait = decision.retry_after
    return DEGRADED_WAIT if wait is None else max(1, (wait + ALMOST_A_SECOND) // MICROSECONDS)


class Likeness(NamedTuple):
    """What a client is told of a refusal by one policy, but for the id; the times in seconds.

    Refusals that are equal in this have the same body and header fields, whoever is refused.
    """

    policy: QuotaPolicy
    remaining: int
    reset_at: int
    wait: int

    def decision(self, id: str) -> Decision:  # noqa: A002 - as in `Decision`
        """Return a decision that tells the same."""
        reset_after, wait = self.reset_at * MICROSECONDS, self.wait * MICROSECONDS
        told = Outcome(Charge("", self.policy), False, self.remaining, reset_after, wait)
        return Decision((told,), id=id)


def likeness(decision: Decision) -> Likeness | None:
    """Return what a refusal by one policy tells its client, None for any other decision."""
    answer, now, degraded, name, refusing, _ = decision
    if degraded is not None or not name or not refusing or len(answer) != 1:
        return None  # where something refuses, the answer is outcomes and no grant
    charge, _, remaining, reset_after, retry_after = refusing[0]
    reset_at = (now + reset_after + ALMOST_A_SECOND) // MICROSECONDS
    wait = ((retry_after or 0) + ALMOST_A_SECOND) // MICROSECONDS
    return filled(Likeness, (charge.policy, remaining, reset_at, wait))


def refusal_status(decision: Decision) -> int:
    """Return the HTTP status of a refusal: 503 where the store's failure alone refuses."""
    return 429 if decision.refusing else 503


def refusal_body(decision: Decision) -> dict[str, str | int]:
    """Return the members of a refusal's JSON body; one that is not disclosed tells no number."""
    body: dict[str, str | int] = {"error": _error(decision), "message": refusal_message(decision)}
    wait = retry_after_seconds(decision)
    if wait is not None and _is_disclosed(decision):
        body["retry_after"] = wait
    return body


def problem_body(decision: Decision) -> dict[str, str | int | list[str]]:
    """Return the members of a refusal's problem details (RFC 9457).

    The names in `violated-policies` are those in the header fields.
    """
    exceeded = bool(decision.refusing)
    body: dict[str, str | int | list[str]] = {
        "type": PROBLEM_TYPES + ("quota-exceeded" if exceeded else "temporary-reduced-capacity"),
        "title": "Quota exceeded" if exceeded else "Temporarily reduced capacity",
        "status": refusal_status(decision),
        "detail": refusal_message(decision),
    }
    if exceeded and _is_disclosed(decision):
        names = (encoded(outcome.charge.policy.name) for outcome in decision.refusing)
        body["violated-policies"] = list(dict.fromkeys(names))
    return body


def refusal_message(decision: Decision) -> str:
    """Return one or two sentences for people."""
    wait = retry_after_seconds(decision)
    reason = "Too many requests." if decision.refusing else "The service is short of capacity."
    if not _is_disclosed(decision):
        return f"{reason} Try again later."
    return f"{reason} Try again in {wait} second{'' if wait == 1 else 's'}."


def _error(decision: Decision) -> str:
    return "rate_limit_exceeded" if decision.refusing else "temporary_reduced_capacity"


def _is_disclosed(decision: Decision) -> bool:
    return all(outcome.charge.policy.disclose for outcome in decision.refusing)


def _told(decision: Decision) -> Told | None:
    answer, now, degraded, _, _, _ = decision
    if degraded is not None:  # one process's share of a limit is no client's quota
        return None
    if type(answer) is Grant and answer.quotas.told is not None:
        _, standings, quotas = answer
        if len(quotas.places) != len(standings):
            standings = [standings[place] for place in quotas.places]
        return filled(Told, (standings, quotas.told, now)) if standings else None
    told: dict[str, Standing] = {}
    for charge, allowed, remaining, reset_after, retry_after in decision.outcomes:
        policy = charge.policy
        if not policy.is_enforced:
            continue
        if policy.disclose:
            standing = policy, remaining, reset_after, 0 if allowed else retry_after or 1
            known = told.get(policy.name)
            if known is None or _is_tighter(standing, known):
                told[policy.name] = standing
        elif not allowed:
            return None
    if not told:
        return None
    policies = ", ".join(standing[0].told for standing in told.values())
    return Told(tuple(told.values()), policies, now)


def _is_tighter(one: Standing, other: Standing) -> bool:
    """Return whether a client should heed the one before the other."""
    _, remaining, reset_after, wait = one
    _, other_remaining, other_reset_after, other_wait = other
    if wait or other_wait:
        return wait > other_wait
    if remaining == other_remaining:
        return reset_after > other_reset_after
    return remaining < other_remaining


def _x_ratelimit(told: Told, fields: Fields) -> None:
    standings, _, now = told
    binding = standings[0]
    for standing in standings[1:]:
        # One that lets in and has more left is looser, and needs no closer look.
        if (standing[1] <= binding[1] or standing[3]) and _is_tighter(standing, binding):
            binding = standing
    policy, remaining, reset_after, _ = binding
    reset = (now + reset_after + ALMOST_A_SECOND) // MICROSECONDS
    fields["x-ratelimit-limit"] = "X-RateLimit-Limit", str(policy.capacity)
    fields["x-ratelimit-remaining"] = "X-RateLimit-Remaining", str(remaining)
    fields["x-ratelimit-reset"] = "X-RateLimit-Reset", str(reset)


def _draft_11(told: Told, fields: Fields) -> None:
    standings, policies, _ = told
    limits = []
    for policy, remaining, reset_after, wait in standings:
        in_seconds = ((wait or reset_after) + ALMOST_A_SECOND) // MICROSECONDS
        limits.append(f"{policy.quoted};r={remaining};t={in_seconds}")
    fields["ratelimit-policy"] = "RateLimit-Policy", policies
    fields["ratelimit"] = "RateLimit", ", ".join(limits)


SERIALIZERS: dict[str, Serializer] = {
    HeaderStyle.X_RATELIMIT: _x_ratelimit,
    HeaderStyle.DRAFT_11: _draft_11,
}
"""What writes the fields of each style; the draft still changes and has an entry per version."""
