"""Outcomes of single policies, and the decision they make together."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias, final

from django_ratelimit_tiers.core.algorithms import Standing
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.core.quotas import Quotas, together
from django_ratelimit_tiers.core.tuples import filled


class FailurePolicy(StrEnum):
    """What to answer while the store is unavailable."""

    OPEN = "open"
    CLOSED = "closed"
    LOCAL = "local"


CLOSED = FailurePolicy.CLOSED  # to ask an enum for its member takes as long as a call


# Answers are made for each request: frozen dataclasses take three times as long.
class Outcome(NamedTuple):
    """The answer of one policy; the times are in microseconds."""

    charge: Charge
    allowed: bool
    remaining: int
    reset_after: int
    retry_after: int | None

    @property
    def refuses(self) -> bool:
        """Whether this outcome alone refuses the request (a shadow policy never does)."""
        return not self.allowed and self.charge.policy.is_enforced


@final
class Grant(NamedTuple):
    """The answer when every policy lets the request in, kept as small as can be.

    `standings` tells how each policy stands after its charge, in the order of the charges.
    """

    charges: tuple[Charge, ...]
    standings: Sequence[Standing]
    quotas: Quotas

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The same policy by policy."""
        granted = zip(self.charges, self.standings, strict=True)
        return tuple(
            Outcome(charge, True, remaining, reset_after, None)
            for charge, (_, remaining, reset_after, _) in granted
        )


Answer: TypeAlias = Grant | tuple[Outcome, ...]
"""The answers of some policies: nearly always a grant, of which few outcomes are ever looked at."""


def outcomes_of(answer: Answer) -> tuple[Outcome, ...]:
    """Return an answer policy by policy."""
    return answer.outcomes if isinstance(answer, Grant) else answer


def _together(one: Answer, later: Answer) -> Answer:
    if isinstance(one, Grant) and isinstance(later, Grant):
        standings = *one.standings, *later.standings
        return Grant(one.charges + later.charges, standings, together(one.quotas, later.quotas))
    return outcomes_of(one) + outcomes_of(later)


class _Decision(NamedTuple):
    answer: Answer
    now: int
    degraded: FailurePolicy | None
    id: str
    refusing: tuple[Outcome, ...]
    allowed: bool


class Decision(_Decision):
    """The answer to a whole request, or to one stage of it.

    `answer` is that of its policies, made at `now` by the store's clock in microseconds. `degraded`
    names the failure policy that answered while the store was unavailable; then the answer may be
    empty. `id` is opaque and names the request's decision in logs, events and the response to a
    refusal. `refusing` are the outcomes that refuse the request, and `allowed` is whether it may
    pass: both follow from the others, and are derived once because they are asked for again and
    again.
    """

    __slots__ = ()

    def __new__(
        cls,
        answer: Answer = (),
        now: int = 0,
        degraded: FailurePolicy | None = None,
        id: str = "",  # noqa: A002 - the name that it is read by
    ) -> Decision:
        refusing: tuple[Outcome, ...] = ()
        if type(answer) is not Grant:
            for outcome in answer:
                if not outcome.allowed and outcome.refuses:
                    refusing += (outcome,)
        allowed = not refusing and degraded is not CLOSED
        return filled(cls, (answer, now, degraded, id, refusing, allowed))

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The answer policy by policy."""
        return outcomes_of(self.answer)

    @property
    def enforced(self) -> tuple[Outcome, ...]:
        """The outcomes whose policies are enforced: the only ones a client is told of."""
        return tuple(o for o in self.outcomes if o.charge.policy.is_enforced)

    @property
    def retry_after(self) -> int | None:
        """The longest wait of the refusing outcomes in microseconds, None if none refuses."""
        return max((o.retry_after or 0 for o in self.refusing), default=None)

    @property
    def binding(self) -> Outcome | None:
        """The outcome a client should heed.

        On a refusal the refusing one with the longest wait, otherwise the one with the fewest
        requests remaining, then the longest reset.
        """
        if refusing := self.refusing:
            return max(refusing, key=lambda outcome: outcome.retry_after or 0)
        return min(self.enforced, key=lambda o: (o.remaining, -o.reset_after), default=None)

    def named(self, id: str) -> Decision:  # noqa: A002 - as above
        """Return this decision with an id."""
        answer, now, degraded, _, refusing, allowed = self
        return filled(Decision, (answer, now, degraded, id, refusing, allowed))

    def merge(self, later: Decision) -> Decision:
        """Return the decision of both stages of one request."""
        if later is NOTHING_DECIDED:
            return self
        return Decision(
            _together(self.answer, later.answer),
            now=max(self.now, later.now),
            degraded=later.degraded or self.degraded,
            id=later.id or self.id,
        )


NOTHING_DECIDED = Decision()
"""The decision on a request that was charged nothing."""
