"""What a process counts by itself and tells the store every few seconds.

Usage, sightings and day quotas need no answer, so they cost no round trip of their own: whichever
request notices that it is time takes them along. A process that is killed loses what it has not
told, at most that of FLUSH_SECONDS and of the requests since the last one that noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from os import getpid
from secrets import token_hex
from threading import Lock

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.decisions import Decision, Grant, Outcome
from django_ratelimit_tiers.core.policies import MICROSECONDS
from django_ratelimit_tiers.core.refusals import Counts, SampledRefusal
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.store.records import HOUR, MINUTE

FLUSH_SECONDS = 2.0
"""How often a process tells the store."""

MOST_ENTRIES = 250
"""How many subjects, by network, make a process tell the store at once, and how many quotas it
keeps until then. While the store adds a tally it does nothing else, and has to answer in time."""

MOST_REFUSALS = 250
"""Refusals decided without the store, by what they are counted under, that one tally tells."""

MOST_SAMPLED = 50
"""Refusals that a tally tells in full: the newest of the process."""


class TallySheet:
    """Counts requests until they are taken away; safe to share between threads.

    What was taken stays until it was told, so that it can be told again: each tally has a number by
    which the store knows what it has.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._told_at = clock()
        self._untold: Tally | None = None
        self._process = self._number = 0
        self._clear()

    def note(self, subject: str, address_subject: str, decision: Decision) -> bool:
        """Count one request of a subject (`user:42`) from an address, and how it was decided.

        Limits decided without the store are only this process's share, and are left out. Returns
        whether the store should be told now.
        """
        key, is_full = (subject, address_subject), False
        answer, _, _, _, _, allowed = decision
        with self._lock:
            usage = self._usage.get(key)
            if usage is None:
                usage, is_full = self._begin(key, decision)
            if usage is not None:
                usage[0 if allowed else 1] += 1
                if type(answer) is not Grant:
                    self._note_quotas(decision)
                else:
                    _, standings, quotas = answer
                    for place, least in quotas.short_at:
                        if standings[place][1] <= least:
                            self._note_quotas(decision)
                            break
        return is_full or self._clock() - self._told_at > FLUSH_SECONDS

    def note_again(self, subject: str, address_subject: str, decision: Decision) -> bool:
        """Count one more refusal like an earlier one, whose quotas were noted then.

        Whoever counts such refusals takes care that the store is told in time.
        """
        with self._lock:
            usage = self._usage.get((subject, address_subject))
            if usage is not None:
                usage[1] += 1
                return False
        return self.note(subject, address_subject, decision)

    def take(
        self, refusals: Callable[[], Counts], sample: Callable[[], Sequence[SampledRefusal]]
    ) -> Tally:
        """Return what is to be told now: what could not be told before, otherwise what is new.

        `refusals` returns and forgets what was decided without the store, and `sample` the newest
        refusals in full.
        """
        with self._lock:
            self._told_at = self._clock()
            if self._untold is None:
                self._untold = Tally(
                    self._usage_by_subject(),
                    set(self._sightings()),
                    [_day_quota(*noted) for noted in self._quotas.values()],
                    refusals(),
                    sample(),
                    *self._next_number(),
                )
                self._clear()
            return self._untold

    def told(self, tally: Tally) -> None:
        """Forget what the store has now."""
        with self._lock:
            if self._untold is tally:
                self._untold = None

    def _next_number(self) -> tuple[str, int]:
        if self._process != getpid():  # a fork is a teller of its own
            self._process, self._teller, self._number = getpid(), token_hex(8), 0
        self._number += 1
        return self._teller, self._number

    def _clear(self) -> None:
        self._usage: dict[tuple[str, str], list[int]] = {}
        self._quotas: dict[tuple[str, str], tuple[Outcome, int]] = {}

    def _usage_by_subject(self) -> dict[str, Usage]:
        usage: dict[str, Usage] = {}
        for (subject, _), (allowed, refused, hourly_limit) in self._usage.items():
            before = usage.get(subject, Usage(0, 0, hourly_limit))
            counts = before.allowed + allowed, before.refused + refused
            usage[subject] = Usage(*counts, before.hourly_limit)
        return usage

    def _sightings(self) -> Iterator[tuple[str, str]]:
        """Yield who was seen in which network, but for who is no more than an address."""
        for subject, address_subject in self._usage:
            if subject.startswith(("user:", "key:")):
                yield subject, address_subject.removeprefix("ip:")

    def _begin(self, key: tuple[str, str], decision: Decision) -> tuple[list[int] | None, bool]:
        """Return a new entry, None if there are too many, and whether the sheet is full now."""
        entries, usage = self._usage, None
        if len(entries) < MOST_ENTRIES:
            outcomes = () if decision.degraded else decision.outcomes
            own = [o for o in outcomes if o.charge.subject == key[0]]
            usage = entries[key] = [0, 0, _hourly_limit(own)]
        return usage, self._untold is None and len(entries) >= MOST_ENTRIES

    def _note_quotas(self, decision: Decision) -> None:
        """Note the day quotas of a decision that run short; the last of each before it is told is
        what counts."""
        for outcome in () if decision.degraded else decision.outcomes:
            subject, policy, _ = outcome.charge
            quota, is_short = (subject, policy.name), outcome.remaining <= policy.short_at
            if is_short and (len(self._quotas) < MOST_ENTRIES or quota in self._quotas):
                self._quotas[quota] = outcome, decision.now


def _hourly_limit(outcomes: Sequence[Outcome]) -> int:
    """Return what the tightest of the policies lets through in an hour, 0 without any."""
    limits = [
        outcome.charge.policy.requests * HOUR // outcome.charge.policy.period
        for outcome in outcomes
        if outcome.charge.policy.is_enforced
    ]
    return min(limits, default=0)


def _day_quota(outcome: Outcome, now: int) -> DayQuota:
    subject, policy = outcome.charge.subject, outcome.charge.policy
    window = (now // policy.window + 1) * policy.window // (MINUTE * MICROSECONDS)
    used = policy.capacity - outcome.remaining
    return DayQuota(subject, policy.name, policy.capacity, used, window)
