"""Refusals and usage in the memory of one process."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from threading import RLock
from uuid import uuid4

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.refusals import (
    OTHERS,
    SEPARATOR,
    Counts,
    RefusalKey,
    SampledRefusal,
    counted_outcomes,
    labelled_key,
    parse_key,
    printable,
)
from django_ratelimit_tiers.core.sightings import Sighting
from django_ratelimit_tiers.core.tallies import ACCOUNT, Tally, Usage
from django_ratelimit_tiers.store.records import (
    BACKLOG,
    BUSIEST,
    HOUR,
    MINUTE,
    MOST_QUOTAS,
    MOST_SEEN,
    SEEN_SECONDS,
    SEEN_TTL,
    USAGE_TTL,
    Records,
)


class MemoryRecords(Records):
    """Records that die with their process, with the same bounds as those on a server."""

    def __init__(
        self, *, cardinality: int = 2000, sample: int = 1000, count_ttl: int = 86_400
    ) -> None:
        self._cardinality = cardinality
        self._count_ttl = count_ttl
        self._counts: dict[int, dict[RefusalKey, int]] = {}
        self._sample: deque[SampledRefusal] = deque(maxlen=sample)
        self._taken: list[SampledRefusal] = []
        self._usage: dict[int, dict[str, Usage]] = {}
        self._seen: dict[int, list[tuple[str, str]]] = {}
        self._quotas: dict[tuple[str, str], DayQuota] = {}
        self._accounts: dict[str, int] = {}
        self._locks: dict[str, tuple[str, float]] = {}
        self._heard = "", 0
        self._lock = RLock()

    def count(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        """Count what a plan refused, as the script does on a server."""
        if not plan.spend or not plan.labels:
            return
        for place in filter(plan.labels.__getitem__, counted_outcomes(outcomes)):
            charge = plan.charges[place]
            key, _ = labelled_key(plan.labels[place], charge.policy.mode, charge.subject)
            with self._lock:
                self._count(key, 1)

    def now(self) -> int:
        return int(time.time())

    def minutes(self) -> list[int]:
        return sorted(self._counts)

    def counts(self, minute: int) -> Counts:
        with self._lock:
            found = [
                (parse_key(SEPARATOR.join(key)), count)
                for key, count in self._counts.get(minute, {}).items()
            ]
        return {key: count for key, count in found if key is not None}

    def forget_minute(self, minute: int) -> None:
        self._counts.pop(minute, None)

    def sample(self) -> list[SampledRefusal]:
        with self._lock:
            if not self._taken:
                self._taken = list(self._sample)
                self._sample.clear()
            return list(self._taken)

    def forget_sample(self) -> None:
        self._taken = []

    def leave_to_parent(self) -> None:
        """Start a forked process without the refusals that its parent tells of."""
        self._lock = RLock()  # no thread is left that would give the old one back
        self._counts.clear()

    def take_counts(self, most: int) -> Counts:
        """Return and remove refusals of whatever minute, of so many keys at most."""
        taken: dict[RefusalKey, int] = {}
        with self._lock:
            for minute, counts in list(self._counts.items()):
                while counts and len(taken) < most:
                    key, count = counts.popitem()
                    taken[key] = taken.get(key, 0) + count
                if not counts:
                    del self._counts[minute]
        return taken

    async def aadd(self, tally: Tally) -> None:
        self.add(tally)

    def add(self, tally: Tally) -> None:
        now = self.now()
        with self._lock:
            teller, number = self._heard
            if teller == tally.teller and number >= tally.number:
                return  # two threads tell the same while neither has heard back
            self._heard = tally.teller, tally.number
            for subject, usage in tally.usage.items():
                self._add_usage(now - now % HOUR, subject, usage)
                if subject.startswith(ACCOUNT):
                    self._accounts[subject.removeprefix(ACCOUNT)] = now
            self._see(now, tally.sightings)
            for quota in tally.quotas:
                known = self._quotas.get((quota.subject, quota.policy))
                if quota.replaces(known) if known else len(self._quotas) < MOST_QUOTAS:
                    self._quotas[quota.subject, quota.policy] = quota
            for key, count in tally.refusals.items():
                self._count(key, count)
            self._sample.extend(tally.sample)

    def hours(self) -> list[int]:
        return sorted(self._usage)

    def usage(self, hour: int) -> Mapping[str, Usage]:
        usage = self._usage.get(hour, {})
        return {printable(subject): of_subject for subject, of_subject in usage.items()}

    def forget_hour(self, hour: int) -> None:
        self._usage.pop(hour, None)

    def accounts_used(self) -> Mapping[str, int]:
        return dict(self._accounts)

    def sightings(self, start: int, end: int) -> Collection[Sighting]:
        with self._lock:
            sets = [pairs for begins, pairs in self._seen.items() if start <= begins < end]
            pairs = set().union(*sets)
        return [Sighting(printable(subject), network) for subject, network in pairs]

    def quotas(self) -> Sequence[DayQuota]:
        return list(self._quotas.values())

    def forget_quotas(self, quotas: Collection[DayQuota]) -> None:
        for quota in quotas:
            self._quotas.pop((quota.subject, quota.policy), None)

    def take_lock(self, name: str, seconds: int) -> str | None:
        with self._lock:
            if name in self._locks and self._locks[name][1] > time.monotonic():
                return None
            token = uuid4().hex
            self._locks[name] = token, time.monotonic() + seconds
            return token

    def give_lock(self, name: str, token: str) -> None:
        with self._lock:
            if self._locks.get(name, ("", 0))[0] == token:
                del self._locks[name]

    def renew_lock(self, name: str, token: str, seconds: int) -> bool:
        with self._lock:
            holder, until = self._locks.get(name, ("", 0.0))
            if holder != token or until < time.monotonic():
                return False
            self._locks[name] = token, time.monotonic() + seconds
            return True

    def _count(self, key: RefusalKey, count: int) -> None:
        minute = self.now() // MINUTE * MINUTE
        if minute not in self._counts:
            for old in [old for old in self._counts if old <= minute - self._count_ttl]:
                del self._counts[old]
        counts = self._counts.setdefault(minute, {})
        is_full = len(counts) >= self._cardinality or len(self._counts) > BACKLOG
        if key not in counts and is_full:
            key = key._replace(subject=OTHERS)
        counts[key] = counts.get(key, 0) + count

    def _add_usage(self, hour: int, subject: str, usage: Usage) -> None:
        if hour not in self._usage:
            for old in [old for old in self._usage if old <= hour - USAGE_TTL]:
                del self._usage[old]
        of_hour = self._usage.setdefault(hour, {})
        known = of_hour.get(subject)
        if known is None and len(of_hour) >= BUSIEST:
            least = min(of_hour, key=lambda name: of_hour[name].allowed + of_hour[name].refused)
            given_up = of_hour.pop(least)
            known = Usage(given_up.allowed + given_up.refused, 0)
        known = known or Usage(0, 0)
        of_hour[subject] = Usage(
            known.allowed + usage.allowed,
            known.refused + usage.refused,
            usage.hourly_limit or known.hourly_limit,
        )

    def _see(self, now: int, sightings: Collection[tuple[str, str]]) -> None:
        begins = now - now % SEEN_SECONDS
        for old in [old for old in self._seen if old <= begins - SEEN_TTL]:
            del self._seen[old]
        seen = self._seen.setdefault(begins, [])
        seen.extend(set(sightings).difference(seen))
        while len(seen) > MOST_SEEN:
            seen[random.randrange(len(seen))] = seen[-1]  # noqa: S311 (a sample, not a key)
            seen.pop()
