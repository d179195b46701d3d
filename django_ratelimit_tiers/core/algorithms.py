"""The four algorithms as pure functions over one counter's state.

Time is integer microseconds since the Unix epoch and always an argument; every number is an exact
integer. These functions are the reference that every store must equal, number by number.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from django_ratelimit_tiers.core.policies import Algorithm, QuotaPolicy

FOREVER = 2**53 - 1
"""The longest wait told, in microseconds (285 years): the largest exact integer of a double."""


class CounterState(NamedTuple):
    """What one counter remembers.

    `last` is the time of the last charge. `current` and `previous` are the counts of the window
    of `last` and of the one before it; for a token bucket the whole and the fractional part of
    what is used, the fraction in units of 1/window; for a log the number and the newest of `log`,
    which holds the times of accepted requests.
    """

    last: int = 0
    current: int = 0
    previous: int = 0
    log: tuple[int, ...] = ()


EMPTY = CounterState()

Standing: TypeAlias = tuple[QuotaPolicy, int, int, int]
"""How the counter of a policy stands: what may still be taken, the microseconds to the full quota,
and those to wait where the policy refuses, otherwise 0."""

BUCKET, SLIDING = Algorithm.TOKEN_BUCKET, Algorithm.SLIDING_WINDOW_COUNTER
FIXED = Algorithm.FIXED_WINDOW


def settle(policy: QuotaPolicy, state: CounterState, now: int) -> CounterState:
    """Return the state as of `now`; a `now` before the last charge counts as that charge's time."""
    now = max(now, state.last)
    return _SETTLE[policy.algorithm](policy, state, now)._replace(last=now)


def wait(policy: QuotaPolicy, settled: CounterState, cost: int) -> int:
    """Return the least microseconds until `cost` may be taken, 0 when it may be taken now.

    A cost above the capacity can never be taken; its wait is one period.
    """
    if cost > policy.capacity:
        return policy.window
    return min(_WAIT[policy.algorithm](policy, settled, cost), FOREVER)


def wait_from(now: int, policy: QuotaPolicy, settled: CounterState, cost: int) -> int:
    """Return the same from a `now` on that may be before the settled time, as by a clock set back.

    Until that time comes again nothing falls.
    """
    waiting = wait(policy, settled, cost)
    if cost > policy.capacity:  # it never passes, whatever the clock says
        return waiting
    return min(waiting + settled.last - now, FOREVER) if waiting else 0


def spend(policy: QuotaPolicy, settled: CounterState, cost: int) -> CounterState:
    """Return the state after `cost` was taken at the settled time."""
    if policy.algorithm is Algorithm.SLIDING_WINDOW_LOG:
        return _logged(settled.log + (settled.last,) * cost)._replace(last=settled.last)
    return settled._replace(current=settled.current + cost)


def give_back(
    policy: QuotaPolicy, settled: CounterState, cost: int, charged_at: int | None = None
) -> CounterState:
    """Return the state after a charge of `cost` was taken back.

    It is the charge made at `charged_at`, and nothing where that has left its window since: no
    later one is credited. Without `charged_at` it is the newest charge.
    """
    match policy.algorithm:
        case Algorithm.TOKEN_BUCKET:
            used = _used(policy, settled) - cost * policy.window
            whole, fraction = divmod(max(0, used), policy.window)
            return settled._replace(current=whole, previous=fraction)
        case Algorithm.SLIDING_WINDOW_LOG:
            if charged_at is None:
                kept = settled.log[: max(0, len(settled.log) - cost)]
                return _logged(kept)._replace(last=settled.last) if settled.log else settled
            start, end = bisect_left(settled.log, charged_at), bisect_right(settled.log, charged_at)
            if start == end:
                return settled
            left = settled.log[: max(start, end - cost)] + settled.log[end:]
            return _logged(left)._replace(last=settled.last)
        case _:
            if charged_at is None:
                of_current = min(cost, settled.current)
                previous = max(0, settled.previous - (cost - of_current))
                return settled._replace(current=settled.current - of_current, previous=previous)
            age = settled.last // policy.window - charged_at // policy.window
            if age == 0:
                return settled._replace(current=max(0, settled.current - cost))
            if age == 1:
                return settled._replace(previous=max(0, settled.previous - cost))
            return settled


def standing(policy: QuotaPolicy, last: int, current: int, previous: int) -> Standing:
    """Return how a counter stands at its settled time.

    The times of a log are not needed for it, only their number and the newest.
    """
    return standings(((policy, slice(3)),), (last, current, previous))[0]


