"""What a policy would have done to requests of the past."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from django_ratelimit_tiers.core.policies import MICROSECONDS, QuotaPolicy

LATE = 60 * MICROSECONDS
"""How much earlier than the latest one a request is not late yet: servers log when requests end."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A policy with the tier or the rule that it is of; the name of the other is empty."""

    policy: QuotaPolicy
    tier: str
    rule: str


@dataclass(slots=True)
class ClientCount:
    """The requests of one client; `first_refused` is in microseconds since the epoch."""

    requests: int = 0
    refused: int = 0
    first_refused: int | None = None


@dataclass(slots=True)
class Replay:
    """What one policy has decided so far.

    `first` and `last` are when requests were made, in microseconds since the epoch, and `late` is
    how many came more than a minute after one that was made later. `clients` are by subject.
    `limits` has how often each policy refused whom, or would have in shadow mode; `endpoints` has
    how many requests to each were refused.
    """

    first: int = 0
    last: int = 0
    late: int = 0
    exempt: int = 0
    clients: dict[str, ClientCount] = field(default_factory=dict)
    limits: dict[Limit, Counter[str]] = field(default_factory=dict)
    endpoints: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many requests were decided."""
        return sum(client.requests for client in self.clients.values())

    @property
    def refused(self) -> int:
        """How many of them were refused."""
        return sum(client.refused for client in self.clients.values())

    @property
    def refused_clients(self) -> frozenset[str]:
        """The clients that were refused at least once."""
        return frozenset(name for name, client in self.clients.items() if client.refused)

    def add(
        self, at: int, client: str, is_exempt: bool, refusals: Iterable[tuple[Limit, str]]
    ) -> None:
        """Add the decision of a client's request at a time in microseconds since the epoch.

        `refusals` are the limits that are counted, and at which endpoint.
        """
        if not self.clients:
            self.first = self.last = at
        self.late += at < self.last - LATE
        self.first, self.last = min(self.first, at), max(self.last, at)
        self.exempt += is_exempt
        count = self.clients.setdefault(client, ClientCount())
        count.requests += 1
        for limit, endpoint in refusals:
            self.limits.setdefault(limit, Counter())[client] += 1
            if limit.policy.is_enforced:
                self.endpoints[endpoint] += 1
                count.refused += 1
                count.first_refused = at if count.first_refused is None else count.first_refused
