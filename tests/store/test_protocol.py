"""Plans as keys and arguments: what is packed once is what would be packed each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.store.protocol import ACQUIRE, REFUND, RESET, Protocol
from tests import strategies as own

PROTOCOL = Protocol()


class Form:
    """What charges have in common that differ only by their subjects."""


@given(
    policies=st.lists(own.policies(), max_size=5),
    costs=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    subjects=st.lists(
        st.lists(st.sampled_from(["user:1", "ip:192.0.2.7", "all"]), min_size=5, max_size=5),
        min_size=2,
        max_size=5,
    ),
)
def test_plans_of_one_form_are_sent_as_those_without(
    policies: list[QuotaPolicy], costs: list[int], subjects: list[list[str]]
) -> None:
    form = Form()
    for of_request in subjects:
        charges = tuple(map(Charge, of_request, policies, costs))
        assert PROTOCOL.acquire(Plan(charges, form=form)) == PROTOCOL.acquire(Plan(charges))


def test_charges_of_one_counter_share_its_number_and_others_do_not() -> None:
    minute, day = QuotaPolicy("t", 10, 60), QuotaPolicy("t", 100, 86_400)
    charges = [Charge("user:1", policy) for policy in (minute, day, minute)]
    call = PROTOCOL.acquire(Plan((*charges, Charge("user:2", minute))))
    assert call.counters == (1, 2, 1, 3)


def test_a_script_has_whatever_it_says_is_put_in() -> None:
    for script in (ACQUIRE, REFUND, RESET):
        assert b"-- @" not in script.text.replace(b"`-- @file`", b"")
