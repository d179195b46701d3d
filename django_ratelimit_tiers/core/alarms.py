"""The life of an alarm: opened, extended, closed by itself, and cool for a while afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from django_ratelimit_tiers.core.verdicts import Verdict


class Change(StrEnum):
    """What a verdict did to an alarm."""

    NONE = "none"
    OPENED = "opened"
    EXTENDED = "extended"
    REOPENED = "reopened"
    CLOSED = "closed"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long an alarm waits, in minutes.

    It closes after `calm` minutes below its closing line. Within `cool_down` after that it opens
    again instead of a new one. After `longest` it is closed as settled: what lasts that long is
    the new usual, and is judged by a baseline that has learned it.
    """

    calm: int = 10
    cool_down: int = 30
    longest: int = 360


SPIKE_PACE = Pace()
"""For series that are judged every minute."""

SUBJECT_PACE = Pace(calm=60, cool_down=360, longest=1440)
"""For detectors that look at the last hour or hours of one subject or address."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Everything that has to be kept about one cause between two minutes.

    Minutes are counted from the Unix epoch. `level` and `threshold` are those of the verdict that
    opened it and stay as they are, so a long attack cannot become its own excuse. `minute` is the
    last one judged, `high_at` the last one that was above the closing line. A verdict in another
    `unit` is compared with its own level and threshold.
    """

    opened_at: int
    minute: int
    high_at: int
    level: float
    threshold: float
    peak: float
    peak_at: int
    closed_at: int | None = None
    settled: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now, and the alarm to keep for the next minute (None: forget it)."""

    change: Change
    alarm: Alarm | None


def advance(alarm: Alarm | None, verdict: Verdict, pace: Pace = SPIKE_PACE) -> Step:
    """Bring the alarm of one cause forward by one verdict.

    A minute that was judged before changes nothing, so a repeated run does no harm. A minute that
    is not known neither opens, extends nor calms.
    """
    if alarm is not None and verdict.minute <= alarm.minute:
        return Step(Change.NONE, alarm)
    if alarm is None or _is_forgotten(alarm, verdict.minute, pace):
        return _opened(verdict)
    alarm = replace(alarm, minute=verdict.minute)
    if alarm.closed_at is not None:
        return _cooling(alarm, verdict)
    if verdict.minute - alarm.opened_at >= pace.longest:
        return Step(Change.SETTLED, replace(alarm, closed_at=verdict.minute, settled=True))
    return _open(alarm, verdict, pace)


def _is_forgotten(alarm: Alarm, minute: int, pace: Pace) -> bool:
    """Whether what comes now would be a new alarm."""
    if alarm.closed_at is None:
        return False
    return alarm.settled or minute - alarm.closed_at > pace.cool_down


def closing_line(line: Alarm | Verdict) -> float:
    """Return the value below which a minute is calm: half way from the threshold to the level."""
    return (line.level + line.threshold) / 2


def _opened(verdict: Verdict) -> Step:
    """Open a new alarm when the verdict is abnormal."""
    if verdict.value is None or not verdict.abnormal:
        return Step(Change.NONE, None)
    alarm = Alarm(
        opened_at=verdict.minute,
        minute=verdict.minute,
        high_at=verdict.minute,
        level=verdict.level,
        threshold=verdict.threshold,
        peak=verdict.value,
        peak_at=verdict.minute,
        unit=verdict.unit,
    )
    return Step(Change.OPENED, alarm)


def _open(alarm: Alarm, verdict: Verdict, pace: Pace) -> Step:
    """Extend an open alarm, or close it once it has been calm for long enough."""
    if verdict.value is None:
        return Step(Change.NONE, alarm)
    if verdict.value >= closing_line(_line(alarm, verdict)):
        return Step(Change.EXTENDED, _raised(alarm, verdict))
    if verdict.minute - alarm.high_at >= pace.calm:
        return Step(Change.CLOSED, replace(alarm, closed_at=verdict.minute))
    return Step(Change.NONE, alarm)


def _cooling(alarm: Alarm, verdict: Verdict) -> Step:
    """Open a closed alarm again when its own threshold, or today's, is reached."""
    threshold = _line(alarm, verdict).threshold
    if verdict.value is None or not (verdict.abnormal or verdict.value >= threshold):
        return Step(Change.NONE, alarm)
    return Step(Change.REOPENED, replace(_raised(alarm, verdict), closed_at=None))


def _line(alarm: Alarm, verdict: Verdict) -> Alarm | Verdict:
    """Return what a value is compared with: what opened the alarm, if that is of the same unit."""
    return alarm if verdict.unit == alarm.unit else verdict


def _raised(alarm: Alarm, verdict: Verdict) -> Alarm:
    """Return the alarm with this minute among its high ones."""
    if verdict.unit == alarm.unit and verdict.value is not None and verdict.value > alarm.peak:
        alarm = replace(alarm, peak=verdict.value, peak_at=alarm.minute)
    return replace(alarm, high_at=alarm.minute)
