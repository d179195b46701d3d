"""Interleaved rounds: everything that is compared takes turns, so that noise hits all alike.

In each round every contender makes one short burst of calls, in a new order. Ratios are taken
within a round and their median over all rounds is told: what else the machine does for a while
slows a round, not one contender.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

Burst = Callable[[range], list[int]]
"""Makes a call for each number and returns how many nanoseconds each of them took."""

ORDER = random.Random(7)


@dataclass(slots=True)
class Timing:
    """What one contender took: all calls, and the median of each round, in nanoseconds."""

    calls: list[int] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)

    @property
    def microseconds(self) -> float:
        """The median of all calls."""
        return median(self.calls) / 1000

    @property
    def p99(self) -> float:
        """The 99th percentile of all calls, in microseconds."""
        return quantiles(self.calls, n=100)[98] / 1000

    def ratio(self, floor: Timing, base: Timing | None = None) -> float:
        """Return how many times the floor's time it took, both above the base's if one is given."""
        bases = base.rounds if base else [0.0] * len(self.rounds)
        rounds = zip(self.rounds, floor.rounds, bases, strict=True)
        return median((own - none) / max(least - none, 1) for own, least, none in rounds)

    def added(self, base: Timing) -> float:
        """Return the time it took above the base's, in microseconds."""
        pairs = zip(self.rounds, base.rounds, strict=True)
        return median(own - none for own, none in pairs) / 1000


def calls(run: Callable[[int], object]) -> Burst:
    """Return the bursts of a function, which gets a running number."""

    def burst(numbers: range) -> list[int]:
        clock, taken = time.perf_counter_ns, []
        for number in numbers:
            begin = clock()
            run(number)
            taken.append(clock() - begin)
        return taken

    return burst


def acalls(loop: asyncio.AbstractEventLoop, run: Callable[[int], Awaitable[object]]) -> Burst:
    """Return the bursts of an asynchronous function, one call after the other on a loop."""

    async def aburst(numbers: range) -> list[int]:
        clock, taken = time.perf_counter_ns, []
        for number in numbers:
            begin = clock()
            await run(number)
            taken.append(clock() - begin)
        return taken

    return lambda numbers: loop.run_until_complete(aburst(numbers))


def race(contenders: Mapping[str, Burst], *, rounds: int, burst: int) -> dict[str, Timing]:
    """Let all contenders take turns; the first two rounds only warm them up."""
    timings = {name: Timing() for name in contenders}
    for number in range(-2, rounds):
        first = (number + 2) * burst
        for name in _shuffled(contenders):
            taken = _burst(contenders[name], range(first, first + burst))
            if number >= 0:
                timings[name].calls += taken
                timings[name].rounds.append(median(taken))
    return timings


def _burst(burst: Burst, numbers: range) -> list[int]:
    gc.collect(0)
    gc.disable()  # a collection would fall on whoever happens to run, as in timeit
    try:
        return burst(numbers)
    finally:
        gc.enable()


def _shuffled(contenders: Mapping[str, Burst]) -> Sequence[str]:
    return ORDER.sample(list(contenders), k=len(contenders))
