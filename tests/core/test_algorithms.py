from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core import algorithms
from django_ratelimit_tiers.core.algorithms import EMPTY, CounterState
from django_ratelimit_tiers.core.policies import MICROSECONDS, Algorithm, Mode, QuotaPolicy
from tests import strategies as own

SECOND = MICROSECONDS
MINUTE = 60 * SECOND
ENFORCED = st.just(Mode.ENFORCE)


def take(policy: QuotaPolicy, state: CounterState, now: int, cost: int = 1) -> CounterState:
    """Charge a counter that is known to allow it."""
    settled = algorithms.settle(policy, state, now)
    assert algorithms.wait(policy, settled, cost) == 0
    return algorithms.spend(policy, settled, cost)


def waits(policy: QuotaPolicy, state: CounterState, now: int, cost: int = 1) -> int:
    return algorithms.wait(policy, algorithms.settle(policy, state, now), cost)


def remaining(policy: QuotaPolicy, state: CounterState, now: int) -> int:
    return algorithms.standing(policy, *algorithms.settle(policy, state, now)[:3])[1]


def reset_after(policy: QuotaPolicy, state: CounterState, now: int) -> int:
    return algorithms.standing(policy, *algorithms.settle(policy, state, now)[:3])[2]


def fits(policy: QuotaPolicy, state: CounterState, now: int, cost: int) -> bool:
    """Say by the table of docs/algorithms.md, and not by the wait, whether a cost may be taken."""
    settled = algorithms.settle(policy, state, now)
    match policy.algorithm:
        case Algorithm.TOKEN_BUCKET:
            used = settled.current * policy.window + settled.previous
            return used + cost * policy.window <= policy.capacity * policy.window
        case Algorithm.SLIDING_WINDOW_COUNTER:
            weighted = settled.previous * (policy.window - now % policy.window) // policy.window
            return settled.current + weighted + cost <= policy.requests
        case _:
            return settled.current + cost <= policy.requests


@st.composite
def histories(draw: st.DrawFn) -> tuple[QuotaPolicy, CounterState, int, int]:
    """A policy, a state that real requests led to, a present moment and a cost."""
    policy = draw(own.policies(modes=ENFORCED))
    most = min(policy.capacity, 50)
    now = draw(st.integers(0, own.LATEST))
    state = EMPTY
    for _ in range(draw(st.integers(0, 8))):
        now = max(0, now + draw(own.steps(policy.window)))
        settled = algorithms.settle(policy, state, now)
        left = algorithms.standing(policy, *settled[:3])[1]
        cost = draw(st.sampled_from([1, 2, most, max(1, left)]))
        if algorithms.wait(policy, settled, cost) == 0:
            state = algorithms.spend(policy, settled, cost)
    now = max(0, now + draw(own.steps(policy.window)))
    return policy, state, now, draw(st.sampled_from([0, 1, 1, 2, most]))


