from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.alerts import Sensitivity
from django_ratelimit_tiers.core.anomalies import (
    History,
    Hour,
    SpikeVerdict,
    baseline_at,
    rolled_up,
    spike,
)
from django_ratelimit_tiers.core.spikes import DEVIATION, FEW, RECENT

DAY = 1440
BEGIN = 29_000_000 // 60 * 60

counts_of_hours = st.lists(st.integers(0, 500), min_size=1, max_size=300)


def history_of(counts: list[int], unknown: set[int] | None = None) -> History:
    minutes = {BEGIN + index: count for index, count in enumerate(counts)}
    gaps = {BEGIN + index for index in unknown or ()}
    hours = rolled_up(minutes, since=BEGIN, until=BEGIN + len(counts), unknown=gaps)
    return History(since=BEGIN, minutes=minutes, hours=hours, unknown=gaps)


def judged(
    counts: list[int], sensitivity: Sensitivity = Sensitivity.NORMAL, minimum: int = 20
) -> SpikeVerdict:
    """The verdict on the last of the counts."""
    return spike(history_of(counts), BEGIN + len(counts) - 1, sensitivity, minimum)


@given(st.integers(0, 10**6), st.integers(1, 400), st.sampled_from(Sensitivity))
def test_a_constant_series_is_never_abnormal(
    count: int, length: int, sensitivity: Sensitivity
) -> None:
    assert not judged([count] * length, sensitivity, minimum=1).abnormal


@given(st.integers(2, 10**6), st.integers(60, 400))
def test_ten_times_a_constant_level_is_abnormal_in_its_first_minute(
    level: int, length: int
) -> None:
    assert judged([level] * length + [10 * level]).abnormal


@given(st.lists(st.integers(70, 130), min_size=60, max_size=300), st.sampled_from(Sensitivity))
def test_ten_times_a_noisy_level_is_abnormal_at_every_sensitivity(
    counts: list[int], sensitivity: Sensitivity
) -> None:
    assert judged([*counts, 1000], sensitivity).abnormal
    assert not judged([*counts, 135], sensitivity).abnormal


@given(counts_of_hours, st.integers(1, 1000))
def test_nothing_below_the_minimum_is_abnormal(counts: list[int], minimum: int) -> None:
    verdict = judged([*counts, minimum - 1], Sensitivity.HIGH, minimum)
    assert not verdict.abnormal


@given(counts_of_hours, st.integers(0, 10**5), st.integers(1, 50))
def test_what_is_abnormal_stays_so_when_all_counts_grow_alike(
    counts: list[int], last: int, factor: int
) -> None:
    verdict = judged([*counts, last])
    grown = judged([count * factor for count in [*counts, last]])
    assert grown.abnormal or not verdict.abnormal or last == verdict.threshold


@given(counts_of_hours, st.integers(0, 10**5), counts_of_hours)
def test_what_comes_later_changes_nothing(counts: list[int], last: int, later: list[int]) -> None:
    minute = BEGIN + len(counts)
    now = history_of([*counts, last])
    afterwards = history_of([*counts, last, *later])
    assert spike(now, minute, Sensitivity.NORMAL, 20) == spike(
        afterwards, minute, Sensitivity.NORMAL, 20
    )


@given(st.permutations(list(range(50))))
def test_the_order_of_the_minutes_of_the_hour_changes_nothing(order: list[int]) -> None:
    assert judged([*order, 300]) == judged([*range(50), 300])


@given(
    counts_of_hours.flatmap(
        lambda counts: st.tuples(
            st.just(counts), st.sets(st.integers(0, len(counts) - 1), max_size=len(counts))
        )
    )
)
def test_gaps_never_raise_and_unknown_minutes_are_never_abnormal(
    case: tuple[list[int], set[int]],
) -> None:
    counts, unknown = case
    history = history_of(counts, unknown)
    for minute in range(BEGIN - 5, BEGIN + len(counts)):
        verdict = spike(history, minute, Sensitivity.HIGH, 1)
        assert verdict.spread > 0
        assert math.isfinite(verdict.score)
        if minute < BEGIN or minute in history.unknown:
            assert not verdict.abnormal
            assert verdict.value is None


@given(st.sampled_from(Sensitivity), counts_of_hours, st.integers(0, 10**5))
def test_higher_sensitivity_never_misses_what_lower_finds(
    sensitivity: Sensitivity, counts: list[int], last: int
) -> None:
    if judged([*counts, last], sensitivity).abnormal:
        assert judged([*counts, last], Sensitivity.HIGH).abnormal


