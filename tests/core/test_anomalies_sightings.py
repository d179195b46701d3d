from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.anomalies import (
    NetworkSubjects,
    SubjectNetworks,
    account_farming,
    ip_rotation,
)
from django_ratelimit_tiers.core.words import LONGEST_NAME, distinct, number, shown

NOW = 29_000_000


def named(prefix: str, number: int) -> frozenset[str]:
    return frozenset(f"{prefix}{index}" for index in range(number))


def test_a_subject_from_as_many_addresses_as_allowed_is_rotating() -> None:
    assert ip_rotation(SubjectNetworks("user:1", named("192.0.2.", 20)), NOW, most=20).abnormal


def test_a_subject_from_one_address_less_is_not() -> None:
    assert not ip_rotation(SubjectNetworks("user:1", named("192.0.2.", 19)), NOW, most=20).abnormal


def test_a_key_that_always_comes_from_many_servers_may() -> None:
    fleet = SubjectNetworks("key:a", named("192.0.2.", 50), usual=40)
    assert not ip_rotation(fleet, NOW, most=20).abnormal


def test_many_subjects_from_one_address_are_a_farm() -> None:
    assert account_farming(NetworkSubjects("192.0.2.7", named("user:", 25)), NOW).abnormal


def test_a_few_new_subjects_are_a_farm_where_as_many_known_ones_are_not() -> None:
    known = NetworkSubjects("192.0.2.7", named("user:", 10))
    new = NetworkSubjects("192.0.2.7", named("user:", 10), new=named("user:", 10))
    assert not account_farming(known, NOW).abnormal
    assert account_farming(new, NOW).abnormal
    assert "10 new users or keys" in account_farming(new, NOW).explanation


@pytest.mark.parametrize(("networks", "abnormal"), [(119, False), (120, True)])
def test_three_times_what_is_usual_is_rotation_whoever_it_is(networks: int, abnormal: bool) -> None:
    verdict = ip_rotation(SubjectNetworks("key:a", named("n", networks), usual=40), NOW, most=20)
    assert (verdict.abnormal, verdict.level, verdict.threshold) == (abnormal, 40, 120)


@pytest.mark.parametrize(("subjects", "abnormal"), [(209, False), (210, True)])
def test_three_times_what_is_usual_is_a_farm_wherever_it_is(subjects: int, abnormal: bool) -> None:
    office = NetworkSubjects("192.0.2.7", named("user:", subjects), usual=70)
    verdict = account_farming(office, NOW)
    assert (verdict.abnormal, verdict.level, verdict.threshold) == (abnormal, 70, 210)


def test_of_subjects_and_new_ones_those_that_exceed_their_line_further_are_told() -> None:
    users, new = named("user:", 50), named("user:", 10)
    crowd = account_farming(NetworkSubjects("192.0.2.7", users, new), NOW)
    farm = account_farming(NetworkSubjects("192.0.2.7", users, users), NOW)
    assert (crowd.value, crowd.threshold) == (50, 25)
    assert "At least 50 users or keys came from 192.0.2.7" in crowd.explanation
    assert (farm.value, farm.threshold, farm.level) == (50, 10, 0)


def test_an_office_with_many_users_is_no_farm() -> None:
    office = NetworkSubjects("192.0.2.7", named("user:", 80), usual=70)
    assert not account_farming(office, NOW).abnormal


@given(st.frozensets(st.integers(0, 500), max_size=60), st.integers(0, 500))
def test_one_more_network_never_calms_a_verdict(numbers: frozenset[int], more: int) -> None:
    fewer = ip_rotation(SubjectNetworks("user:1", frozenset(map(str, numbers))), NOW)
    grown = ip_rotation(SubjectNetworks("user:1", frozenset(map(str, {*numbers, more}))), NOW)
    assert grown.abnormal or not fewer.abnormal


@given(st.text(max_size=500))
@example("a" * (LONGEST_NAME + 1))
@example("\n" * 500)
def test_a_hostile_name_is_cut_and_printable(name: str) -> None:
    assert len(shown(name)) <= LONGEST_NAME
    assert shown(name).isprintable()


def test_a_name_is_shown_whole_up_to_the_longest_and_then_with_its_beginning() -> None:
    longest = "a" * LONGEST_NAME
    assert shown(longest) == longest
    assert shown(longest + "b") == "a" * (LONGEST_NAME - 1) + "…"


@given(st.text(max_size=5), st.text(max_size=5), st.sampled_from(["", "a" * LONGEST_NAME]))
@example("\x00", "\x01", "")
@example("a", "b", "a" * LONGEST_NAME)
def test_two_names_are_distinct_although_they_are_shown_alike(
    one: str, other: str, beginning: str
) -> None:
    names = beginning + one, beginning + other
    assert (distinct(names[0]) == distinct(names[1])) is (one == other)
    for name in names:
        assert distinct(name).startswith(shown(name))
        assert (distinct(name) == name) is (shown(name) == name)


@pytest.mark.parametrize(
    ("value", "written"),
    [(9.5, "9.5"), (9.0, "9"), (10.4, "10"), (0.25, "0.2"), (1_234_567, "1,234,567")],
)
def test_a_number_has_one_decimal_only_where_it_matters(value: float, written: str) -> None:
    assert number(value) == written
