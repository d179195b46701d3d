"""Counters in the memory of one process: for tests, development and the local failure policy."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from uuid import uuid4

from django_ratelimit_tiers.core import algorithms
from django_ratelimit_tiers.core.algorithms import CounterState
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.plans import CounterKey, Plan, StalePlan, decide
from django_ratelimit_tiers.core.policies import MICROSECONDS, Charge
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.findings import Finding
from django_ratelimit_tiers.store.memory_records import MemoryRecords

LEAST_TTL = 60
"""Seconds for which even the shortest window is kept, as in the scripts."""


@dataclass(slots=True)
class SubjectCounters:
    """The counters of one subject, and when by the process's clock each may be forgotten."""

    states: dict[bytes, CounterState] = field(default_factory=dict)
    expires: dict[bytes, float] = field(default_factory=dict)


class MemoryStore(Store):
    """A store that decides exactly as Redis would, for one process and its threads.

    At most `max_subjects` are kept; past that the one that was charged longest ago is forgotten.
    Counters that no window needs any more are forgotten by the `clock`, in seconds.
    """

    shared = False

    records: MemoryRecords

    def __init__(
        self,
        *,
        max_subjects: int = 100_000,
        records: MemoryRecords | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_subjects = max_subjects
        self.records = records or MemoryRecords()
        self._subjects: OrderedDict[str, SubjectCounters] = OrderedDict()
        self._revision = uuid4().hex
        self._subject_revisions: dict[str, str] = {}
        self._clock = clock
        self._lock = Lock()

    def execute(self, plan: Plan) -> Decision:
        with self._lock:
            self._check_revisions(plan)
            now = time.time_ns() // 1000 if plan.now is None else plan.now
            states = {
                (subject, counter_id): state
                for subject in {charge.subject for charge in plan.charges}
                for counter_id, state in self._states(subject).items()
            }
            outcomes, changed = decide(plan.charges, states, now, spend=plan.spend)
            self._save(plan.charges, changed)
        self.records.count(plan, outcomes)
        return Decision(outcomes, now)

    async def aexecute(self, plan: Plan) -> Decision:
        return self.execute(plan)

    def refund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        now = time.time_ns() // 1000 if now is None else now
        with self._lock:
            for charge in charges:
                policy = charge.policy
                state = self._states(charge.subject).get(policy.counter_id)
                if state is None or not charge.cost:
                    continue
                settled = algorithms.settle(policy, state, now)
                given = algorithms.give_back(policy, settled, charge.cost, charged_at)
                if given is not settled:
                    self._save([charge], {(charge.subject, policy.counter_id): given})

    def reset(self, subject: str) -> None:
        with self._lock:
            self._subjects.pop(subject, None)

    def ping(self) -> bool:
        """Return True: memory always answers."""
        return True

    def examine(self) -> Iterator[Finding]:
        advice = "Serve the cache with django-redis, so that all processes count together."
        yield Finding("Limits are counted in the memory of each process.", True, advice)

    def revision(self) -> str:
        return self._revision

    def announce_policy(self) -> None:
        self._revision = uuid4().hex

    def announce_subjects(self, subjects: Iterable[str]) -> None:
        with self._lock:
            for subject in subjects:
                self._subject_revisions[subject] = uuid4().hex
            while len(self._subject_revisions) > self.max_subjects:
                self._subject_revisions.pop(next(iter(self._subject_revisions)))

    def _check_revisions(self, plan: Plan) -> None:
        known = plan.subject_revisions
        current = {subject: self._subject_revisions.get(subject, "") for subject in known}
        if plan.revision not in (None, self._revision) or current != known:
            raise StalePlan(self._revision, current)

    def _states(self, subject: str) -> dict[bytes, CounterState]:
        counters = self._subjects.get(subject)
        return counters.states if counters else {}

    def _save(self, charges: Sequence[Charge], changed: dict[CounterKey, CounterState]) -> None:
        seconds = self._clock()
        policies = {(charge.subject, charge.policy.counter_id): charge.policy for charge in charges}
        for (subject, counter_id), state in changed.items():
            counters = self._subjects.setdefault(subject, SubjectCounters())
            self._subjects.move_to_end(subject)
            for old in [old for old, expires in counters.expires.items() if expires <= seconds]:
                del counters.states[old], counters.expires[old]
            policy = policies[subject, counter_id]
            _, _, reset_after, _ = algorithms.standing(policy, *state[:3])
            lasts = 2 * policy.window + reset_after
            counters.states[counter_id] = state
            counters.expires[counter_id] = seconds + max(LEAST_TTL, lasts / MICROSECONDS)
        while len(self._subjects) > self.max_subjects:
            self._subjects.popitem(last=False)
