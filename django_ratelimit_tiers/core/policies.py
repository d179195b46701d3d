"""Quota policies and the charges made against them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple, NoReturn

from django_ratelimit_tiers.core.consumption import MARKS
from django_ratelimit_tiers.core.strings import quoted

DAY = 86_400
"""Seconds in a day."""

MICROSECONDS = 1_000_000
"""Microseconds in a second: policies speak in seconds, counters in microseconds."""

MAX_REQUESTS = 1_000_000_000
"""The largest limit, burst or cost: keeps every product exact in the store's arithmetic."""

MAX_LOG_REQUESTS = 100_000
"""The largest limit of a sliding window log, which keeps one entry for each request."""

MAX_PERIOD = 366 * 86_400
"""The longest period, in seconds."""


class Algorithm(StrEnum):
    """How requests are counted."""

    FIXED_WINDOW = "fixed_window"
    SLIDING_WINDOW_LOG = "sliding_window_log"
    SLIDING_WINDOW_COUNTER = "sliding_window_counter"
    TOKEN_BUCKET = "token_bucket"  # noqa: S105 - no password


class Mode(StrEnum):
    """What a policy does: refuse, only record what it would refuse, or nothing."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class QuotaPolicy:
    """So many requests in a period, counted by an algorithm.

    `period` is in seconds; `burst` is the capacity of a token bucket (default: `requests`).
    Policies with the same `counter` (default: the name), period and algorithm share what a subject
    has used, whatever their limits: so an edited limit keeps the usage. With `disclose` off no
    number of this policy is told to clients. Raises ValueError for numbers no counter can hold.

    `quoted` is the name and `told` the whole policy as the field `RateLimit-Policy` has them.
    `short_at` is how many requests are left at the first mark of a day quota, -1 for any other.
    """

    name: str
    requests: int
    period: int
    algorithm: Algorithm = Algorithm.SLIDING_WINDOW_COUNTER
    burst: int | None = None
    mode: Mode = Mode.ENFORCE
    counter: str = ""
    disclose: bool = True
    capacity: int = field(init=False, repr=False, compare=False)
    window: int = field(init=False, repr=False, compare=False)
    counter_id: bytes = field(init=False, repr=False, compare=False)
    is_enforced: bool = field(init=False, repr=False, compare=False)
    quoted: str = field(init=False, repr=False, compare=False)
    told: str = field(init=False, repr=False, compare=False)
    short_at: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        algorithm = Algorithm(self.algorithm)
        for problem in policy_problems(self.requests, self.period, algorithm, self.burst):
            raise ValueError(f"policy {self.name!r}: {problem.field} {problem.message}")
        put = object.__setattr__  # derived once here: they are read for every charge
        put(self, "algorithm", algorithm)
        put(self, "mode", Mode(self.mode))
        put(self, "is_enforced", self.mode is Mode.ENFORCE)
        put(self, "capacity", self.burst or self.requests)
        put(self, "window", self.period * MICROSECONDS)
        put(self, "counter_id", counter_id(self.counter or self.name, self.period, algorithm))
        put(self, "quoted", quoted(self.name))
        burst = "" if self.capacity == self.requests else f";drt-burst={self.capacity}"
        put(self, "told", f"{self.quoted};q={self.requests};w={self.period}{burst}")
        is_day_quota = self.period >= DAY and self.is_enforced
        put(self, "short_at", self.capacity * (100 - MARKS[0]) // 100 if is_day_quota else -1)

    def __hash__(self) -> int:
        return hash(self.counter_id)  # bytes remember theirs: policies are looked up often


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """What is wrong with one field of a policy, in words that follow the field's name."""

    field: str
    message: str


def policy_problems(
    requests: int, period: int, algorithm: Algorithm, burst: int | None
) -> list[PolicyProblem]:
    """Return everything that makes these numbers impossible, empty when they can be a policy."""
    problems = []
    most = MAX_LOG_REQUESTS if algorithm is Algorithm.SLIDING_WINDOW_LOG else MAX_REQUESTS
    if not 1 <= requests <= most:
        problems.append(PolicyProblem("requests", f"must be from 1 to {most:,}"))
    if not 1 <= period <= MAX_PERIOD:
        problems.append(PolicyProblem("period", f"must be from 1 to {MAX_PERIOD:,} seconds"))
    if burst is None or problems:
        return problems
    if algorithm is not Algorithm.TOKEN_BUCKET:
        problems.append(PolicyProblem("burst", "is only for the token bucket: leave it empty"))
    elif not 1 <= burst <= MAX_REQUESTS:
        problems.append(PolicyProblem("burst", f"must be from 1 to {MAX_REQUESTS:,}"))
    elif burst * period > requests * MAX_PERIOD:
        problems.append(PolicyProblem("burst", "would take more than 366 days to refill"))
    return problems


def whole_seconds(microseconds: int) -> int:
    """Return a wait in seconds, rounded up: a client that comes earlier is refused."""
    return -(-microseconds // MICROSECONDS)


def counter_id(counter: str, period: int, algorithm: Algorithm) -> bytes:
    """Return the 8 bytes that name a counter within its subject's value.

    The number and the enum come first and hold no separator, so no two counters are written alike.
    """
    name = f"{period}:{algorithm.value}:{counter}".encode(errors="surrogatepass")
    return blake2b(name, digest_size=8).digest()


class _Charge(NamedTuple):
    subject: str
    policy: QuotaPolicy
    cost: int


class Charge(_Charge):
    """One policy to be spent for one subject at a cost; a cost of 0 only looks.

    Raises ValueError for a cost that no counter can hold.
    """

    __slots__ = ()

    def __new__(cls, subject: str, policy: QuotaPolicy, cost: int = 1) -> Charge:
        if not 0 <= cost <= MAX_REQUESTS:
            raise ValueError(f"cost must be from 0 to {MAX_REQUESTS:,}, not {cost}")
        return super().__new__(cls, subject, policy, cost)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse as a frozen dataclass, such as a policy, does."""
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
