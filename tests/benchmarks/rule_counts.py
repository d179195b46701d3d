"""How time and memory grow with the number of rules: matching, and building a snapshot."""

from __future__ import annotations

import gc
import time
import tracemalloc
from statistics import median

from django.test import RequestFactory
from django_smart_ratelimit.models import RateLimitRule
from django_smart_ratelimit.rules import RuleEngine

from django_ratelimit_tiers.core.rulesets import RuleSet
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.snapshots import Snapshot, build_snapshot
from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import RULED, RULES
from tests.benchmarks.reports import Cell, Goal, Table
from tests.benchmarks.rounds import calls
from tests.benchmarks.site import create_rules

COUNTS = (10, 100, 1_000, 10_000)
PEER_MOST = 1_000


class PeerRules(RuleEngine):
    """The nearest peer's engine with rules that are not in the database."""

    def __init__(self, rules: list[RateLimitRule]) -> None:
        super().__init__()
        self._rules = rules

    def _load_rules(self) -> list[RateLimitRule]:
        return self._rules


def measure(bench: Bench) -> None:
    """Add the tables of matching and of building."""
    rows: list[tuple[Cell, ...]] = []
    snapshots: dict[int, Snapshot] = {}
    for count in COUNTS:
        create_rules(count)
        seconds, size = [], 0
        for _ in range(bench.choose(2, 5)):
            begin = time.perf_counter()
            snapshots[count] = _snapshot()
            seconds.append(time.perf_counter() - begin)
        if not bench.quick or count < COUNTS[-1]:
            size = _size() // count
        rows.append((f"{count:,} rules", median(seconds) * 1000, size or "not measured"))
    create_rules(RULES)
    bench.report.tables.append(
        Table(
            "Snapshot of the policy",
            "Read from the database and compiled, by one thread, while others go on with the "
            "last one. Bytes of Python objects for each rule with one policy.",
            ("", "built in ms", "bytes a rule"),
            rows,
        )
    )
    bench.report.goals.append(
        Goal("snapshot of 10,000 rules", float(rows[-1][1]), most=1000, unit=" ms")
    )
    _measure_matching(bench, {count: snapshot.rules for count, snapshot in snapshots.items()})


def _measure_matching(bench: Bench, rule_sets: dict[int, RuleSet]) -> None:
    request = RequestFactory().get(RULED)
    engines = {
        count: PeerRules([_theirs(rule.path) for rule in rules.rules])
        for count, rules in rule_sets.items()
        if count <= PEER_MOST
    }
    ours = {
        f"this app, {count:,}": calls(lambda _, rules=rules: rules.match("GET", RULED))
        for count, rules in rule_sets.items()
    }
    theirs = {
        f"django-smart-ratelimit, {count:,}": calls(
            lambda _, engine=engine: engine.get_rule_for_request(request)
        )
        for count, engine in engines.items()
    }
    timings = bench.race(ours, burst=100) | bench.race(theirs, burst=2)
    bench.report.tables.append(
        Table(
            "Finding the rules of a path",
            "The rules on one path among so many.",
            ("rules", "median us", "p99 us"),
            [(name, timing.microseconds, timing.p99) for name, timing in timings.items()],
        )
    )
    slowest = max(timings[name].microseconds for name in ours)
    bench.report.goals.append(Goal("match of 10 to 10,000 rules", slowest, most=3, unit=" us"))


def _snapshot() -> Snapshot:
    return build_snapshot("bench", AssignmentCache())


def _size() -> int:
    gc.collect()
    tracemalloc.start()
    snapshot = _snapshot()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del snapshot
    return size


def _theirs(path: str) -> RateLimitRule:
    return RateLimitRule(name=path, path_pattern="^" + path.removesuffix("**"), rate="60/m")
