from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.anomalies import (
    NetworkSubjects,
    Sighting,
    SubjectNetworks,
    account_farming,
    ip_rotation,
    network_of,
    networks_by_subject,
    subjects_by_network,
)
from django_ratelimit_tiers.core.verdicts import LONGEST_NAME, shown

NOW = 29_000_000

addresses = st.one_of(st.ip_addresses().map(str), st.text(max_size=20))
sightings = st.lists(
    st.builds(
        Sighting,
        subject=st.sampled_from(["user:1", "user:2", "key:a", "ip:192.0.2.7", "all"]),
        address=addresses,
        is_new=st.booleans(),
    ),
    max_size=50,
)


def named(prefix: str, number: int) -> frozenset[str]:
    return frozenset(f"{prefix}{index}" for index in range(number))


def test_a_subject_from_as_many_addresses_as_allowed_is_rotating() -> None:
    assert ip_rotation(SubjectNetworks("user:1", named("192.0.2.", 20)), NOW, most=20).abnormal


def test_a_subject_from_one_address_less_is_not() -> None:
    assert not ip_rotation(SubjectNetworks("user:1", named("192.0.2.", 19)), NOW, most=20).abnormal


def test_a_key_that_always_comes_from_many_servers_may() -> None:
    fleet = SubjectNetworks("key:a", named("192.0.2.", 50), usual=40)
    assert not ip_rotation(fleet, NOW, most=20).abnormal


def test_one_ipv6_customer_is_one_network() -> None:
    seen = [Sighting("user:1", f"2001:db8::{number:x}") for number in range(500)]
    assert [len(found.networks) for found in networks_by_subject(seen)] == [1]


def test_a_mapped_address_is_its_ipv4_address() -> None:
    assert network_of("::ffff:192.0.2.7") == network_of("192.0.2.7") == "192.0.2.7"


def test_many_subjects_from_one_address_are_a_farm() -> None:
    assert account_farming(NetworkSubjects("192.0.2.7", named("user:", 25)), NOW).abnormal


def test_a_few_new_subjects_are_a_farm_where_as_many_known_ones_are_not() -> None:
    known = NetworkSubjects("192.0.2.7", named("user:", 10))
    new = NetworkSubjects("192.0.2.7", named("user:", 10), new=named("user:", 10))
    assert not account_farming(known, NOW).abnormal
    assert account_farming(new, NOW).abnormal
    assert "10 new users or keys" in account_farming(new, NOW).explanation


def test_an_office_with_many_users_is_no_farm() -> None:
    office = NetworkSubjects("192.0.2.7", named("user:", 80), usual=70)
    assert not account_farming(office, NOW).abnormal


def test_addresses_and_everybody_are_nobody_to_watch() -> None:
    seen = [Sighting("ip:192.0.2.7", "192.0.2.7"), Sighting("all", "192.0.2.7")]
    assert networks_by_subject(seen) == ()
    assert subjects_by_network(seen) == ()


@given(addresses)
def test_any_text_has_a_network(address: str) -> None:
    assert network_of(address)


@given(sightings, st.randoms())
def test_order_and_repetition_of_sightings_change_nothing(
    seen: list[Sighting], random: object
) -> None:
    again = seen + seen
    random.shuffle(again)  # type: ignore[attr-defined]
    assert networks_by_subject(again) == networks_by_subject(seen)
    assert subjects_by_network(again) == subjects_by_network(seen)


@given(st.frozensets(st.integers(0, 500), max_size=60), st.integers(0, 500))
def test_one_more_network_never_calms_a_verdict(numbers: frozenset[int], more: int) -> None:
    fewer = ip_rotation(SubjectNetworks("user:1", frozenset(map(str, numbers))), NOW)
    grown = ip_rotation(SubjectNetworks("user:1", frozenset(map(str, {*numbers, more}))), NOW)
    assert grown.abnormal or not fewer.abnormal


@given(st.text(max_size=500))
def test_a_hostile_name_is_cut_and_printable(name: str) -> None:
    assert len(shown(name)) <= LONGEST_NAME
    assert shown(name).isprintable()
