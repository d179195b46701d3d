"""Refusals that a process remembers for a moment, so that an attack stays away from the store.

A client that is refused and goes on asking will be refused again until its wait is over, unless
somebody edits, resets or refunds. Once it shows itself to be one, by so many refusals in a second,
its next requests are answered from here; every tenth of a second one of them goes to the store and
finds out what has changed. An edit or a reset that this process makes itself is obeyed at once.
Only refusals are remembered, never an allowance.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock

from django_ratelimit_tiers.core.decisions import Decision, Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import MICROSECONDS, Charge
from django_ratelimit_tiers.core.tuples import filled
from django_ratelimit_tiers.policy.revisions import own_edits

SIGNS_OF_ATTACK = 10
"""Refusals of one charge within a second after which the next are remembered."""

MOST_REMEMBERED = 10_000

SPENT_SECONDS = 2.0
"""How long after the last refusal of a charge nothing depends on it any more."""

Key = tuple[str, int, int]
"""A subject, the identity of a policy and a cost: whatever else is charged, this one refuses."""


@dataclass(slots=True)
class Refusal:
    """The last refusal of a charge by the store, and how many there were since a second began.

    It is believed up to `until`, which has passed already as long as nothing shows an attack; the
    wait that the client was told `ends` later.
    """

    outcome: Outcome
    now: int
    at: float
    until: float
    ends: float
    second: float
    count: int


class RefusalMemory:
    """Bounded memory of refusals; `seconds` is how long one is believed, 0 for never."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self.remembered: OrderedDict[Key, Refusal] = OrderedDict()
        self._lock = Lock()
        self._own_edit = own_edits.last

    def recall(self, charges: Iterable[Charge], name: str) -> tuple[int, Decision] | None:
        """Return which of some charges is refused again, and the decision on it alone, if one is.

        It is the one with the longest wait, as the store would tell; the decision gets the name.
        """
        if self._own_edit is not own_edits.last:
            self._doubt_all()
        now, find = self._clock(), self.remembered.get
        found, at, ends = None, 0, 0.0
        for place, (subject, policy, cost) in enumerate(charges):
            refusal = find((subject, id(policy), cost))  # `_key`, written out: each request asks
            if refusal is not None and now < refusal.until and ends < refusal.ends:
                found, at, ends = refusal, place, refusal.ends
        return None if found is None else (at, _later(found, now, name))

    def learn(self, plan: Plan, decision: Decision) -> None:
        """Remember what the store has just refused, and forget what it has let through.

        There is nothing to learn from a request that was let in while nothing is `remembered`.
        """
        if not self._seconds:
            return
        refusing = decision.refusing
        with self._lock:
            if not refusing:
                for charge in plan.charges:
                    self.remembered.pop(_key(charge), None)
            for outcome in refusing:
                self._remember(outcome, decision.now)

    def _remember(self, outcome: Outcome, store_now: int) -> None:
        now, key = self._clock(), _key(outcome.charge)
        ends = now + (outcome.retry_after or 0) / MICROSECONDS
        known = self.remembered.get(key)
        second, count = (known.second, known.count) if known else (now, 0)
        if now - second > 1:
            goes_on = count >= SIGNS_OF_ATTACK and now - second < SPENT_SECONDS
            second, count = now, count if goes_on else 0
        is_attack = count + 1 >= SIGNS_OF_ATTACK
        until = min(now + self._seconds, ends) if is_attack else -math.inf
        self.remembered[key] = Refusal(outcome, store_now, now, until, ends, second, count + 1)
        self.remembered.move_to_end(key)
        while len(self.remembered) > MOST_REMEMBERED or self._oldest.at < now - SPENT_SECONDS:
            self.remembered.popitem(last=False)

    def _doubt_all(self) -> None:
        """Believe nothing any more that was remembered before an edit of this process."""
        with self._lock:
            self._own_edit = own_edits.last
            for refusal in self.remembered.values():
                refusal.until = -math.inf

    @property
    def _oldest(self) -> Refusal:
        return next(iter(self.remembered.values()))


def _key(charge: Charge) -> Key:
    # The remembered outcome holds the policy, so no other object can come to have its id.
    return charge.subject, id(charge.policy), charge.cost


def _later(refusal: Refusal, now: float, name: str) -> Decision:
    passed = int((now - refusal.at) * MICROSECONDS)
    charge, _, remaining, reset_after, retry_after = refusal.outcome
    reset_after, wait = max(0, reset_after - passed), max(1, (retry_after or 0) - passed)
    refusing = (filled(Outcome, (charge, False, remaining, reset_after, wait)),)
    return filled(Decision, (refusing, refusal.now + passed, None, name, refusing, False))
