from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.anomalies import (
    DayQuota,
    HourUsage,
    SubjectUsage,
    near_limit,
    slow_drip,
)

NOW = 29_000_000
LIMIT = 1000

hours = st.lists(
    st.one_of(st.none(), st.builds(HourUsage, st.integers(0, 1200), st.integers(0, 1200)))
)


def usage(*allowed: int, refused: int = 0) -> SubjectUsage:
    return SubjectUsage("user:1", LIMIT, [HourUsage(count, refused) for count in allowed])


def quota(used: int, limit: int = 5000) -> DayQuota:
    return DayQuota("user:1", "free-day", limit, used, window=NOW)


def test_six_even_hours_just_under_the_limit_are_a_drip() -> None:
    verdict = slow_drip(usage(950, 960, 940, 955, 950, 945), NOW)
    assert (verdict.abnormal, verdict.value) == (True, 6)


def test_five_of_them_are_not() -> None:
    assert not slow_drip(usage(950, 960, 940, 955, 950), NOW).abnormal


@pytest.mark.parametrize("broken", [None, HourUsage(100), HourUsage(950, refused=400)])
def test_an_hour_unknown_or_idle_or_refused_breaks_the_row(broken: HourUsage | None) -> None:
    even = [HourUsage(950)] * 5
    assert slow_drip(SubjectUsage("user:1", LIMIT, [*even, broken, *even]), NOW).value == 5


@pytest.mark.parametrize(
    ("hour", "counts"),
    [
        (HourUsage(699), False),
        (HourUsage(700), True),
        (HourUsage(1000), True),
        (HourUsage(1001), False),
        (HourUsage(950, refused=19), True),
        (HourUsage(950, refused=20), False),
    ],
)
def test_an_hour_is_just_under_the_limit_from_seven_tenths_of_it_with_few_refusals(
    hour: HourUsage, counts: bool
) -> None:
    assert slow_drip(SubjectUsage("user:1", LIMIT, [hour]), NOW).value == int(counts)


def test_without_a_limit_nobody_is_just_under_it() -> None:
    assert slow_drip(SubjectUsage("user:1", 0, [HourUsage(0)] * 6), NOW).value == 0


@pytest.mark.parametrize(("apart", "value"), [(90, 2), (91, 1)])
def test_hours_are_even_while_they_deviate_by_no_more_than_a_tenth(apart: int, value: int) -> None:
    assert slow_drip(usage(900 - apart, 900 + apart), NOW).value == value


def test_busy_but_uneven_hours_are_no_drip() -> None:
    assert not slow_drip(usage(1000, 700, 990, 710, 1000, 700, 980), NOW).abnormal


def test_a_drip_ends_with_its_first_other_hour() -> None:
    assert slow_drip(usage(*[950] * 12, 10), NOW).value == 0


@given(hours, st.integers(0, 2000))
def test_any_usage_gets_a_verdict_of_as_many_hours_at_most(
    given_hours: list[HourUsage | None], limit: int
) -> None:
    verdict = slow_drip(SubjectUsage("user:1", limit, given_hours), NOW)
    assert verdict.value is not None
    assert 0 <= verdict.value <= len(given_hours)


@given(hours)
def test_older_hours_do_not_change_whether_the_newest_are_a_drip(
    older: list[HourUsage | None],
) -> None:
    even = [HourUsage(950)] * 6
    assert slow_drip(SubjectUsage("user:1", LIMIT, [*older, *even]), NOW).abnormal


@pytest.mark.parametrize(
    ("used", "mark"), [(0, None), (3999, None), (4000, 80), (4999, 80), (5000, 100), (9000, 100)]
)
def test_the_highest_mark_reached_is_told(used: int, mark: int | None) -> None:
    assert near_limit(quota(used)).mark == mark


def test_a_mark_is_told_once_and_none_below_it_afterwards() -> None:
    assert near_limit(quota(4500), told={80}).mark is None
    assert near_limit(quota(5000), told={80}).mark == 100
    assert near_limit(quota(4500), told={100}).mark is None


@given(st.lists(st.integers(0, 10_000), max_size=50), st.integers(1, 10_000))
def test_in_one_window_each_mark_is_told_at_most_once(used: list[int], limit: int) -> None:
    told: list[int] = []
    for amount in sorted(used):
        mark = near_limit(quota(amount, limit), told).mark
        if mark is not None:
            told.append(mark)
    assert told in ([], [80], [100], [80, 100])


def test_a_near_limit_says_how_much_of_what() -> None:
    assert "4,000 of 5,000 (free-day)" in near_limit(quota(4000)).explanation