class TestEveryAlgorithm:
    @given(histories())
    def test_the_wait_is_the_least_after_which_the_request_passes(
        self, history: tuple[QuotaPolicy, CounterState, int, int]
    ) -> None:
        policy, state, now, cost = history
        now = max(now, state.last)
        wait = waits(policy, state, now, cost)
        if 0 < wait < algorithms.FOREVER and cost <= policy.capacity:
            assert waits(policy, state, now + wait, cost) == 0
            assert waits(policy, state, now + wait - 1, cost) == 1

    @given(histories())
    def test_a_request_passes_exactly_when_it_fits(
        self, history: tuple[QuotaPolicy, CounterState, int, int]
    ) -> None:
        policy, state, now, cost = history
        now = max(now, state.last)
        wait = waits(policy, state, now, cost)
        for moment in (now, now + wait - 1, now + wait):
            if moment >= now and wait < algorithms.FOREVER and cost <= policy.capacity:
                passes = waits(policy, state, moment, cost) == 0
                assert passes is fits(policy, state, moment, cost) is (moment == now + wait)

    @given(histories())
    def test_the_reset_is_the_first_moment_of_the_full_quota(
        self, history: tuple[QuotaPolicy, CounterState, int, int]
    ) -> None:
        policy, state, now, _ = history
        now = max(now, state.last)
        full = reset_after(policy, state, now)
        assert remaining(policy, state, now + full) == policy.capacity
        if full > 0:
            assert reset_after(policy, state, now + full - 1) == 1

    @given(histories())
    def test_what_remains_can_be_taken_and_one_more_cannot(
        self, history: tuple[QuotaPolicy, CounterState, int, int]
    ) -> None:
        policy, state, now, _ = history
        left = remaining(policy, state, now)
        assert waits(policy, state, now, left) == 0
        assert waits(policy, state, now, left + 1) > 0

    @given(histories())
    def test_what_was_just_taken_can_be_given_back(
        self, history: tuple[QuotaPolicy, CounterState, int, int]
    ) -> None:
        policy, state, now, cost = history
        settled = algorithms.settle(policy, state, now)
        if cost and algorithms.wait(policy, settled, cost) == 0:
            charged = algorithms.spend(policy, settled, cost)
            returned = algorithms.give_back(policy, charged, cost, settled.last)
            assert returned == settled

    @given(histories(), st.integers(0, 10**15))
    def test_time_never_runs_backwards(
        self, history: tuple[QuotaPolicy, CounterState, int, int], earlier: int
    ) -> None:
        policy, state, _, _ = history
        at_last = algorithms.settle(policy, state, state.last)
        assert algorithms.settle(policy, state, max(0, state.last - earlier)) == at_last

    @pytest.mark.parametrize("algorithm", list(Algorithm))
    def test_a_cost_above_the_capacity_waits_one_period(self, algorithm: Algorithm) -> None:
        policy = QuotaPolicy("a", 5, 60, algorithm)
        assert waits(policy, EMPTY, 0, cost=6) == MINUTE

    @pytest.mark.parametrize("algorithm", list(Algorithm))
    def test_a_raised_limit_keeps_the_usage(self, algorithm: Algorithm) -> None:
        state = take(QuotaPolicy("a", 100, 60, algorithm), EMPTY, MINUTE, cost=60)
        assert remaining(QuotaPolicy("a", 200, 60, algorithm), state, MINUTE) == 140

    @pytest.mark.parametrize("algorithm", list(Algorithm))
    def test_a_lowered_limit_refuses_until_enough_has_decayed(self, algorithm: Algorithm) -> None:
        state = take(QuotaPolicy("a", 100, 60, algorithm), EMPTY, MINUTE, cost=60)
        lowered = QuotaPolicy("a", 10, 60, algorithm)
        assert remaining(lowered, state, MINUTE) == 0
        wait = waits(lowered, state, MINUTE)
        assert wait > 0
        assert waits(lowered, state, MINUTE + wait) == 0


class TestFixedWindow:
    policy = QuotaPolicy("a", 2, 60, Algorithm.FIXED_WINDOW)

    def test_windows_are_aligned_to_the_epoch(self) -> None:
        state = take(self.policy, EMPTY, MINUTE - 1, cost=2)
        assert waits(self.policy, state, MINUTE - 1) == 1
        assert remaining(self.policy, state, MINUTE) == 2

    def test_the_wait_and_the_reset_are_the_end_of_the_window(self) -> None:
        state = take(self.policy, EMPTY, 10 * SECOND, cost=2)
        assert waits(self.policy, state, 20 * SECOND) == 40 * SECOND
        assert reset_after(self.policy, state, 20 * SECOND) == 40 * SECOND

    def test_an_untouched_window_has_nothing_to_reset(self) -> None:
        assert reset_after(self.policy, EMPTY, 20 * SECOND) == 0


class TestSlidingWindowLog:
    policy = QuotaPolicy("a", 2, 60, Algorithm.SLIDING_WINDOW_LOG)

    def test_a_request_counts_for_exactly_one_period(self) -> None:
        state = take(self.policy, EMPTY, 5, cost=2)
        assert waits(self.policy, state, 5 + MINUTE - 1) == 1
        assert waits(self.policy, state, 5 + MINUTE) == 0

    def test_the_wait_is_for_the_entry_that_frees_enough(self) -> None:
        state = take(self.policy, take(self.policy, EMPTY, 0), 10 * SECOND)
        assert waits(self.policy, state, 20 * SECOND, cost=1) == 40 * SECOND
        assert waits(self.policy, state, 20 * SECOND, cost=2) == 50 * SECOND


class TestSlidingWindowCounter:
    policy = QuotaPolicy("a", 10, 60)

    def test_the_previous_window_weighs_by_what_is_left_of_it(self) -> None:
        state = take(self.policy, EMPTY, 0, cost=10)
        assert remaining(self.policy, state, MINUTE) == 0
        assert remaining(self.policy, state, MINUTE + 30 * SECOND) == 5
        assert remaining(self.policy, state, MINUTE + 30 * SECOND + 1) == 6

    def test_two_windows_later_nothing_is_left(self) -> None:
        state = take(self.policy, EMPTY, 0, cost=10)
        assert remaining(self.policy, state, 2 * MINUTE) == 10


