"""What the processes of the concurrency tests run; it needs no Django settings."""

from __future__ import annotations

from multiprocessing.connection import Connection
from threading import Barrier, Thread

from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.store.redis import RedisStore

THREADS = 4


def take(url: str, shares: list[int], now: int, pipe: Connection) -> None:
    """For each policy sent through the pipe make so many requests, all threads at once.

    The remaining requests that every admitted one was told are sent back.
    """
    store = RedisStore(url=url, timeout=60)
    store.ping()
    pipe.send("ready")
    while (policy := pipe.recv()) is not None:
        told: list[int] = []
        start = Barrier(len(shares))
        threads = [Thread(target=_spend, args=(store, policy, n, now, start, told)) for n in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pipe.send(told)
    store.close()


def _spend(
    store: RedisStore, policy: QuotaPolicy, times: int, now: int, start: Barrier, told: list[int]
) -> None:
    start.wait()
    for _ in range(times):
        (outcome,) = store.acquire([Charge("user:1", policy)], now=now)
        if outcome.allowed:
            told.append(outcome.remaining)
