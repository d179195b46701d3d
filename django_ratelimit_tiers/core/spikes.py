"""Spikes: minutes far above what a series itself makes one expect.

The line is drawn above three baselines at once, so only what is far above all of them is abnormal:
the last two hours, the same time on other days, and the peaks that have become a habit.
docs/anomalies.md gives the formula and its sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from django_ratelimit_tiers.core.alerts import Sensitivity
from django_ratelimit_tiers.core.series import HOUR_MINUTES, History
from django_ratelimit_tiers.core.verdicts import Verdict
from django_ratelimit_tiers.core.words import clock, number

DEVIATIONS = {Sensitivity.LOW: 10.0, Sensitivity.NORMAL: 6.0, Sensitivity.HIGH: 4.0}
"""How many spreads above the level the line is drawn."""

RECENT = 120
"""Minutes that make the recent level; a spike as long as half of them is taken for that level."""

DAYS = 14
"""How many earlier days are compared at the same time of day."""

LATEST = 4
"""What two of so many latest days had is usual: they span a weekend and two working days."""

LEARNING = 10
"""How many minutes have to be known before anything is judged, if no earlier day is."""

DEVIATION = 1.4826
"""Turns a median absolute deviation into the standard deviation of a normal distribution."""

SHARE = 0.2
"""The least spread as a share of the level: less than this is never news."""

FEW = 5
"""With n known minutes the spread counts (1 + FEW / n) times, since few of them say little."""

HABIT_HOURS = 72
"""How many complete hours are searched for habits."""

HABIT_RANK = 4
"""What happened in so many of those hours is a habit; in fewer while there are fewer hours."""

LEAP_MARGIN = 1.4
"""How many times a habitual leap must be exceeded, which is about twice the height."""

PEAK_MARGIN = 1.25
"""How many times the usual peak of the time of day must be exceeded."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a series makes one expect for one minute, in counts a minute.

    `spread` is a standard deviation, `peak` the highest minute that this time of day usually has,
    `leap` how far single minutes habitually jump above the hours around them, in square roots of
    counts. `known` is false while too little has been seen to expect anything.
    """

    level: float
    spread: float
    peak: float
    leap: float
    known: bool

    def threshold(self, deviations: float, minimum: int) -> float:
        """Return the least count that is abnormal, infinite while nothing is known."""
        if not self.known:
            return math.inf
        return max(
            minimum,
            self.level + deviations * self.spread,
            PEAK_MARGIN * self.peak,
            (math.sqrt(self.level) + LEAP_MARGIN * self.leap) ** 2,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeVerdict(Verdict):
    """Whether a minute of a series is a spike; `score` is its distance in spreads."""

    spread: float
    score: float


def spike(history: History, minute: int, sensitivity: Sensitivity, minimum: int) -> SpikeVerdict:
    """Judge one minute of a series by what came before it.

    `minimum` is the count below which nothing is abnormal. Never looks past `minute`.
    """
    value = history.at(minute)
    baseline = baseline_at(history, minute)
    threshold = baseline.threshold(DEVIATIONS[sensitivity], minimum)
    return SpikeVerdict(
        minute=minute,
        value=value,
        level=baseline.level,
        spread=baseline.spread,
        threshold=threshold,
        score=0.0 if value is None else (value - baseline.level) / baseline.spread,
        explanation=_explanation(minute, value, baseline, threshold),
    )


def baseline_at(history: History, minute: int) -> Baseline:
    """Return what the series makes one expect for a minute, from what came before it."""
    recent = history.between(minute - RECENT, minute)
    days = list(_same_time_of_day(history, minute))
    habits = _complete_hours(history, minute // HOUR_MINUTES)
    usual = _low_median(mean for mean, _ in days)
    level = max(_low_median(recent), usual, _repeated(mean for mean, _ in days))
    deviation = DEVIATION * _low_median(abs(mean - usual) for mean, _ in days)
    spread = max(_calmer_half(recent), deviation, SHARE * level, math.sqrt(level), 1.0)
    return Baseline(
        level=level,
        spread=spread * (1 + FEW / max(len(recent), FEW)),
        peak=_usual_peak([top for _, top in days], [top for top, _ in habits]),
        leap=_habit(math.sqrt(top) - math.sqrt(around) for top, around in habits),
        known=len(recent) >= LEARNING or bool(days),
    )


def _same_time_of_day(history: History, minute: int) -> Iterator[tuple[float, float]]:
    """Yield the mean and the peak of each earlier day around the same time.

    The nearer of the neighbouring hours counts as well: what comes at nine may come a bit early.
    """
    hour = minute // HOUR_MINUTES
    neighbour = hour - 1 if minute % HOUR_MINUTES < HOUR_MINUTES // 2 else hour + 1
    for day in range(1, DAYS + 1):
        pair = (history.hour(hour - 24 * day), history.hour(neighbour - 24 * day))
        if known := [found for found in pair if found is not None]:
            yield max(found.mean for found in known), max(found.highest for found in known)


def _usual_peak(days: Sequence[float], hours: Sequence[float]) -> float:
    """Return the usual peak of the time of day, of all hours while no earlier day is known."""
    return max(_low_median(days), _repeated(days)) if days else _habit(hours)


def _repeated(days: Iterable[float]) -> float:
    """Return what two of the LATEST days had: a rhythm that has moved, as when clocks change."""
    latest = sorted(islice(days, LATEST), reverse=True)
    return latest[1] if len(latest) > 1 else 0.0


def _complete_hours(history: History, this_hour: int) -> list[tuple[float, float]]:
    """Return the peak of each of the last hours, and the highest mean around it.

    The hours next to it count as well, so that the edge of a plateau is no leap.
    """
    hours = [history.hour(hour) for hour in range(this_hour - HABIT_HOURS - 1, this_hour)]
    means = [0.0 if hour is None else hour.mean for hour in hours] + [0.0]
    return [
        (hour.highest, min(hour.highest, max(means[index - 1 : index + 2])))
        for index, hour in enumerate(hours[1:], start=1)
        if hour is not None
    ]


def _habit(values: Iterable[float]) -> float:
    """Return what was reached in HABIT_RANK of HABIT_HOURS hours, or in that share of fewer."""
    descending = sorted(values, reverse=True)
    rank = math.ceil(HABIT_RANK * len(descending) / HABIT_HOURS)
    return descending[rank - 1] if descending else 0.0


def _low_median(values: Iterable[float]) -> float:
    """Return the median, of an even number the lower of the two in the middle; 0 of none."""
    ascending = sorted(values)
    return ascending[(len(ascending) - 1) // 2] if ascending else 0.0


def _calmer_half(recent: Sequence[int]) -> float:
    """Return the smaller standard deviation of the earlier and the later half.

    When the level has moved, as at the end of a working day, at least one half has not seen it.
    Of fewer than RECENT minutes each half would say too little.
    """
    if len(recent) < RECENT:
        return _upper_deviation(recent)
    half = len(recent) // 2
    return min(_upper_deviation(recent[:half]), _upper_deviation(recent[half:]))


def _upper_deviation(counts: Sequence[int]) -> float:
    """Return a robust standard deviation from the half above the median.

    Counts are skewed, so what lies below the median says nothing about what may lie above.
    """
    ascending = sorted(counts)
    if not ascending:
        return 0.0
    upper_quartile = ascending[(3 * (len(ascending) - 1)) // 4]
    return DEVIATION * (upper_quartile - _low_median(ascending))


def _explanation(minute: int, value: int | None, baseline: Baseline, threshold: float) -> str:
    """Say in one sentence what was seen and what was expected."""
    if value is None:
        return f"The minute {clock(minute)} is not known."
    seen = f"{number(value)} in the minute {clock(minute)}"
    if not baseline.known:
        return f"{seen}; too little is known yet to judge it."
    return (
        f"{seen}; usual is {number(baseline.level)} with a spread of {number(baseline.spread)}, "
        f"single minutes reach {number(baseline.peak)}, and from {number(math.ceil(threshold))} on "
        "it is abnormal."
    )