class TestTokenBucket:
    policy = QuotaPolicy("a", 60, 60, Algorithm.TOKEN_BUCKET, burst=100)

    def test_the_burst_is_the_capacity(self) -> None:
        assert remaining(self.policy, EMPTY, 0) == 100

    def test_tokens_come_back_continuously(self) -> None:
        state = take(self.policy, EMPTY, 0, cost=100)
        assert waits(self.policy, state, 0) == SECOND
        assert waits(self.policy, state, SECOND - 1) == 1
        assert remaining(self.policy, state, 90 * SECOND) == 90

    def test_a_rate_that_divides_no_second_loses_nothing(self) -> None:
        policy = QuotaPolicy("a", 90, 60, Algorithm.TOKEN_BUCKET, burst=1)
        admitted, state = 0, EMPTY
        for now in range(0, 12 * SECOND + 1, 1000):
            settled = algorithms.settle(policy, state, now)
            if algorithms.wait(policy, settled, 1) == 0:
                state = algorithms.spend(policy, settled, 1)
                admitted += 1
        assert admitted == 18  # one each 667 ms on a clock of whole milliseconds

    def test_a_wait_beyond_every_horizon_is_told_as_the_longest(self) -> None:
        spent = take(QuotaPolicy("a", 10**9, 1, Algorithm.TOKEN_BUCKET), EMPTY, 0, cost=10**9)
        slow = QuotaPolicy("a", 1, 1, Algorithm.TOKEN_BUCKET)
        assert waits(slow, spent, 0) == (10**9) * SECOND
        assert algorithms.FOREVER == 2**53 - 1


class TestGivingBack:
    @pytest.mark.parametrize("algorithm", [Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW_LOG])
    def test_a_charge_that_left_its_window_is_not_credited_to_the_next(
        self, algorithm: Algorithm
    ) -> None:
        policy = QuotaPolicy("a", 2, 60, algorithm)
        state = take(policy, EMPTY, 0)
        state = take(policy, state, MINUTE)
        settled = algorithms.settle(policy, state, MINUTE)
        given_back = algorithms.give_back(policy, settled, 1, charged_at=0)
        assert remaining(policy, given_back, MINUTE) == 1

    @pytest.mark.parametrize("algorithm", Algorithm)
    @pytest.mark.parametrize("later", [0, 1, MINUTE // 2])
    def test_the_newest_charge_is_given_back_when_it_is_not_told_which(
        self, algorithm: Algorithm, later: int
    ) -> None:
        policy = QuotaPolicy("a", 9, 86_400, algorithm)
        before = take(policy, EMPTY, 0, cost=2)
        state = take(policy, before, MINUTE, cost=3)
        settled = algorithms.settle(policy, state, MINUTE + later)
        given_back = algorithms.give_back(policy, settled, 3)
        assert remaining(policy, given_back, MINUTE + later) == 7

    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_no_more_is_given_back_than_was_used(self, algorithm: Algorithm) -> None:
        policy = QuotaPolicy("a", 9, 60, algorithm)
        settled = algorithms.settle(policy, take(policy, EMPTY, 0, cost=2), 0)
        assert remaining(policy, algorithms.give_back(policy, settled, 5), 0) == 9

    def test_no_more_is_given_back_to_a_log_than_was_charged_at_that_moment(self) -> None:
        policy = QuotaPolicy("a", 9, 60, Algorithm.SLIDING_WINDOW_LOG)
        state = take(policy, take(policy, EMPTY, 0, cost=3), SECOND, cost=2)
        settled = algorithms.settle(policy, state, SECOND)
        assert algorithms.give_back(policy, settled, 4, charged_at=SECOND).log == (0, 0, 0)

    def test_what_the_present_window_has_not_is_given_back_to_the_one_before(self) -> None:
        policy = QuotaPolicy("a", 10, 60)
        state = take(policy, take(policy, EMPTY, 0, cost=6), MINUTE, cost=1)
        settled = algorithms.settle(policy, state, MINUTE)
        given = algorithms.give_back(policy, settled, 4)
        assert (given.current, given.previous) == (0, 3)

    def test_a_charge_of_the_previous_window_is_given_back_there(self) -> None:
        policy = QuotaPolicy("a", 10, 60)
        state = take(policy, EMPTY, 0, cost=10)
        settled = algorithms.settle(policy, state, MINUTE)
        given = algorithms.give_back(policy, settled, 4, charged_at=0)
        assert given.previous == 6
