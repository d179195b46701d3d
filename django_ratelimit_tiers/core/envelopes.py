"""Limits that never refuse anybody, because another one for the same client refuses first.

What a policy lets through in any stretch of T is at most its burst and its rate times T: the
envelope of network calculus (R. Cruz, "A calculus for network delay", 1991). A policy that the
envelope of another fits into is never reached.
"""

from __future__ import annotations

from collections.abc import Iterable

from django_ratelimit_tiers.core.policies import Algorithm, QuotaPolicy


def never_reached(policies: Iterable[QuotaPolicy]) -> list[tuple[QuotaPolicy, QuotaPolicy]]:
    """Return the policies that never refuse, each with one that refuses before.

    All of them must count the same requests of one client, at the same cost. What they counted
    before an edit of their limits is not considered. There may be more that never refuse.
    """
    found: dict[QuotaPolicy, QuotaPolicy] = {}
    ordered = sorted(policies, key=lambda policy: policy.period)
    for policy in reversed(ordered):
        for other in ordered:
            if other is not policy and other not in found and _comes_first(other, policy):
                found[policy] = other
                break
    return list(found.items())


def _comes_first(tight: QuotaPolicy, loose: QuotaPolicy) -> bool:
    """Return whether the tight policy refuses whatever the loose one would."""
    burst = _burst(tight)
    if loose.algorithm is Algorithm.TOKEN_BUCKET:
        is_slower = tight.requests * loose.period <= loose.requests * tight.period
        return is_slower and burst <= loose.capacity
    # In a period of the loose one, times that of the tight one. The estimate of a sliding window
    # counter is no more: what it counts of the window before is missing from what may still come.
    most = burst * tight.period + tight.requests * loose.period
    return most <= loose.requests * tight.period


def _burst(policy: QuotaPolicy) -> int:
    """Return what a policy lets through at once, above its rate.

    Two windows of a counter may be used up within an instant.
    """
    match policy.algorithm:
        case Algorithm.TOKEN_BUCKET | Algorithm.SLIDING_WINDOW_LOG:
            return policy.capacity
        case _:
            return 2 * policy.requests