def test_a_missing_minute_counts_as_zero() -> None:
    minutes = {BEGIN + 60: 25}
    history = History(since=BEGIN, minutes=minutes, hours={})
    verdict = spike(history, BEGIN + 60, Sensitivity.NORMAL, 20)
    assert (verdict.level, verdict.abnormal) == (0, True)


def test_an_unknown_minute_is_not_taken_for_zero() -> None:
    known = [50] * 60
    with_zeros = history_of(known + [0] * 61 + [150])
    with_gap = history_of(known + [0] * 61 + [150], unknown=set(range(60, 121)))
    minute = BEGIN + 121
    assert spike(with_zeros, minute, Sensitivity.NORMAL, 20).level == 0
    assert spike(with_gap, minute, Sensitivity.NORMAL, 20).level == 50


@pytest.mark.parametrize(("known", "abnormal"), [(9, False), (10, True)])
def test_the_first_minutes_of_all_are_only_learned_from(known: int, abnormal: bool) -> None:
    assert judged([5] * known + [1000]).abnormal is abnormal


def test_the_rise_of_every_morning_is_no_spike() -> None:
    day = [2] * 540 + [60] * 480 + [2] * 420
    three_days = day * 3
    assert not judged(three_days + day[:541]).abnormal
    assert judged(three_days + day[:200] + [60]).abnormal


@pytest.mark.parametrize(("days", "abnormal"), [(0, True), (1, True), (2, False), (4, False)])
def test_a_morning_that_comes_an_hour_earlier_is_news_for_two_days(
    days: int, abnormal: bool
) -> None:
    winter = [0] * 480 + [100] * 540 + [0] * 420
    summer = [0] * 420 + [100] * 540 + [0] * 480
    weekend = [0] * 2 * DAY if days == 2 else []
    assert judged([*winter * 8, *summer * days, *weekend, *summer[:425]]).abnormal == abnormal


def test_an_attack_soon_after_the_end_of_the_day_is_found() -> None:
    day = [8] * 540 + [80] * 480 + [8] * 420
    assert judged(day * 3 + day[:1105] + [120]).abnormal


def test_steady_growth_is_no_spike() -> None:
    counts = [round(20 * 2 ** (minute / DAY)) for minute in range(3 * DAY)]
    history = history_of(counts)
    verdicts = (
        spike(history, BEGIN + minute, Sensitivity.NORMAL, 20) for minute in range(10, 3 * DAY, 7)
    )
    assert not any(verdict.abnormal for verdict in verdicts)


def test_a_burst_that_comes_every_hour_becomes_a_habit_and_its_fivefold_does_not() -> None:
    hour = [4] * 5 + [100] + [4] * 54
    assert not judged(hour * 12 + hour[:6]).abnormal
    assert judged(hour * 12 + [4] * 5 + [500]).abnormal


@pytest.mark.parametrize(("begin", "end"), [(60, 185), (55, 180)])
def test_the_edge_of_a_plateau_is_no_leap(begin: int, end: int) -> None:
    counts = ([0] * begin + [100] * (end - begin) + [0] * (240 - end)) * 18
    assert baseline_at(history_of(counts), BEGIN + len(counts)).leap == 0


@pytest.mark.parametrize(
    ("counts", "deviation"),
    [
        ([20, 180] * 60, DEVIATION * 160),
        ([20, 180] * 30 + [20] * 60, math.sqrt(20)),
        ([20] * 60 + [20, 180] * 30, math.sqrt(20)),
    ],
)
def test_the_spread_is_that_of_the_calmer_of_the_last_two_hours(
    counts: list[int], deviation: float
) -> None:
    assert judged([*counts, 0]).spread == pytest.approx(deviation * (1 + FEW / RECENT))


def test_one_earlier_attack_does_not_hide_the_next() -> None:
    quiet = [10] * DAY
    attacked = [10] * 600 + [300] * 45 + [10] * 795
    assert judged(quiet + attacked + quiet + [10] * 60 + [300]).abnormal


