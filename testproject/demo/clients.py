"""The clients of the demo: who they are, what they send, and what must become of it."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from testproject.demo.screens import Screen

REFUSALS_WANTED = 10
"""A client that can be refused goes on until it was, so many times."""

PATIENCE_SECONDS = 120
"""How long it goes on before the demo gives up."""

PARALLEL = 4

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that a visit runs into, with what one request costs."""

    owner: str
    requests: int
    period: int
    capacity: int
    cost: int = 1

    def admitted(self, spent: int, seconds: float) -> tuple[int, int]:
        """Return how many requests must pass at least and may pass at most.

        At least what was left of the capacity; at most all of it and what comes back in so many
        seconds, which is evenly spread for token buckets and sliding window counters.
        """
        back = math.ceil(self.requests * seconds / self.period) + 1
        return max(0, self.capacity - spent) // self.cost, (self.capacity + back) // self.cost


@dataclass(frozen=True, slots=True)
class Visit:
    """What one client sends: `requests` yields the arguments of each request.

    Without limits it sends `most` requests, and every one of them must pass.
    """

    client: str
    what: str
    requests: Callable[[], Iterator[Arguments]]
    limits: tuple[Limit, ...] = ()
    most: int = 5000


@dataclass(slots=True)
class Tally:
    """What became of a visit."""

    visit: Visit
    seconds: float = 0.0
    admitted: int = 0
    refused: int = 0
    strange: list[str] = field(default_factory=list)
    refusal: httpx.Response | None = None

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return self.admitted + self.refused + len(self.strange)

    def add(self, response: httpx.Response) -> None:
        """Count one answer; a failed login was admitted, too."""
        if response.status_code == 429:
            self.refused += 1
            self.refusal = response
        elif response.status_code in (200, 401):
            self.admitted += 1
        else:
            self.strange.append(f"{response.status_code} {response.text[:200]}")

    def expected(self, spent: Mapping[str, int]) -> tuple[int, int]:
        """Return how many requests had to pass at least and at most, by the limits in force."""
        if not self.visit.limits:
            return self.sent, self.sent
        ranges = [
            limit.admitted(spent.get(limit.owner, 0), self.seconds) for limit in self.visit.limits
        ]
        least, most = (min(bounds) for bounds in zip(*ranges, strict=True))
        return min(least, self.sent), min(most, self.sent)

    @property
    def refused_by(self) -> str:
        """The policies that refused, as the header fields name them."""
        if self.refusal is None:
            return "-"
        wait = self.refusal.headers.get("Retry-After")
        fields = self.refusal.headers.get("RateLimit", "")
        named = re.findall(r'"([^"]*)";r=(\d+);t=(\d+)', fields)
        return ", ".join(name for name, _, t in named if t == wait) or "(not disclosed)"


def pay(url: str, visit: Visit, screen: Screen) -> Tally:
    """Send the requests of a visit, until enough were refused if it can be."""
    tally, label = Tally(visit), f"{visit.client}: {visit.what}"
    started = time.monotonic()
    requests = itertools.islice(visit.requests(), visit.most)
    with (
        httpx.Client(base_url=url, timeout=60, cookies=no_cookies()) as client,
        ThreadPoolExecutor(PARALLEL) as senders,
    ):
        while batch := list(itertools.islice(requests, PARALLEL * 2)):
            for response in senders.map(lambda arguments: client.request(**arguments), batch):
                tally.add(response)
            tally.seconds = time.monotonic() - started
            if tally.refused >= REFUSALS_WANTED or tally.seconds > PATIENCE_SECONDS:
                break
            screen.progress(label, tally.sent, _goal(visit))
    screen.progress(label, tally.sent, tally.sent)
    return tally


def no_cookies() -> CookieJar:
    """Return a jar that keeps nothing: who logs in is to stay a stranger on the next request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _goal(visit: Visit) -> int:
    if not visit.limits:
        return visit.most + 1
    least = min(limit.capacity // limit.cost for limit in visit.limits)
    return least + REFUSALS_WANTED + PARALLEL * 2
