"""What is the same for all requests under the same policies, and so worked out once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from django_ratelimit_tiers.core.consumption import MARKS
from django_ratelimit_tiers.core.policies import QuotaPolicy

DAY = 86_400


def short_at(policy: QuotaPolicy) -> int:
    """Return how many requests are left at the first mark of a day quota, -1 for any other."""
    if policy.period < DAY or not policy.is_enforced:
        return -1
    return policy.capacity * (100 - MARKS[0]) // 100


@dataclass(frozen=True, slots=True, eq=False)
class Quotas:
    """The policies of some charges, in their order.

    `told` are those that a client hears of when it is let in, with their places; None if two of
    them share a name, since then the numbers decide. `short_at` holds the place of each day quota,
    and how many requests are left at its first mark.
    """

    policies: tuple[QuotaPolicy, ...]
    told: tuple[tuple[int, QuotaPolicy], ...] | None = field(init=False)
    short_at: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        told = [(at, p) for at, p in enumerate(self.policies) if p.is_enforced and p.disclose]
        are_apart = len({policy.name for _, policy in told}) == len(told)
        object.__setattr__(self, "told", tuple(told) if are_apart else None)
        marks = enumerate(map(short_at, self.policies))
        object.__setattr__(self, "short_at", tuple(mark for mark in marks if mark[1] >= 0))


@lru_cache(maxsize=4096)
def together(one: Quotas, other: Quotas) -> Quotas:
    """Return the policies of both, as those of the two stages of a request."""
    return Quotas(one.policies + other.policies)
