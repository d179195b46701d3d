"""Limits that never refuse are named, and only those."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_ratelimit_tiers.core.envelopes import never_reached
from django_ratelimit_tiers.core.plans import decide
from django_ratelimit_tiers.core.policies import MICROSECONDS, Algorithm, Charge, QuotaPolicy

FIXED, LOG = Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW_LOG
SLIDING, BUCKET = Algorithm.SLIDING_WINDOW_COUNTER, Algorithm.TOKEN_BUCKET
DAY = 86_400


def policy(
    requests: int, period: int, algorithm: Algorithm = SLIDING, burst: int | None = None
) -> QuotaPolicy:
    return QuotaPolicy(f"{requests} in {period}", requests, period, algorithm, burst)


@pytest.mark.parametrize(
    ("tight", "loose"),
    [
        (policy(100, 60), policy(200_000, DAY)),
        (policy(100, 60, BUCKET, 500), policy(200_000, DAY, FIXED)),
        (policy(10, 60, LOG), policy(50_000, DAY, LOG)),
        (policy(100, 60, BUCKET, 500), policy(50, 1, BUCKET, 500)),
        (policy(5, 10, FIXED), policy(18, 15, LOG)),
        (policy(5, 10, LOG), policy(15, 20, SLIDING)),
    ],
)
def test_a_limit_that_another_keeps_out_of_reach_is_named_with_it(
    tight: QuotaPolicy, loose: QuotaPolicy
) -> None:
    assert never_reached([tight, loose]) == [(loose, tight)]
    assert never_reached([loose, tight]) == [(loose, tight)]


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [policy(100, 60)],
        [policy(100, 60), policy(100_000, DAY)],
        [policy(100, 60, BUCKET, 500), policy(20, 1, FIXED)],
        [policy(60, 60, LOG), policy(60, 60, BUCKET, 10)],
        [policy(10, 60, BUCKET, 100), policy(1, 5, BUCKET, 50)],
        [policy(5, 10, FIXED), policy(14, 15, LOG)],  # 15 pass at the ends of two windows
        [policy(5, 10, LOG), policy(14, 20, SLIDING)],
    ],
)
def test_limits_that_all_refuse_somebody_are_not_named(policies: list[QuotaPolicy]) -> None:
    assert never_reached(policies) == []


def test_of_two_limits_that_are_the_same_one_is_named() -> None:
    hourly, minutely = policy(3600, 3600, BUCKET, 60), policy(60, 60, BUCKET, 60)
    assert never_reached([minutely, hourly]) == [(hourly, minutely)]


def test_each_of_several_is_named_with_one_that_is_reached_itself() -> None:
    second, hour, day = policy(1, 1, BUCKET, 5), policy(9000, 3600), policy(500_000, DAY)
    assert never_reached([second, hour, day]) == [(day, second), (hour, second)]


policies = st.builds(
    policy,
    st.integers(1, 6),
    st.sampled_from([1, 2, 3, 7, 10]),
    st.sampled_from([FIXED, LOG, SLIDING]),
) | st.builds(
    policy,
    st.integers(1, 6),
    st.sampled_from([1, 2, 3, 7, 10]),
    st.just(BUCKET),
    st.integers(1, 6),
)
generous = st.builds(
    policy, st.integers(1, 60), st.sampled_from([5, 11, 20]), st.sampled_from([FIXED, LOG, SLIDING])
) | st.builds(
    policy, st.integers(1, 60), st.sampled_from([5, 11, 20]), st.just(BUCKET), st.integers(1, 12)
)


@settings(max_examples=400)
@given(policies, generous, st.lists(st.integers(0, 3 * MICROSECONDS), min_size=10, max_size=60))
def test_a_limit_that_is_named_never_refuses_what_the_other_lets_in(
    tight: QuotaPolicy, loose: QuotaPolicy, pauses: list[int]
) -> None:
    assume(never_reached([tight, loose]) == [(loose, tight)])
    charges, states = (Charge("user:1", tight), Charge("user:1", loose)), {}
    now = 1_000_000_000 * MICROSECONDS
    for pause in pauses:
        now += pause
        for _ in range(tight.capacity + 1):  # as many as there can be
            (first, second), changed = decide(charges, states, now)
            states |= changed
            assert second.allowed or not first.allowed