def test_rolled_up_days_without_minutes_are_enough_for_the_time_of_day() -> None:
    now = BEGIN + 3 * DAY
    hours = {hour: Hour(total=60 * 80) for hour in range(BEGIN // 60, now // 60)}
    history = History(since=BEGIN, minutes={now: 90}, hours=hours)
    verdict = spike(history, now, Sensitivity.NORMAL, 20)
    assert (verdict.level, verdict.abnormal) == (80, False)


@pytest.mark.parametrize(("day", "abnormal"), [(1, True), (0, False)])
def test_after_a_gap_an_earlier_day_is_enough_to_judge_by(day: int, abnormal: bool) -> None:
    now = BEGIN + DAY
    hours = {hour: Hour(60 * 8, peak=9) for hour in range(BEGIN // 60, BEGIN // 60 + 3)}
    gap = frozenset(range(now - 2 * 60, now))
    history = History(since=BEGIN if day else now, minutes={now: 500}, hours=hours, unknown=gap)
    verdict = spike(history, now, Sensitivity.NORMAL, 20)
    assert (verdict.level, verdict.abnormal) == (8 * day, abnormal)


@pytest.mark.parametrize(("earlier", "level"), [([8, 80], 8), ([8, 80, 90], 80)])
def test_the_usual_level_of_a_time_of_day_is_the_middle_of_its_days(
    earlier: list[int], level: int
) -> None:
    now = BEGIN + 20 * DAY
    hours = {
        hour: Hour(60 * count)
        for day, count in enumerate(earlier, start=5)
        for hour in range((now - day * DAY) // 60 - 1, (now - day * DAY) // 60 + 2)
    }
    unknown = {
        hour: Hour(0, known=0) for hour in range(BEGIN // 60, now // 60) if hour not in hours
    }
    history = History(BEGIN, {now: 5}, hours | unknown, frozenset(range(now - 2 * 60, now)))
    verdict = spike(history, now, Sensitivity.NORMAL, 20)
    assert verdict.level == level


def test_hours_that_are_not_known_are_no_zeros() -> None:
    now = BEGIN + 3 * DAY
    unknown = {hour: Hour(total=0, known=0) for hour in range(BEGIN // 60, now // 60 - 30)}
    known = {hour: Hour(total=60 * 80, peak=85) for hour in range(now // 60 - 30, now // 60)}
    history = History(since=BEGIN, minutes={now: 90}, hours=unknown | known)
    assert spike(history, now, Sensitivity.NORMAL, 20).level == 80


@pytest.mark.parametrize("unknown", [frozenset(), frozenset((BEGIN + 3,))])
def test_only_minutes_before_the_record_and_in_its_gaps_are_not_known(
    unknown: frozenset[int],
) -> None:
    history = History(since=BEGIN + 1, minutes={BEGIN: 5, BEGIN + 2: 7}, hours={}, unknown=unknown)
    gap = None if unknown else 0
    assert [history.at(BEGIN + index) for index in range(4)] == [None, 0, 7, gap]
    known = [0, 7] if unknown else [0, 7, 0]
    assert history.between(BEGIN - 9, BEGIN + 4) == known


def test_what_is_not_known_of_an_hour_is_no_part_of_its_roll_up() -> None:
    minutes = {BEGIN: 5, BEGIN + 1: 900, BEGIN + 59: 7, BEGIN + 60: 9}
    gaps = {BEGIN + 1, *range(BEGIN + 120, BEGIN + 180)}
    hours = rolled_up(minutes, since=BEGIN, until=BEGIN + 180, unknown=gaps)
    assert list(hours.values()) == [Hour(12, 7, known=59), Hour(9, 9, known=60), Hour(0, 0, 0)]
    history = History(since=BEGIN, minutes=minutes, hours=hours, unknown=gaps)
    assert history.hour(BEGIN // 60 - 1) is None
    assert history.hour(BEGIN // 60 + 2) is None
    assert history.hour(BEGIN // 60 + 3) == Hour(0, 0)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=200), st.integers(0, 59))
def test_rolling_up_keeps_every_count(counts: list[int], offset: int) -> None:
    minutes = {BEGIN + offset + index: count for index, count in enumerate(counts)}
    since, until = BEGIN + offset, BEGIN + offset + len(counts)
    hours = rolled_up(minutes, since=since, until=until)
    assert sum(hour.total for hour in hours.values()) == sum(counts)
    assert sum(hour.known for hour in hours.values()) == len(counts)
    assert max(hour.highest for hour in hours.values()) == max(counts)


def test_an_explanation_names_the_minute_the_count_and_the_line() -> None:
    verdict = judged([10] * 100 + [400])
    assert "400 in the minute 2025-02-19 22:40 UTC" in verdict.explanation
    assert "usual is 10" in verdict.explanation
    assert f"from {math.ceil(verdict.threshold)} on" in verdict.explanation
