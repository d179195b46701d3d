"""A thousand requests at once on one event loop: throughput, connections and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import LIMITERS
from tests.benchmarks.reports import Cell, Goal, Table
from tests.benchmarks.site import ahandler, handler

AT_ONCE = 1_000
COMPARED = ("none", "floor", "tiers", "smart-static")

Respond = Callable[[int], Awaitable[Any]]


def measure(bench: Bench) -> None:
    """Add the table of crowds, and the goals of connections and thread hops."""
    rows: list[tuple[Cell, ...]] = []
    with asyncio.Runner() as runner:
        hops = _count_hops(runner.get_loop())
        responds = {name: ahandler(LIMITERS[name]) for name in COMPARED}
        seconds: dict[str, list[float]] = {name: [] for name in responds}
        answered: dict[str, float] = {}
        for respond in responds.values():
            runner.run(_one_by_one(respond))  # everything is known and connected then
        for number in range(bench.choose(3, 15)):
            for name in sorted(responds, reverse=bool(number % 2)):
                begin = time.perf_counter()
                statuses = runner.run(_crowd(responds[name]))
                seconds[name].append(time.perf_counter() - begin)
                answered[name] = statuses.count(200) / AT_ONCE
        connections: dict[str, int] = {}
        threads: dict[str, int] = {}
        for name, respond in responds.items():
            hops.clear()
            with bench.valkey.client() as client:
                before = _opened(client)
                runner.run(_crowd(respond))
                connections[name] = _opened(client) - before
            threads[name] = len(hops)
            each = median(seconds[name]) / AT_ONCE
            rows.append(
                (
                    LIMITERS[name].name,
                    1 / each,
                    each * 1e6,
                    100 * answered[name],
                    connections[name],
                    threads[name],
                )
            )
    rows.append(_one_thread(bench))
    bench.report.tables.append(
        Table(
            "A thousand requests at once, async",
            "All on one event loop through Django's asynchronous handler; the last line is the "
            "synchronous handler, one request after the other. Connections are those opened "
            "during one crowd, thread hops what the loop was asked to run in a thread.",
            ("", "requests/s", "us each", "% with 200", "connections", "thread hops"),
            rows,
        )
    )
    bench.report.goals += [
        Goal("thread hops of 1,000 requests", threads["tiers"] - threads["none"], most=0),
        Goal("connections for 1,000 at once", connections["tiers"], most=64),
        Goal("answered with 200 of 1,000 at once", 100 * answered["tiers"], least=100, unit=" %"),
    ]


async def _crowd(respond: Respond) -> list[int]:
    responses = await asyncio.gather(*(respond(number) for number in range(AT_ONCE)))
    return [response.status_code for response in responses]


async def _one_by_one(respond: Respond) -> None:
    for number in range(AT_ONCE):
        await respond(number)


def _one_thread(bench: Bench) -> tuple[Cell, ...]:
    respond, seconds = handler(LIMITERS["tiers"]), []
    for _ in range(bench.choose(3, 15)):
        begin = time.perf_counter()
        for number in range(AT_ONCE):
            respond(number)
        seconds.append(time.perf_counter() - begin)
    each = median(seconds) / AT_ONCE
    return f"{LIMITERS['tiers'].name}, sync", 1 / each, each * 1e6, 100.0, 0, 0


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
