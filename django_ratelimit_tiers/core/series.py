"""The counts of one series: the last hours minute by minute, older days rolled up by hour."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

HOUR_MINUTES = 60
"""Minutes in an hour; hours and minutes are numbered from the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of a series: the sum, the highest minute, and how many minutes are known.

    `peak` None means that the roll-up did not keep it; then the mean stands in for it.
    """

    total: int
    peak: int | None = None
    known: int = HOUR_MINUTES

    @property
    def mean(self) -> float:
        """The mean count of a known minute."""
        return self.total / self.known if self.known else 0.0

    @property
    def highest(self) -> float:
        """The highest minute, or the mean where only the sum was kept."""
        return self.mean if self.peak is None else self.peak


EMPTY_HOUR = Hour(total=0, peak=0)


@dataclass(frozen=True, slots=True)
class History:
    """What is known of one series; detectors never look past the minute they are asked about.

    `minutes` maps minutes since the epoch to counts and `hours` maps hours to roll-ups. What is
    missing in them was zero, because nothing is written for a minute without refusals. Not known
    are the minutes before `since` (when recording began) and those in `unknown`, however they are
    filled; an hour that is not known has `known` = 0.
    """

    since: int
    minutes: Mapping[int, int]
    hours: Mapping[int, Hour]
    unknown: Set[int] = frozenset()

    def at(self, minute: int) -> int | None:
        """Return the count of a minute, None when it is not known."""
        if minute < self.since or minute in self.unknown:
            return None
        return self.minutes.get(minute, 0)

    def between(self, start: int, end: int) -> list[int]:
        """Return the known counts from `start` up to but without `end`."""
        count, unknown = self.minutes.get, self.unknown
        span = range(max(start, self.since), end)
        if not unknown:
            return [count(minute, 0) for minute in span]
        return [count(minute, 0) for minute in span if minute not in unknown]

    def hour(self, hour: int) -> Hour | None:
        """Return the roll-up of an hour, None when nothing of it is known."""
        if hour < self.since // HOUR_MINUTES:
            return None
        found = self.hours.get(hour, EMPTY_HOUR)
        return found if found.known else None


def rolled_up(
    minutes: Mapping[int, int], *, since: int, until: int, unknown: Set[int] = frozenset()
) -> dict[int, Hour]:
    """Return the hours from minute `since` up to but without minute `until`, by hour."""
    hours = {}
    for hour in range(since // HOUR_MINUTES, -(-until // HOUR_MINUTES)):
        span = range(max(since, hour * HOUR_MINUTES), min(until, (hour + 1) * HOUR_MINUTES))
        counts = [minutes.get(minute, 0) for minute in span if minute not in unknown]
        hours[hour] = Hour(total=sum(counts), peak=max(counts, default=0), known=len(counts))
    return hours
