"""Mixed traffic while the policy is edited, the store is killed and workers are recycled."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean

from django.db import close_old_connections

from django_ratelimit_tiers.core.addresses import address_subject
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.models import TierPolicy
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.snapshots import build_snapshot
from django_ratelimit_tiers.store.configured import configured_store
from tests.memory import children, resident_bytes, server_bytes
from tests.policies import YEAR, limit_tier
from tests.servers import SiteProcess, ValkeyProcess
from tests.soak.traffic import YEAR_LIMIT, ClientThread, Seen, ask

PROBE = "192.0.2.1"
"""The address that looks whether an edit is in force; the clients have others."""

SETTLE_SECONDS = 4.0
"""After the store is back: a cool-down with its jitter, and a busy machine."""


@dataclass(frozen=True)
class Plan:
    """How long to run, and how often what happens, in seconds.

    Workers that are not recycled show slow leaks. `strangers` is the share of requests that come
    from an address of their own.
    """

    seconds: float
    clients: int = 4
    addresses: int = 60
    per_minute: int = 30
    edit_every: float = 1.0
    kill_every: float = 45.0
    dead_for: float = 2.0
    recycle_every: float | None = 60.0
    strangers: float = 0.0


@dataclass
class Report:
    """What happened."""

    seen: Seen = field(default_factory=Seen)
    edits: int = 0
    edits_probed: int = 0
    edits_missed: int = 0
    edits_unanswered: int = 0
    kills: int = 0
    recycles: int = 0
    lost: int = 0
    doubled: int = 0
    counted_refusals: int = 0
    worker_sizes: list[tuple[int, dict[int, int]]] = field(default_factory=list)
    store_bytes: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Responses with a status of 500 or more."""
        return sum(count for status, count in self.seen.statuses.items() if status >= 500)

    def lines(self) -> list[str]:
        """Return the figures, one in each line."""
        seen, seconds = self.seen, sorted(self.seen.seconds)
        total = len(seconds)
        largest = [max(sizes.values()) for _, sizes in self.worker_sizes]
        slow = {p: seconds[min(total - 1, int(total * p))] * 1000 for p in (0.5, 0.99, 0.999)}
        return [
            f"requests: {total:,}, by status: {dict(sorted(seen.statuses.items()))}",
            f"responses of 500 and more: {self.failures}",
            f"connections that broke: {seen.broken}",
            f"answered while the store was away: {seen.unsure.total():,}",
            "milliseconds: "
            + ", ".join(f"p{p * 100:g} {value:.1f}" for p, value in slow.items())
            + f", max {seconds[-1] * 1000:.0f}",
            (
                f"edits: {self.edits}, looked for on the next request: {self.edits_probed}, "
                f"answered without the store: {self.edits_unanswered}, "
                f"not in force: {self.edits_missed}"
            ),
            f"store killed and restarted: {self.kills}, workers recycled: {self.recycles}",
            f"charges lost: {self.lost}, charged twice: {self.doubled}",
            f"refusals seen: {seen.refused:,}, counted: {self.counted_refusals:,}",
            f"memory of a worker: {_range(largest)} MB",
            *([] if self.recycles else self._growth()),
            f"memory of the store: {_range(self.store_bytes)} MB",
            *self.errors,
        ]

    def _growth(self) -> list[str]:
        """Return how the workers, which lived on, have grown since the first fifth of the run."""
        warm = self.worker_sizes[len(self.worker_sizes) // 5 :]
        if len(warm) < 2:
            return []
        marks = [warm[round(quarter * (len(warm) - 1) / 4)] for quarter in range(5)]
        (first, before), *_, (last, after) = marks
        grown = sum(after.values()) - sum(before.values())
        quarters = ", ".join(f"{sum(sizes.values()) / 1024**2:.1f}" for _, sizes in marks)
        return [
            f"memory of all workers after {first:,} requests, and by quarters: {quarters} MB",
            f"grown by {grown * 10_000 / (last - first):,.0f} bytes in 10,000 requests",
        ]


def _range(sizes: list[int]) -> str:
    """Return the mean of the first and of the last third of some sizes, in megabytes."""
    if not sizes:
        return "not measured"
    third = max(1, len(sizes) // 3)
    early, late = mean(sizes[:third]), mean(sizes[-third:])
    return f"{early / 1024**2:.1f} early, {late / 1024**2:.1f} late"


class Soak:
    """One run on a site whose database and store this process shares."""

    def __init__(self, plan: Plan, store: ValkeyProcess, site: SiteProcess) -> None:
        self._plan = plan
        self._store = store
        self._site = site
        self._report = Report()
        self._over = threading.Event()
        self._store_since = time.monotonic()
        self._limit = 1_000_000

    def run(self) -> None:
        """Run to the end."""
        plan = self._plan
        minute = {"requests": plan.per_minute, "period": 60}
        tier = limit_tier("anonymous", self._limit, minute)
        self._policy = TierPolicy.objects.get(tier=tier, period=YEAR)
        configured_store().announce_policy()
        self._clients = [
            ClientThread(number, self._site.port, plan.addresses, plan.strangers)
            for number in range(plan.clients)
        ]
        acts = [
            threading.Thread(target=self._repeat, args=(act, every), daemon=True)
            for act, every in (
                (self._edit, plan.edit_every),
                (self._kill_store, plan.kill_every),
                (self._recycle, plan.recycle_every),
                (self._measure, 5.0),
            )
            if every is not None
        ]
        for thread in [*self._clients, *acts]:
            thread.start()
        time.sleep(plan.seconds)
        self._over.set()
        for act in acts:
            act.join()
        time.sleep(SETTLE_SECONDS)  # some more traffic, on a store that is there
        for client in self._clients:
            self._report.seen.merge(client.finish())

    def count(self) -> Report:
        """Compare what was charged and counted with what the clients saw; stop the site before.

        A process tells the store of refusals that it answered from memory when it ends.
        """
        store = configured_store()
        store.ping()
        tier = build_snapshot("", AssignmentCache()).tiers["anonymous"]
        (policy,) = [policy for policy in tier.policies if policy.period == YEAR]
        seen = self._report.seen
        for address in seen.charged.keys() | seen.unsure.keys():
            (outcome,) = store.peek([Charge(address_subject(address), policy)])
            used = policy.capacity - outcome.remaining
            least = seen.charged[address]
            self._report.lost += max(0, least - used)
            self._report.doubled += max(0, used - least - seen.unsure[address])
        for minute in store.records.minutes():
            self._report.counted_refusals += sum(
                count
                for key, count in store.records.counts(minute).items()
                if key.subject != f"ip:{PROBE}"
            )
        return self._report

    def _repeat(self, act: Callable[[], None], every: float) -> None:
        while not self._over.wait(every):
            try:
                act()
            except Exception as error:
                self._report.errors.append(f"{act.__name__}: {type(error).__name__}: {error}")
        close_old_connections()

    def _edit(self) -> None:
        self._limit += 1
        was_up = self._store_is_settled()
        self._policy.requests = self._limit
        self._policy.save()
        _, headers = ask(self._site.port, "/plain/", PROBE)
        self._report.edits += 1
        if not was_up or not self._store_is_settled():
            return
        told = YEAR_LIMIT.search(headers.get("ratelimit-policy", ""))
        if told is None:  # this worker did not get an answer in time
            self._report.edits_unanswered += 1
            return
        self._report.edits_probed += 1
        self._report.edits_missed += int(told[1]) != self._limit

    def _kill_store(self) -> None:
        self._store_since = float("inf")
        self._store.kill()
        time.sleep(self._plan.dead_for)
        self._store.start()
        self._store_since = time.monotonic()
        self._report.kills += 1

    def _store_is_settled(self) -> bool:
        return time.monotonic() - self._store_since > SETTLE_SECONDS

    def _recycle(self) -> None:
        os.kill(self._site.pid, signal.SIGHUP)
        self._report.recycles += 1

    def _measure(self) -> None:
        sizes = {pid: resident_bytes(pid) for pid in children(self._site.pid)}
        if sizes:
            asked = sum(len(client.seen.seconds) for client in self._clients)
            self._report.worker_sizes.append((asked, sizes))
        if self._store_is_settled():
            with self._store.client() as client:
                self._report.store_bytes.append(server_bytes(client))
