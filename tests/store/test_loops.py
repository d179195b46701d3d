"""Many calls at once on one event loop."""

from __future__ import annotations

import asyncio
import gc
import sys
import time

import pytest
import redis

from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.loops import MOST_AT_ONCE
from django_ratelimit_tiers.store.redis import RedisStore
from tests.servers import ValkeyProcess, wait_until

LIMIT, CROWD = 500, 1_000

CHARGE = Charge("user:1", QuotaPolicy("p", LIMIT, 86_400, Algorithm.FIXED_WINDOW))


@pytest.mark.parametrize("opened_before", [0, MOST_AT_ONCE])
def test_a_crowd_is_decided_on_few_connections_and_blames_no_store(
    redis_url: str, valkey_client: redis.Redis, opened_before: int
) -> None:
    store = RedisStore(url=redis_url, timeout=0.5)

    async def request() -> bool:
        sum(range(20_000))  # what a request does before it is decided
        outcomes = await store.aacquire([CHARGE])
        return outcomes[0].allowed

    async def crowd() -> list[bool]:
        await asyncio.gather(*(store.acommand("PING") for _ in range(opened_before)))
        decided = await asyncio.gather(*(request() for _ in range(CROWD)))
        await store.aclose()
        return decided

    before = valkey_client.info("stats")["total_connections_received"]
    assert sum(asyncio.run(crowd())) == LIMIT
    opened = valkey_client.info("stats")["total_connections_received"] - before
    assert opened <= MOST_AT_ONCE


def test_a_loop_that_is_held_up_blames_no_store_that_answered(redis_url: str) -> None:
    store = RedisStore(url=redis_url, timeout=0.1)

    async def run() -> bool:
        await store.aacquire([CHARGE])  # the next call finds a connection
        call = asyncio.create_task(store.aacquire([CHARGE]))
        for _ in range(3):
            await asyncio.sleep(0)  # until it is sent
        time.sleep(0.3)
        outcomes = await call
        await store.aclose()
        return outcomes[0].allowed

    assert asyncio.run(run())


@pytest.mark.parametrize("opened_before", [0, MOST_AT_ONCE])
def test_a_crowd_waits_for_a_server_that_hangs_no_longer_than_one_call(opened_before: int) -> None:
    with ValkeyProcess() as server:
        store = RedisStore(url=server.url, timeout=5)

        async def run() -> tuple[set[type], float]:
            await asyncio.gather(*(store.aping() for _ in range(opened_before)))
            store.timeout = 0.5
            server.pause()
            begin = time.monotonic()
            calls = (store.aping() for _ in range(10 * MOST_AT_ONCE))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            return set(map(type, answers)), time.monotonic() - begin

        answers, took = asyncio.run(run())
        server.resume()
    assert answers == {StoreUnavailable}
    assert took < 2


def test_a_cancelled_call_costs_no_other_call_its_connection(
    redis_url: str, valkey_client: redis.Redis
) -> None:
    store = RedisStore(url=redis_url, timeout=5)

    def opened() -> int:
        return int(valkey_client.info("stats")["total_connections_received"])

    async def run() -> int:
        await asyncio.gather(*(store.aping() for _ in range(4)))
        before = opened()
        call = asyncio.create_task(store.aping())
        for _ in range(3):
            await asyncio.sleep(0)  # until it is sent
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.gather(*(store.aping() for _ in range(3)))
        await asyncio.to_thread(store.ping)
        await store.aclose()
        return opened() - before

    store.ping()
    assert asyncio.run(run()) == 0
    store.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_loops_that_are_closed_and_no_more_leave_no_connections(
    redis_url: str, valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the library's connections raise when they are collected would be kept for a report.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    store = RedisStore(url=redis_url, timeout=5)

    def connected() -> int:
        return int(valkey_client.info("clients")["connected_clients"])

    async def ping_and_close() -> None:
        await store.aping()
        await store.aclose()

    before = connected()
    for _ in range(10):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.aping())
        loop.close()
    del loop
    asyncio.run(ping_and_close())
    gc.collect()
    assert wait_until(lambda: connected() <= before, 5)
