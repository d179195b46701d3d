from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.alarms import closing_line
from django_ratelimit_tiers.core.anomalies import Alarm, Change, Pace, Step, Verdict, advance

PACE = Pace(calm=3, cool_down=10, longest=50)

values = st.lists(st.one_of(st.none(), st.integers(0, 200)), max_size=200)


def verdict(minute: int, value: float | None, threshold: float = 100, level: float = 20) -> Verdict:
    return Verdict(
        minute=minute, value=value, level=level, threshold=threshold, explanation="made up"
    )


def lived(counts: Sequence[float | None], alarm: Alarm | None = None, start: int = 0) -> list[Step]:
    """Every step of an alarm through these counts."""
    steps = []
    for minute, value in enumerate(counts, start):
        step = advance(alarm, verdict(minute, value), PACE)
        alarm = step.alarm
        steps.append(step)
    return steps


def changes(counts: list[float | None]) -> list[Change]:
    return [step.change for step in lived(counts) if step.change is not Change.NONE]


def opened() -> Alarm:
    alarm = advance(None, verdict(0, 150), PACE).alarm
    assert alarm is not None
    return alarm


def test_an_abnormal_minute_opens_and_the_next_extends() -> None:
    assert changes([50, 150, 120]) == [Change.OPENED, Change.EXTENDED]


def test_between_the_lines_an_alarm_stays_open_but_none_is_opened() -> None:
    assert changes([80, 150, 80, 80, 80, 80]) == [Change.OPENED] + [Change.EXTENDED] * 4


def test_an_alarm_closes_after_its_calm_minutes() -> None:
    steps = lived([150, 10, 10, 10])
    assert [step.change for step in steps] == [
        Change.OPENED,
        Change.NONE,
        Change.NONE,
        Change.CLOSED,
    ]


def test_a_high_minute_starts_the_calm_anew() -> None:
    assert changes([150, 10, 10, 90, 10, 10]) == [Change.OPENED, Change.EXTENDED]


def test_within_the_cool_down_the_same_alarm_opens_again() -> None:
    steps = lived([150, 0, 0, 0, 0, 180])
    assert steps[-1].change is Change.REOPENED
    assert steps[-1].alarm is not None
    assert (steps[-1].alarm.opened_at, steps[-1].alarm.peak) == (0, 180)
    assert steps[-1].alarm.closed_at is None


def test_the_last_minute_of_the_cool_down_is_within_it() -> None:
    assert lived([150, 0, 0, 0] + [0] * 9 + [180])[-1].change is Change.REOPENED


@pytest.mark.parametrize(
    ("value", "threshold", "change"),
    [
        (100, 500, Change.REOPENED),
        (99, 500, Change.NONE),
        (40, 40, Change.REOPENED),
        (39, 40, Change.NONE),
        (None, 40, Change.NONE),
    ],
)
def test_a_cooling_alarm_opens_again_by_its_own_line_or_by_that_of_today(
    value: int | None, threshold: int, change: Change
) -> None:
    cooling = lived([150, 0, 0, 0])[-1].alarm
    assert cooling is not None
    step = advance(cooling, verdict(4, value, threshold=threshold), PACE)
    assert step.change is change
    assert step.alarm is not None
    assert (step.alarm.closed_at is None) is (change is Change.REOPENED)


@pytest.mark.parametrize(("value", "change"), [(60, Change.EXTENDED), (59, Change.NONE)])
def test_an_alarm_is_extended_from_half_way_between_the_level_and_its_line(
    value: int, change: Change
) -> None:
    assert advance(opened(), verdict(1, value), PACE).change is change


def test_the_peak_is_known_with_its_first_minute() -> None:
    alarm = lived([150, 170, 90, 170, 10])[-1].alarm
    assert alarm is not None
    assert (alarm.peak, alarm.peak_at, alarm.high_at, alarm.minute) == (170, 1, 3, 4)


def test_after_the_cool_down_it_is_a_new_alarm() -> None:
    steps = lived([150, 0, 0, 0] + [0] * 11 + [180])
    assert steps[-2].alarm is None
    assert steps[-1].change is Change.OPENED
    assert steps[-1].alarm is not None
    assert steps[-1].alarm.opened_at == 15


def test_what_lasts_longest_is_settled_and_can_only_open_anew() -> None:
    steps = lived([150.0] * 52)
    assert [step.change for step in steps[-2:]] == [Change.SETTLED, Change.OPENED]


def test_an_open_alarm_keeps_the_line_it_was_opened_by() -> None:
    alarm = opened()
    step = advance(alarm, verdict(1, 70, threshold=500, level=400), PACE)
    assert step.change is Change.EXTENDED
    assert step.alarm is not None
    assert step.alarm.threshold == alarm.threshold


def test_unknown_minutes_neither_open_nor_extend_nor_close() -> None:
    assert changes([None, 150, None, None, None, None, None]) == [Change.OPENED]


def test_the_first_known_calm_minute_after_a_long_gap_closes() -> None:
    assert changes([150, None, None, None, None, 0]) == [Change.OPENED, Change.CLOSED]


@given(values)
def test_judging_a_minute_again_changes_nothing(counts: list[float | None]) -> None:
    minute = len(counts)
    for step in lived(counts)[-1:]:
        again = advance(step.alarm, verdict(minute - 1, 0), PACE)
        if step.alarm is not None:
            assert again == Step(Change.NONE, step.alarm)


@given(values, st.integers(0, 50_000_000))
def test_the_life_of_an_alarm_is_the_same_whenever_it_begins(
    counts: list[float | None], start: int
) -> None:
    begun = lived([150, *counts], start=start)
    assert [step.change for step in begun] == [step.change for step in lived([150, *counts])]


@given(values)
def test_every_alarm_ends_once_it_is_calm(counts: list[float | None]) -> None:
    alarm = lived([*counts, 150])[-1].alarm
    calm = lived([0] * (PACE.calm + PACE.cool_down + 2), alarm, start=len(counts) + 1)
    assert calm[-1].alarm is None
    ends = [step for step in calm if step.change in (Change.CLOSED, Change.SETTLED)]
    assert len(ends) == 1


@given(values)
def test_openings_and_closings_alternate_and_no_alarm_outlives_the_longest(
    counts: list[float | None],
) -> None:
    is_open = False
    for step in lived(counts):
        if step.change in (Change.OPENED, Change.REOPENED):
            assert not is_open
            is_open = True
        elif step.change in (Change.CLOSED, Change.SETTLED):
            assert is_open
            is_open = False
        if is_open:
            assert step.alarm is not None
            assert step.alarm.closed_at is None
            if step.change is not Change.REOPENED:
                assert step.alarm.minute - step.alarm.opened_at < PACE.longest


@given(values)
def test_the_peak_is_the_highest_value_of_the_alarm(counts: list[float | None]) -> None:
    steps = lived([150, *counts[: PACE.longest - 1]])
    alarm = steps[-1].alarm
    if alarm is not None and alarm.opened_at == 0:
        known = [value for value in [150, *counts[: PACE.longest - 1]] if value is not None]
        highest = [value for value in known if value >= closing_line(alarm)]
        assert alarm.peak <= max(highest)
        assert alarm.peak >= 150


def test_an_alarm_can_be_kept_as_plain_values() -> None:
    alarm = opened()
    assert Alarm(**asdict(alarm)) == alarm
