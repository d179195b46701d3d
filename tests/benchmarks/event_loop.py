"""A thousand requests at once on one event loop: throughput, connections and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import LIMITERS
from tests.benchmarks.reports import Cell, Goal, Table
from tests.benchmarks.site import USERS, ahandler, handler

AT_ONCE = 1_000
COMPARED = ("none", "floor", "tiers", "smart-static")

Respond = Callable[[int], Awaitable[Any]]


@dataclass(slots=True)
class Crowd:
    """One limiter's share of a first crowd that got through, and the seconds of later ones."""

    respond: Respond
    decided: int
    connections: int
    threads: int
    seconds: list[float] = field(default_factory=list)


def measure(bench: Bench) -> None:
    """Add the table of crowds, and the goals of connections and thread hops."""
    rows: list[tuple[Cell, ...]] = []
    crowds: dict[str, Crowd] = {}
    with asyncio.Runner() as runner, bench.valkey.client() as client:
        hops = _count_hops(runner.get_loop())
        for name in COMPARED:
            opened = _opened(client)
            respond = ahandler(LIMITERS[name])
            runner.run(_one_by_one(respond))  # rules and users are known then
            hops.clear()
            decided = runner.run(_at_once(respond))
            crowds[name] = Crowd(respond, decided, _opened(client) - opened, len(hops))
        for number in range(bench.choose(1, 15)):
            for name in sorted(crowds, reverse=bool(number % 2)):
                begin = time.perf_counter()
                runner.run(_at_once(crowds[name].respond))
                crowds[name].seconds.append(time.perf_counter() - begin)
    for name, crowd in crowds.items():
        each = median(crowd.seconds) / AT_ONCE
        counts = crowd.decided, crowd.connections, crowd.threads
        rows.append((LIMITERS[name].name, 1 / each, each * 1e6, *counts))
    rows.append(_one_thread(bench))
    bench.report.tables.append(
        Table(
            "A thousand requests at once, async",
            "All on one event loop through Django's asynchronous handler; the last line is the "
            "synchronous handler, one request after the other. Connections are those "
            "opened by then since the start, thread hops what the loop ran in a thread meanwhile.",
            ("", "requests/s", "us each", "with limits told", "connections", "thread hops"),
            rows,
        )
    )
    bench.report.goals += [
        Goal("thread hops of 1,000 requests", crowds["tiers"].threads, most=0),
        Goal("connections for 1,000 at once", crowds["tiers"].connections, most=64),
        Goal("decided of 1,000 at once", crowds["tiers"].decided, least=AT_ONCE),
    ]


async def _at_once(respond: Respond) -> int:
    """Return how many responses tell a limit: the others were let in without a decision."""
    responses = await asyncio.gather(*(respond(number) for number in range(AT_ONCE)))
    return sum("X-RateLimit-Limit" in response.headers for response in responses)


async def _one_by_one(respond: Respond) -> None:
    for number in range(USERS):
        await respond(number)


def _one_thread(bench: Bench) -> tuple[Cell, ...]:
    respond, seconds = handler(LIMITERS["tiers"]), []
    for _ in range(bench.choose(2, 15)):
        begin = time.perf_counter()
        for number in range(AT_ONCE):
            respond(number)
        seconds.append(time.perf_counter() - begin)
    each = median(seconds) / AT_ONCE
    return f"{LIMITERS['tiers'].name}, sync", 1 / each, each * 1e6, AT_ONCE, 0, 0


def _opened(client: Any) -> int:
    return int(client.info("stats")["total_connections_received"])


def _count_hops(loop: asyncio.AbstractEventLoop) -> list[object]:
    """Return a list that grows with everything that a loop runs in a thread."""
    hops: list[object] = []
    run = loop.run_in_executor

    def counted(executor: Any, function: Any, *arguments: Any) -> Any:
        hops.append(function)
        return run(executor, function, *arguments)

    loop.run_in_executor = counted  # type: ignore[method-assign]
    return hops
