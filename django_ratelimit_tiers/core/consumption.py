"""How subjects use up what they are allowed: evenly just under it, or nearly all of it."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django_ratelimit_tiers.core.verdicts import Verdict
from django_ratelimit_tiers.core.words import number, shown

DRIP_HOURS = 6
"""Hours in a row that make a drip."""

JUST_UNDER = 0.7
"""The least share of the hourly limit that counts as just under it."""

EVEN = 0.1
"""The coefficient of variation up to which hours count as even; people reach 0.5 and more."""

FEW_REFUSALS = 0.02
"""The share of refusals up to which a subject stays under its limit."""

MARKS = (80, 100)
"""Percent of a day quota at which somebody may be told."""


@dataclass(frozen=True, slots=True)
class HourUsage:
    """What one subject was allowed and refused in one hour."""

    allowed: int
    refused: int = 0


@dataclass(frozen=True, slots=True)
class SubjectUsage:
    """The closed hours of one subject, the oldest first, and what an hour allows it at most.

    An hour is None when nothing is known of the subject, as when it was not among the busiest.
    """

    subject: str
    limit: int
    hours: Sequence[HourUsage | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DripVerdict(Verdict):
    """Whether a subject stays just under its limit; `value` counts the hours it has done so."""

    subject: str


@dataclass(frozen=True, slots=True)
class DayQuota:
    """What one subject has used of a quota of a day or longer.

    `window` is the minute in which the present day, week or other period ends.
    """

    subject: str
    policy: str
    limit: int
    used: int
    window: int

    def replaces(self, known: DayQuota) -> bool:
        """Return whether it is news beside what is known of the same subject and policy.

        Processes tell what they saw last, in any order.
        """
        if (self.window, self.limit) == (known.window, known.limit):
            return self.used > known.used
        return self.window >= known.window


@dataclass(frozen=True, slots=True)
class NearLimitVerdict:
    """The mark to tell now, None for nothing.

    (subject, policy, window, mark) is what may be told only once.
    """

    subject: str
    policy: str
    window: int
    mark: int | None
    explanation: str


def slow_drip(usage: SubjectUsage, minute: int, hours: int = DRIP_HOURS) -> DripVerdict:
    """Judge whether the newest hours up to `minute` are all just under the limit, and even."""
    value = _even_hours(usage)
    return DripVerdict(
        subject=usage.subject,
        minute=minute,
        value=value,
        level=0.0,
        threshold=hours,
        explanation=(
            f"{shown(usage.subject)} has stayed evenly between {JUST_UNDER:.0%} and 100% of its "
            f"{number(usage.limit)} an hour for {number(value)} hours in a row; from "
            f"{number(hours)} on it is abnormal."
        ),
    )


def near_limit(quota: DayQuota, told: Collection[int] = ()) -> NearLimitVerdict:
    """Return the highest mark reached, unless that or a higher one of this window was told."""
    reached = [mark for mark in MARKS if quota.used * 100 >= mark * quota.limit]
    mark = max(reached, default=None)
    if mark is not None and max(told, default=0) >= mark:
        mark = None
    return NearLimitVerdict(
        subject=quota.subject,
        policy=quota.policy,
        window=quota.window,
        mark=mark,
        explanation=(
            f"{shown(quota.subject)} has used {number(quota.used)} of {number(quota.limit)} "
            f"({shown(quota.policy)})."
        ),
    )


def _even_hours(usage: SubjectUsage) -> int:
    """Return how many of the newest hours in a row are just under the limit and even together."""
    run: list[int] = []
    for hour in reversed(usage.hours):
        if hour is None or not _is_just_under(hour, usage.limit):
            break
        run.append(hour.allowed)
        if statistics.pstdev(run) > EVEN * statistics.fmean(run):
            return len(run) - 1
    return len(run)


def _is_just_under(hour: HourUsage, limit: int) -> bool:
    """Whether an hour nearly exhausts its limit without running into it."""
    return (
        0 < JUST_UNDER * limit <= hour.allowed <= limit
        and hour.refused <= FEW_REFUSALS * hour.allowed
    )
