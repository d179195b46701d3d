"""The libraries that limit without a framework, each asked once for one limit of one subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import redis
from django_smart_ratelimit.backends import get_backend
from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)
from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
from throttled import RateLimiterType, Throttled, rate_limiter
from throttled.store import RedisStore

MANY = 1_000_000
MINUTE, DAY = RateLimitItemPerMinute(MANY), RateLimitItemPerDay(100 * MANY)
BUCKETS = 100

Hit = Callable[[int], object]


def peers(url: str, subjects: int) -> Iterator[tuple[str, Hit]]:
    """Yield names and functions, which charge the subject of a running number."""
    storage = RedisStorage(url)
    for name, strategy in {
        "fixed window": FixedWindowRateLimiter(storage),
        "sliding window counter": SlidingWindowCounterRateLimiter(storage),
        "moving window": MovingWindowRateLimiter(storage),
    }.items():
        yield f"limits, {name}, 1 limit", _one(strategy, name, subjects)
        if name != "moving window":
            yield f"limits, {name}, 2 limits", _two(strategy, name, subjects)
    store = RedisStore(server=url)
    for using in (RateLimiterType.FIXED_WINDOW, RateLimiterType.TOKEN_BUCKET):
        yield (
            f"throttled-py, {using.value.replace('_', ' ')}, 1 limit",
            _throttled(store, using, subjects),
        )
    yield "pyrate-limiter, 1 limit", _pyrate(url, [Rate(MANY, Duration.MINUTE)], "one")
    rates = [Rate(MANY, Duration.MINUTE), Rate(100 * MANY, Duration.DAY)]
    yield "pyrate-limiter, 2 limits", _pyrate(url, rates, "two")
    backend = get_backend("redis")
    yield (
        "django-smart-ratelimit store, 1 limit",
        lambda number: backend.incr(f"bench:{number % subjects}", 60),
    )


def _one(strategy: RateLimiter, name: str, subjects: int) -> Hit:
    return lambda number: strategy.hit(MINUTE, "one", name, str(number % subjects))


def _two(strategy: RateLimiter, name: str, subjects: int) -> Hit:
    def hit(number: int) -> bool:
        subject = "two", name, str(number % subjects)
        return strategy.hit(MINUTE, *subject) and strategy.hit(DAY, *subject)

    return hit


def _throttled(store: RedisStore, using: RateLimiterType, subjects: int) -> Hit:
    throttled = Throttled(using=using.value, quota=rate_limiter.per_min(MANY), store=store)
    return lambda number: throttled.limit(f"bench:{number % subjects}")


def _pyrate(url: str, rates: list[Rate], name: str) -> Hit:
    client = redis.Redis.from_url(url)
    limiters = [
        Limiter(RedisBucket.init(rates, client, f"pyrate:{name}:{number}"))
        for number in range(BUCKETS)
    ]
    return lambda number: limiters[number % BUCKETS].try_acquire("bench", blocking=False)
