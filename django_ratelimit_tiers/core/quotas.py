"""What is the same for all requests under the same policies, and so worked out once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from django_ratelimit_tiers.core.policies import QuotaPolicy


@dataclass(frozen=True, slots=True, eq=False)
class Quotas:
    """The policies of some charges, in their order.

    `places` are those of the policies that a client hears of when it is let in, and `told` is what
    it hears of them whatever the numbers; None if two of them share a name, since then the numbers
    decide. `short_at` holds the place of each day quota, and how many requests are left at its
    first mark.
    """

    policies: tuple[QuotaPolicy, ...]
    places: tuple[int, ...] = field(init=False)
    told: str | None = field(init=False)
    short_at: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        told = [(at, p) for at, p in enumerate(self.policies) if p.is_enforced and p.disclose]
        are_apart = len({policy.name for _, policy in told}) == len(told)
        put(self, "places", tuple(at for at, _ in told))
        put(self, "told", ", ".join(policy.told for _, policy in told) if are_apart else None)
        marks = ((place, policy.short_at) for place, policy in enumerate(self.policies))
        put(self, "short_at", tuple(mark for mark in marks if mark[1] >= 0))


@lru_cache(maxsize=4096)
def together(one: Quotas, other: Quotas) -> Quotas:
    """Return the policies of both, as those of the two stages of a request."""
    return Quotas(one.policies + other.policies)
