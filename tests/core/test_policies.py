from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.policies import (
    MAX_LOG_REQUESTS,
    MAX_PERIOD,
    MAX_REQUESTS,
    Algorithm,
    Charge,
    QuotaPolicy,
    counter_id,
    policy_problems,
)


@pytest.mark.parametrize(
    ("numbers", "field"),
    [
        ({"requests": 0, "period": 60}, "requests"),
        ({"requests": -1, "period": 60}, "requests"),
        ({"requests": MAX_REQUESTS + 1, "period": 60}, "requests"),
        ({"requests": 1, "period": 0}, "period"),
        ({"requests": 1, "period": MAX_PERIOD + 1}, "period"),
        ({"requests": 1, "period": 60, "burst": 2}, "burst"),
        ({"requests": 1, "period": 60, "burst": 0, "algorithm": "token_bucket"}, "burst"),
        ({"requests": 1, "period": 86_400, "burst": 400, "algorithm": "token_bucket"}, "burst"),
        (
            {
                "requests": MAX_LOG_REQUESTS + 1,
                "period": 60,
                "algorithm": Algorithm.SLIDING_WINDOW_LOG,
            },
            "requests",
        ),
    ],
)
def test_a_policy_no_counter_can_hold_is_refused_by_name_and_field(
    numbers: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValueError, match=f"policy 'broken': {field} "):
        QuotaPolicy("broken", **numbers)


@pytest.mark.parametrize(
    "policy",
    [
        {"requests": 1, "period": 1},
        {"requests": MAX_REQUESTS, "period": MAX_PERIOD},
        {"requests": MAX_LOG_REQUESTS, "period": 60, "algorithm": "sliding_window_log"},
        {"requests": 1, "period": 86_400, "burst": 366, "algorithm": "token_bucket"},
        {"requests": 1, "period": 60, "burst": 1, "algorithm": "token_bucket"},
        {"requests": 60, "period": 1, "burst": MAX_REQUESTS, "algorithm": "token_bucket"},
    ],
)
def test_the_smallest_and_the_largest_numbers_that_a_counter_holds_are_accepted(
    policy: dict[str, Any],
) -> None:
    accepted = QuotaPolicy("fits", **policy)
    assert accepted.capacity == policy.get("burst", policy["requests"])
    for cost in (0, MAX_REQUESTS):
        assert Charge("user:1", accepted, cost).cost == cost


def test_every_problem_is_told_at_once() -> None:
    problems = policy_problems(0, 0, Algorithm.FIXED_WINDOW, None)
    assert [problem.field for problem in problems] == ["requests", "period"]


@pytest.mark.parametrize("cost", [-1, MAX_REQUESTS + 1])
def test_a_cost_that_no_counter_holds_is_refused(cost: int) -> None:
    with pytest.raises(ValueError, match="cost must be from 0"):
        Charge("user:1", QuotaPolicy("a", 1, 60), cost)


def test_the_limit_is_no_part_of_the_counter() -> None:
    assert QuotaPolicy("a", 1, 60).counter_id == QuotaPolicy("a", 99, 60).counter_id


def test_policies_of_two_tiers_share_the_counter_they_name() -> None:
    free = QuotaPolicy("free-minute", 60, 60, counter="t")
    pro = QuotaPolicy("pro-minute", 300, 60, counter="t")
    assert free.counter_id == pro.counter_id


counters = st.tuples(st.text(), st.integers(1, MAX_PERIOD), st.sampled_from(Algorithm))


@given(counters, counters)
def test_different_counters_are_named_differently(
    one: tuple[str, int, Algorithm], other: tuple[str, int, Algorithm]
) -> None:
    assert (counter_id(*one) == counter_id(*other)) == (one == other)


@pytest.mark.parametrize("name", ["cost", "subject", "note"])
def test_charges_are_as_frozen_as_policies(name: str) -> None:
    charge = Charge("user:1", QuotaPolicy("p", 5, 60))
    with pytest.raises(FrozenInstanceError):
        setattr(charge, name, 2)
    assert charge == Charge("user:1", QuotaPolicy("p", 5, 60), 1)
