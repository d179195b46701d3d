"""Labelled series of refusals a minute, made up from a seed.

Each family is an ordinary life without attacks; attacks are put on top and labelled. An attack is
clear: ten times what the family does at that time of day, and twice its routine peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

DAY = 1440
DAYS = 5
TIMES = 10
"""An attack is so many times what is usual at its time."""

UNCLEAR = "unclear"
"""The kind of a labelled window that need not be found and is no false alarm either."""

Rate = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Window:
    """One labelled attack: its minutes, and the first in which it is clear."""

    kind: str
    start: int
    end: int
    clear_at: int


@dataclass(slots=True)
class LabelledSeries:
    """Counts by minute from minute 0, the minutes that are not known, and the attacks."""

    family: str
    counts: list[int]
    unknown: set[int] = field(default_factory=set)
    windows: list[Window] = field(default_factory=list)

    @property
    def days(self) -> float:
        """The length of the series in days."""
        return len(self.counts) / DAY


def _constant(rng: Random) -> Rate:
    level = rng.choice([2, 8, 30, 200])
    return lambda _: level


def _noise(rng: Random) -> Rate:
    level = rng.choice([5, 20, 100])
    return lambda _: level * rng.gammavariate(2, 0.5)


def _heavy_noise(rng: Random) -> Rate:
    """A slowly wandering level with heavy-tailed minutes, as in posts about a company."""
    state = 0.0

    def rate(minute: int) -> float:
        nonlocal state
        state = 0.95 * state + rng.gauss(0, 0.12)
        return 15 * math.exp(state + rng.gauss(0, 0.4))

    return rate


def _rhythm(rng: Random) -> Rate:
    phase, level = rng.random() * DAY, rng.choice([10, 40, 150])

    def rate(minute: int) -> float:
        wave = 1 + 0.9 * math.sin(2 * math.pi * (minute + phase) / DAY)
        return level * wave * rng.gammavariate(25, 0.04)

    return rate


def _office_hours(rng: Random) -> Rate:
    opens, closes = rng.randrange(480, 600), rng.randrange(960, 1080)
    night = rng.choice([2, 8])
    return lambda minute: night * 10 if opens <= minute % DAY < closes else night


def _growth(rng: Random) -> Rate:
    start, doubling = rng.choice([5, 20]), rng.uniform(0.7, 3) * DAY
    return lambda minute: start * 2 ** (minute / doubling) * rng.gammavariate(25, 0.04)


def _cron_bursts(rng: Random) -> Rate:
    every, at, height = rng.choice([60, 120, 360, DAY]), rng.randrange(60), rng.randrange(60, 200)
    return lambda minute: height * rng.uniform(0.8, 1.2) if minute % every == at else 4


def _sparse(rng: Random) -> Rate:
    left = 0

    def rate(minute: int) -> float:
        nonlocal left
        if left == 0 and rng.random() < 1 / 90:
            left = rng.randrange(1, 6)
        left = max(left - 1, 0)
        return 12 * rng.lognormvariate(0, 0.4) if left else 0.0

    return rate


FAMILIES: dict[str, tuple[Callable[[Random], Rate], float]] = {
    "constant": (_constant, 0),
    "noise": (_noise, 0),
    "heavy noise": (_heavy_noise, 60),
    "rhythm": (_rhythm, 0),
    "office hours": (_office_hours, 0),
    "growth": (_growth, 0),
    "cron bursts": (_cron_bursts, 240),
    "sparse": (_sparse, 40),
    "gaps": (_rhythm, 0),
}
"""Each family's rate, and its routine peak where that is far above its level."""


def labelled_series(family: str, seed: int, minimum: int) -> LabelledSeries:
    """Return five days of one family with three kinds of attacks, the same for the same seed."""
    rng = Random(f"{family} {seed}")
    make, routine_peak = FAMILIES[family]
    rate = make(rng)
    series = LabelledSeries(family, [_poisson(rng, rate(m)) for m in range(DAYS * DAY)])
    for attack in _attacks(rng):
        _add(series, attack, rng, max(2 * routine_peak, 3 * minimum))
    if family == "gaps":
        _tear(series, rng)
    return series


def cold_series(family: str, seed: int, minimum: int) -> LabelledSeries:
    """Return the first six hours of one family with one step in it."""
    rng = Random(f"cold {family} {seed}")
    make, routine_peak = FAMILIES[family]
    rate = make(rng)
    series = LabelledSeries("cold start", [_poisson(rng, rate(m)) for m in range(360)])
    start = rng.randrange(30, 300)
    step = Window("step", start, start + 30, start)
    _add(series, step, rng, max(2 * routine_peak, 3 * minimum))
    return series


def _attacks(rng: Random) -> Iterator[Window]:
    """Yield a step, a ramp and a burst in random order, one a day from the second day on."""
    kinds = ["step", "ramp", "burst"]
    rng.shuffle(kinds)
    for day, kind in enumerate(kinds, start=1):
        start = day * DAY + rng.randrange(200, 1200)
        length = {"step": rng.randrange(30, 90), "ramp": 45, "burst": 3}[kind]
        yield Window(kind, start, start + length, start)


def _add(series: LabelledSeries, attack: Window, rng: Random, least: float) -> None:
    """Put an attack on top of the series and label it."""
    before = series.counts[max(0, attack.start - 30) : attack.start]
    during = series.counts[attack.start : attack.end]
    usual = max(sum(before) / len(before), sum(during) / len(during))
    height = max(TIMES * usual, least)
    rise, clear_at = 1, attack.start
    if attack.kind == "ramp":  # to twice the height, so that it is clear half way up
        rise, height, clear_at = 15, 2 * height, attack.start + 7
    for minute in range(attack.start, attack.end):
        share = min((minute - attack.start + 1) / rise, 1)
        series.counts[minute] += _poisson(rng, height * share)
    series.windows.append(Window(attack.kind, attack.start, attack.end, clear_at))


def _tear(series: LabelledSeries, rng: Random) -> None:
    """Make stretches unknown, and others zero as in an outage, away from the attacks."""
    for number in range(8):
        start, length = rng.randrange(len(series.counts)), rng.randrange(10, 180)
        stretch = range(start, min(start + length, len(series.counts)))
        if any(w.start - 60 < stretch.stop and w.end > start for w in series.windows):
            continue
        for minute in stretch:
            series.counts[minute] = 0
        if number % 2:
            series.unknown.update(stretch)


def _poisson(rng: Random, mean: float) -> int:
    """Return a Poisson variate, for large means by its normal approximation."""
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, left = 0, rng.expovariate(1)
    while left < mean:
        count, left = count + 1, left + rng.expovariate(1)
    return count
