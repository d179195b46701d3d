"""One decision, without a request: the store alone, beside libraries that do the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import takewhile

import redis
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.aio.strategies import FixedWindowRateLimiter as AsyncFixedWindow
from limits.aio.strategies import SlidingWindowCounterRateLimiter as AsyncSlidingWindow
from throttled import RateLimiterType
from throttled.asyncio import Throttled as AsyncThrottled
from throttled.asyncio import rate_limiter as arate_limiter
from throttled.asyncio.store import RedisStore as AsyncThrottledStore

from django_ratelimit_tiers.core.decisions import Decision, Grant
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.redis import RedisStore
from tests.benchmarks.bench import Bench
from tests.benchmarks.floor import AsyncFloor, Floor
from tests.benchmarks.peers import DAY, MANY, MINUTE, Hit, peers
from tests.benchmarks.reports import Goal, Table
from tests.benchmarks.rounds import Timing, acalls, calls

SUBJECTS = 1_000

POLICIES = (
    QuotaPolicy("bench-minute", MANY, 60, Algorithm.TOKEN_BUCKET, 2 * MANY, counter="t"),
    QuotaPolicy("bench-day", 100 * MANY, 86_400, counter="t"),
    QuotaPolicy("rule-minute", MANY, 60, counter="r1"),
)
"""A tier's minute and day, and one rule."""

LABELS = tuple(f"{policy.name}\0bench\0GET area7/thing7/" for policy in POLICIES)

FLOOR = "floor F: INCR and PEXPIRE, 1 limit"
ONE = "this app, 1 policy"
THREE = "this app, tier of 2 + 1 rule"
COLUMNS = ("", "median us", "p99 us", "x F", "commands")


class Decisions:
    """Plans of the first so many policies, with revisions, labels and a form, as the limiter's.

    Like the limiter it keeps what clients are charged whom it has seen before.
    """

    def __init__(self, store: RedisStore, policies: int) -> None:
        self.store = store
        subjects = [f"client:{number}" for number in range(SUBJECTS)]
        self._plans = [
            Plan(
                tuple(Charge(subject, policy) for policy in POLICIES[:policies]),
                revision=store.revision(),
                subject_revisions={subject: ""},
                labels=LABELS[:policies],
                form=self,
            )
            for subject in subjects
        ]

    def asked(self, number: int) -> Plan:
        """Return what the store is asked for a request."""
        return self._plans[number % SUBJECTS]

    def run(self, number: int) -> None:
        _expect_allowed(self.store.execute(self.asked(number)))

    async def arun(self, number: int) -> None:
        _expect_allowed(await self.store.aexecute(self.asked(number)))


def _expect_allowed(decision: Decision) -> None:
    """Look at the answer as the limiter does, which has every number that header fields need."""
    if type(decision.answer) is not Grant or not decision.answer.standings:
        raise RuntimeError(f"not a decision that lets a request in: {decision}")


def measure(bench: Bench) -> None:
    """Add the tables of one decision, and what it should cost."""
    store = RedisStore(url=bench.valkey.url, timeout=1)
    contenders = {
        FLOOR: Floor(bench.valkey.url).hit,
        ONE: Decisions(store, 1).run,
        THREE: Decisions(store, 3).run,
        **dict(peers(bench.valkey.url, SUBJECTS)),
    }
    timings = bench.race({name: calls(run) for name, run in contenders.items()})
    commands = {name: _round_trips(bench, run) for name, run in contenders.items()}
    bench.report.tables.append(
        Table(
            "One decision, sync",
            "One client, one connection, no framework. This app's decision checks two revisions "
            "and brings every number that header fields need.",
            COLUMNS,
            _rows(timings, commands),
        )
    )
    bench.report.goals += [
        Goal("one decision, sync", timings[THREE].ratio(timings[FLOOR]), most=0.75, unit=" F"),
        Goal("three policies beside one", timings[THREE].ratio(timings[ONE]), most=1.15, unit=" x"),
        Goal("commands of one decision", commands[THREE], most=1),
    ]
    store.close()
    _measure_async(bench)


def _measure_async(bench: Bench) -> None:
    url = bench.valkey.url
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        floor, store = AsyncFloor(url), RedisStore(url=url, timeout=1)
        storage = AsyncRedisStorage("async+" + url, implementation="redispy")
        fixed, sliding = AsyncFixedWindow(storage), AsyncSlidingWindow(storage)
        throttled = AsyncThrottled(
            using=RateLimiterType.FIXED_WINDOW.value,
            quota=arate_limiter.per_min(MANY),
            store=AsyncThrottledStore(server=url),
        )

        async def two(number: int) -> object:
            subject = str(number % SUBJECTS)
            return await sliding.hit(MINUTE, "a2", subject) and await sliding.hit(
                DAY, "a2", subject
            )

        contenders = {
            FLOOR: floor.hit,
            ONE: Decisions(store, 1).arun,
            THREE: Decisions(store, 3).arun,
            "limits, fixed window, 1 limit": lambda n: fixed.hit(MINUTE, "a", str(n % SUBJECTS)),
            "limits, sliding window counter, 2 limits": two,
            "throttled-py, fixed window, 1 limit": lambda n: throttled.limit(f"a:{n % SUBJECTS}"),
        }
        timings = bench.race({name: acalls(loop, run) for name, run in contenders.items()})
        runner.run(store.aclose())
        runner.run(floor.close())
    bench.report.tables.append(
        Table(
            "One decision, async",
            "The same on an event loop, one call at a time.",
            COLUMNS[:-1],
            [row[:-1] for row in _rows(timings, dict.fromkeys(timings, 0))],
        )
    )


def _rows(timings: dict[str, Timing], commands: dict[str, int]) -> list[tuple[str | float, ...]]:
    return [
        (name, t.microseconds, t.p99, t.ratio(timings[FLOOR]), commands[name])
        for name, t in timings.items()
    ]


def _round_trips(bench: Bench, run: Hit) -> int:
    """Return how many commands one call sends; those that a script runs are not sent."""
    with bench.valkey.client() as client, bench.valkey.client() as marker:
        marker.ping()
        return sum(command["client_type"] != "lua" for command in _seen(client, marker, run))


def _seen(client: redis.Redis, marker: redis.Redis, run: Hit) -> Iterator[dict[str, str]]:
    """Yield the commands that a server sees during one call."""
    with client.monitor() as monitor:
        run(1)
        marker.echo("end")
        yield from takewhile(lambda seen: seen["command"] != "ECHO end", monitor.listen())
