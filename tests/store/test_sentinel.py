"""The store behind sentinels, by way of django-redis's own sentinel client."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.test import Client, override_settings
from redis import ConnectionPool

from django_ratelimit_tiers.core.policies import MAX_PERIOD, Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.connections import Server
from django_ratelimit_tiers.store.redis import RedisStore
from django_ratelimit_tiers.store.sentinels import Sentinels
from tests.policies import limit_tier
from tests.servers import HOST, ValkeyProcess, wait_until
from tests.store.test_tls import certificate as certificate
from tests.store.test_tls import terminated
from tests.store.topologies import SERVICE, Sentinel, Watched

LIMIT = QuotaPolicy("any", 1000, MAX_PERIOD, Algorithm.FIXED_WINDOW)
CHARGE = Charge("user:1", LIMIT)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as watched:
        yield watched


@pytest.fixture
def cache(watched: Watched) -> Iterator[None]:
    """A cache alias that is served by whichever server the sentinels name."""
    options: dict[str, Any] = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": watched.addresses,
    }
    location = f"redis://{SERVICE}/0?test={watched.primary.port}"
    setting = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": location,
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": setting}):
        yield
        caches["default"].close()


def used(store: RedisStore) -> int:
    return LIMIT.requests - store.peek([CHARGE])[0].remaining


def answers(store: RedisStore) -> bool:
    try:
        store.acquire([CHARGE])
    except StoreUnavailable:
        return False
    return True


@pytest.mark.usefixtures("cache")
def test_the_primary_is_found_and_found_again_after_it_was_lost(watched: Watched) -> None:
    store = RedisStore(cache_alias="default", timeout=2)
    store.acquire([CHARGE])
    with watched.primary.client() as client:
        client.wait(1, 5000)
    watched.primary.kill()
    assert not answers(store)
    assert wait_until(lambda: answers(store), 30)
    assert used(store) == 2
    with watched.replica.client() as client:
        assert client.info("replication")["role"] == "master"
    store.close()


@pytest.mark.usefixtures("cache")
def test_the_primary_is_found_on_an_event_loop(watched: Watched) -> None:
    async def outlive_the_primary() -> list[int]:
        store = RedisStore(cache_alias="default", timeout=2)
        seen = [(await store.aacquire([CHARGE]))[0].remaining]
        with watched.primary.client() as client:
            client.wait(1, 5000)
        watched.primary.kill()
        for _ in range(300):
            try:
                seen.append((await store.aacquire([CHARGE]))[0].remaining)
                break
            except StoreUnavailable:
                await asyncio.sleep(0.1)
        await store.aclose()
        return seen

    assert asyncio.run(outlive_the_primary()) == [999, 998]


@pytest.mark.usefixtures("cache")
def test_a_primary_that_hangs_is_replaced_and_left(watched: Watched) -> None:
    store = RedisStore(cache_alias="default", timeout=0.5)
    store.acquire([CHARGE])
    watched.primary.pause()
    assert not answers(store)
    assert wait_until(lambda: answers(store), 30)
    watched.primary.resume()
    assert [answers(store) for _ in range(5)] == [True] * 5
    store.close()


@pytest.mark.usefixtures("cache")
def test_a_primary_that_is_demoted_is_left(watched: Watched) -> None:
    store = RedisStore(cache_alias="default", timeout=2)
    store.acquire([CHARGE])
    with watched.sentinels[0].client() as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)

    def is_replica() -> bool:
        # A primary that is demoted closes all connections.
        with watched.primary.client() as client, suppress(redis.ConnectionError):
            return bool(client.info("replication")["role"] == "slave")
        return False

    assert wait_until(is_replica, 60)
    assert wait_until(lambda: answers(store), 60)
    store.close()


@pytest.mark.usefixtures("cache")
def test_sentinels_that_hang_or_are_gone_leave_time_for_the_one_that_answers(
    watched: Watched,
) -> None:
    watched.sentinels[0].pause()
    watched.sentinels[1].kill()
    store = RedisStore(cache_alias="default", timeout=2)
    assert answers(store)
    store.close()
    watched.sentinels[0].resume()


@pytest.mark.parametrize("place", [0, 2])
def test_a_sentinel_that_answers_with_an_error_leaves_it_to_the_others(
    watched: Watched, valkey: ValkeyProcess, place: int
) -> None:
    pool = ConnectionPool.from_url(watched.primary.url)
    addresses = watched.addresses
    addresses[place] = HOST, valkey.port  # it is no sentinel, and knows no such command
    sentinels = [Server(pool, host=host, port=port) for host, port in addresses]
    server = Server(pool, Sentinels(SERVICE, sentinels))

    async def ask() -> bytes:
        try:
            return await server.arun(("PING",), time.monotonic() + 5)  # type: ignore[no-any-return]
        finally:
            for one in (server, *sentinels):
                await one.aclose()

    assert server.run(("PING",), time.monotonic() + 5) == b"PONG"
    assert [asyncio.run(ask()) for _ in range(3)] == [b"PONG"] * 3
    for one in (server, *sentinels):
        one.close()


def test_a_sentinel_that_has_lost_touch_does_not_hide_what_the_others_know(
    watched: Watched,
) -> None:
    with ValkeyProcess() as former, Sentinel(former) as alone:
        former.kill()
        pool = ConnectionPool.from_url(watched.primary.url)
        addresses = [(HOST, alone.port), *watched.addresses]
        library = redis.Sentinel(addresses)
        known = HOST, watched.primary.port
        assert wait_until(lambda: library.discover_master(SERVICE) == known, 30)

        def server() -> Server:
            sentinels = [Server(pool, host=host, port=port) for host, port in addresses]
            return Server(pool, Sentinels(SERVICE, sentinels))

        async def ask(number: int) -> list[bool]:
            of_loop, pings = server(), []
            for _ in range(number):
                try:
                    pings.append(await of_loop.arun(("PING",), time.monotonic() + 5) == b"PONG")
                except StoreUnavailable:
                    pings.append(False)
                await of_loop.aclose()
            return pings

        of_threads = server()
        with pytest.raises(StoreUnavailable):
            of_threads.run(("PING",), time.monotonic() + 5)
        assert of_threads.run(("PING",), time.monotonic() + 5) == b"PONG"
        of_threads.close()
        assert (False, False) not in pairwise(asyncio.run(ask(10)))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs a certificate")
def test_sentinels_are_asked_over_tls_by_threads_and_event_loops(
    watched: Watched, certificate: Path
) -> None:
    with ExitStack() as stack:
        ports = [stack.enter_context(terminated(certificate, s.port)) for s in watched.sentinels]
        options: dict[str, Any] = {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [(HOST, port) for port in ports],
            "SENTINEL_KWARGS": {"ssl": True, "ssl_ca_certs": str(certificate)},
        }
        setting = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://{SERVICE}/0?tls={watched.primary.port}",
            "OPTIONS": options,
        }
        with override_settings(CACHES={"default": setting}):
            store = RedisStore(cache_alias="default", timeout=5)

            async def charge() -> int:
                try:
                    return (await store.aacquire([CHARGE]))[0].remaining
                finally:
                    await store.aclose()

            assert store.acquire([CHARGE])[0].remaining == 999
            assert asyncio.run(charge()) == 998
            store.close()
            caches["default"].close()


@pytest.mark.django_db
@pytest.mark.urls("tests.site")
@pytest.mark.usefixtures("cache")
def test_a_site_limits_behind_sentinels() -> None:
    limit_tier("anonymous", 2)
    with override_settings(RATELIMIT_TIERS={"STORE_TIMEOUT": 2}):
        assert [Client().get("/plain/").status_code for _ in range(3)] == [200, 200, 429]
        configured_store().close()  # type: ignore[attr-defined]