def standings(
    counters: Iterable[tuple[QuotaPolicy, slice]], states: Sequence[int]
) -> list[Standing]:
    """Return the standing of each counter, whose last, current and previous are a part of `states`.

    Every request comes here, so one function works on the bare numbers of all its counters.
    """
    found = []
    for policy, part in counters:
        last, current, previous = states[part]
        algorithm, window = policy.algorithm, policy.window
        used, reset_after = current, 0
        if algorithm is BUCKET:
            if previous:
                used += 1
            reset_after = -(-(current * window + previous) // policy.requests)
        elif algorithm is SLIDING:
            to_window_end = window - last % window
            if previous:
                used += previous * to_window_end // window
            # A count's weight falls to 0 that much after its window: _weight_falls_to, unfolded.
            if current:
                reset_after = to_window_end + window + 1 + -window // current
            elif used:
                reset_after = to_window_end + 1 + -window // previous
        elif current:
            reset_after = window - (last % window if algorithm is FIXED else last - previous)
        if reset_after > FOREVER:
            reset_after = FOREVER
        remaining = policy.capacity - used
        found.append((policy, remaining if remaining > 0 else 0, reset_after, 0))
    return found


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _settle_window(policy: QuotaPolicy, state: CounterState, now: int) -> CounterState:
    passed = now // policy.window - state.last // policy.window
    if passed == 0:
        return state
    return CounterState(previous=state.current if passed == 1 else 0)


def _fixed_wait(policy: QuotaPolicy, settled: CounterState, cost: int) -> int:
    return 0 if settled.current + cost <= policy.requests else _to_window_end(policy, settled)


def _to_window_end(policy: QuotaPolicy, settled: CounterState) -> int:
    return policy.window - settled.last % policy.window


def _weighted(policy: QuotaPolicy, settled: CounterState) -> int:
    """Return the share of the previous window's count that still lies within one period."""
    return settled.previous * _to_window_end(policy, settled) // policy.window


def _weight_falls_to(policy: QuotaPolicy, count: int, most: int) -> int:
    """Return the offset in a window at which a previous window's `count` weighs at most `most`.

    count * (P - e) // P <= most  <=>  P - e <= ceil((most + 1) * P / count) - 1

    `count` is more than `most`: it would weigh no more at once.
    """
    return policy.window - (_ceil_div((most + 1) * policy.window, count) - 1)


def _sliding_wait(policy: QuotaPolicy, settled: CounterState, cost: int) -> int:
    spare = policy.requests - cost - settled.current
    if spare >= _weighted(policy, settled):
        return 0
    if spare >= 0:
        offset = _weight_falls_to(policy, settled.previous, spare)
        return offset - settled.last % policy.window
    offset = _weight_falls_to(policy, settled.current, policy.requests - cost)
    return _to_window_end(policy, settled) + offset


def _settle_log(policy: QuotaPolicy, state: CounterState, now: int) -> CounterState:
    return _logged(state.log[bisect_right(state.log, now - policy.window) :])


def _logged(log: tuple[int, ...]) -> CounterState:
    return CounterState(current=len(log), previous=log[-1] if log else 0, log=log)


def _log_wait(policy: QuotaPolicy, settled: CounterState, cost: int) -> int:
    must_leave = settled.current + cost - policy.requests
    if must_leave <= 0:
        return 0
    return settled.log[must_leave - 1] + policy.window - settled.last


def _used(policy: QuotaPolicy, state: CounterState) -> int:
    return state.current * policy.window + state.previous


def _settle_bucket(policy: QuotaPolicy, state: CounterState, now: int) -> CounterState:
    used = _used(policy, state) - policy.requests * (now - state.last)
    whole, fraction = divmod(max(0, used), policy.window)
    return CounterState(current=whole, previous=fraction)


def _bucket_wait(policy: QuotaPolicy, settled: CounterState, cost: int) -> int:
    excess = _used(policy, settled) + (cost - policy.capacity) * policy.window
    return max(0, _ceil_div(excess, policy.requests))


_SETTLE: dict[Algorithm, Callable[[QuotaPolicy, CounterState, int], CounterState]] = {
    Algorithm.FIXED_WINDOW: _settle_window,
    Algorithm.SLIDING_WINDOW_LOG: _settle_log,
    Algorithm.SLIDING_WINDOW_COUNTER: _settle_window,
    Algorithm.TOKEN_BUCKET: _settle_bucket,
}
_WAIT: dict[Algorithm, Callable[[QuotaPolicy, CounterState, int], int]] = {
    Algorithm.FIXED_WINDOW: _fixed_wait,
    Algorithm.SLIDING_WINDOW_LOG: _log_wait,
    Algorithm.SLIDING_WINDOW_COUNTER: _sliding_wait,
    Algorithm.TOKEN_BUCKET: _bucket_wait,
}
