"""Hypothesis strategies shared by tests."""

from __future__ import annotations

from hypothesis import strategies as st

from django_ratelimit_tiers.core.policies import (
    MAX_PERIOD,
    MAX_REQUESTS,
    Algorithm,
    Charge,
    Mode,
    QuotaPolicy,
)

LATEST = 4_000_000_000_000_000
"""A time in microseconds far beyond the life of this code, still exact in a double."""

MODES = st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW, Mode.OFF])

periods = st.one_of(st.sampled_from([1, 2, 60, 3600, 86_400, MAX_PERIOD]), st.integers(1, 100_000))
subjects = st.sampled_from(["user:1", "user:2", "ip:192.0.2.7", "all"])


@st.composite
def policies(
    draw: st.DrawFn,
    modes: st.SearchStrategy[Mode] = MODES,
) -> QuotaPolicy:
    """Policies of all kinds, small and huge, every one of them valid."""
    algorithm = draw(st.sampled_from(Algorithm))
    most = 50 if algorithm is Algorithm.SLIDING_WINDOW_LOG else MAX_REQUESTS
    requests = draw(st.one_of(st.integers(1, 5), st.integers(1, 100), st.integers(1, most)))
    requests = min(requests, most)
    period = draw(periods)
    burst = None
    if algorithm is Algorithm.TOKEN_BUCKET and draw(st.booleans()):
        slowest = min(MAX_REQUESTS, requests * MAX_PERIOD // period)
        burst = draw(st.one_of(st.integers(1, min(slowest, 10)), st.integers(1, slowest)))
    return QuotaPolicy(
        name=draw(st.sampled_from("abcd")),
        requests=requests,
        period=period,
        algorithm=algorithm,
        burst=burst,
        mode=draw(modes),
    )


@st.composite
def charges(draw: st.DrawFn, of: st.SearchStrategy[QuotaPolicy]) -> Charge:
    """Charges that fit, exceed or exactly fill their policy."""
    policy = draw(of)
    most = policy.capacity
    if policy.algorithm is Algorithm.SLIDING_WINDOW_LOG:
        most = min(most, 50)
    cost = draw(st.one_of(st.integers(0, 3), st.sampled_from([most, max(1, most // 2), most + 1])))
    return Charge(draw(subjects), policy, min(cost, MAX_REQUESTS))


def steps(window: int) -> st.SearchStrategy[int]:
    """Passing time around a window's length, and a little of it backwards."""
    return st.one_of(
        st.sampled_from([0, 1, -1, window, window - 1, window + 1, window // 2, 2 * window]),
        st.integers(-1_000_000, 3 * window),
    )
