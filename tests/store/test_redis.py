"""The traps below the store: script caches, protocols, pools, retries, forks, idle sockets."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis
from django.test import override_settings
from django_redis import get_redis_connection
from redis.credentials import CredentialProvider

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.exceptions import RateLimitTiersError, StoreUnavailable
from django_ratelimit_tiers.store import connections, examination
from django_ratelimit_tiers.store.examination import examine_server
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.redis import RedisStore
from tests.servers import HOST, ROOT, ValkeyProcess
from tests.store.counting import CountingProxy

POLICY = QuotaPolicy("p", 100, 86_400, Algorithm.FIXED_WINDOW)
CHARGE = Charge("user:1", POLICY)

DAY = 86_400_000_000
"""In microseconds."""

Call = Callable[..., Any]


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore(url=redis_url, timeout=10)
    yield store
    store.close()


@pytest.fixture(scope="module")
def private() -> Iterator[ValkeyProcess]:
    """A server that may be paused."""
    with ValkeyProcess() as server:
        yield server


def remaining(store: RedisStore) -> int:
    return store.peek([CHARGE])[0].remaining


def caches(**aliases: dict[str, Any]) -> Any:
    backend = {"BACKEND": "django_redis.cache.RedisCache"}
    return override_settings(CACHES={alias: backend | own for alias, own in aliases.items()})


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_client_refused_since_the_clock_went_back_is_told_when_it_passes(
    store: RedisStore, algorithm: Algorithm
) -> None:
    """The clock was a day ahead for a moment, as after a failover to a server that is not set."""
    charges = [Charge("user:1", QuotaPolicy("p", 2, 60, algorithm))]
    now = 1_790_000_007_000_000
    for at in (now + DAY, now):
        assert store.acquire(charges, now=at)[0].allowed
    wait = store.acquire(charges, now=now)[0].retry_after
    assert wait is not None
    assert wait >= DAY
    assert not store.acquire(charges, now=now + wait - 1)[0].allowed
    assert store.acquire(charges, now=now + wait)[0].allowed


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_can_never_pass_is_told_one_period_though_the_clock_went_back(
    store: RedisStore, algorithm: Algorithm
) -> None:
    policy, now = QuotaPolicy("p", 2, 60, algorithm), 1_790_000_007_000_000
    for counters in (store, MemoryStore()):
        assert counters.acquire([Charge("user:1", policy)], now=now + DAY)[0].allowed
        (outcome,) = counters.acquire([Charge("user:1", policy, cost=3)], now=now)
        assert outcome.retry_after == 60_000_000


def test_a_flushed_script_cache_costs_one_more_command_and_no_charge(
    valkey: ValkeyProcess, valkey_client: redis.Redis
) -> None:
    with CountingProxy(valkey.port) as proxy:
        store = RedisStore(url=proxy.url, timeout=10)
        store.acquire([CHARGE])
        valkey_client.script_flush()
        proxy.clear()
        assert store.acquire([CHARGE])[0].remaining == 98
        assert store.acquire([CHARGE])[0].remaining == 97
        names = [command[0] for command in proxy.commands]
        store.close()
    assert names == [b"EVALSHA", b"EVAL", b"EVALSHA"]


def test_every_script_recovers_from_a_flush_on_an_event_loop(
    store: RedisStore, valkey_client: redis.Redis
) -> None:
    async def run() -> None:
        for call in (
            store.aacquire([CHARGE]),
            store.aacquire([CHARGE]),
            store.arefund([CHARGE]),
            store.areset("user:2"),
        ):
            valkey_client.script_flush()
            await call

    asyncio.run(run())
    assert remaining(store) == 99


@pytest.mark.parametrize("version", ["2", "3"])
@pytest.mark.parametrize("by", ["url", "alias"])
def test_the_configured_protocol_version_changes_no_answer(
    redis_url: str, version: str, by: str
) -> None:
    url = f"{redis_url}?protocol={version}"
    with caches(default={"LOCATION": url}):
        store = RedisStore(url=url) if by == "url" else RedisStore(cache_alias="default")
        store.timeout = 10
        policies = [QuotaPolicy(name, 5, 60, name) for name in Algorithm]
        charges = [Charge("user:1", policy) for policy in policies]
        assert [outcome.remaining for outcome in store.acquire(charges)] == [4] * 4
        assert isinstance(store.revision(), str)
        outcomes = asyncio.run(store.aacquire(charges))
        assert [outcome.remaining for outcome in outcomes] == [3] * 4
        store.close()


def test_an_alias_that_shares_its_url_with_another_keeps_the_stores_own_timeout(
    private: ValkeyProcess,
) -> None:
    slow = {"LOCATION": private.url, "OPTIONS": {"SOCKET_TIMEOUT": 60}}
    with caches(default=slow, limits={"LOCATION": private.url}):
        store = RedisStore(cache_alias="limits", timeout=0.2)
        private.pause()
        try:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.acquire([CHARGE])
            with pytest.raises(StoreUnavailable):
                asyncio.run(store.aacquire([CHARGE]))
            assert time.monotonic() - started < 5
        finally:
            private.resume()
            store.close()


def test_a_charge_whose_answer_was_late_is_never_sent_again(private: ValkeyProcess) -> None:
    with caches(default={"LOCATION": private.url}):
        store = RedisStore(cache_alias="default", timeout=0.2)
        store.ping()
        private.pause()
        with pytest.raises(StoreUnavailable):
            store.acquire([CHARGE])
        private.resume()
        store.timeout = 10
        assert remaining(store) >= 99
        store.close()


def test_a_pool_that_the_cache_has_exhausted_does_not_starve_the_store(redis_url: str) -> None:
    options = {"CONNECTION_POOL_KWARGS": {"max_connections": 1}}
    location = f"{redis_url}?client_name=exhausted"  # django-redis keeps one pool for each URL
    with caches(default={"LOCATION": location, "OPTIONS": options}):
        store = RedisStore(cache_alias="default", timeout=10)
        pool = get_redis_connection("default").connection_pool
        holder = redis.Redis(connection_pool=pool, single_connection_client=True)
        with pytest.raises(redis.ConnectionError):
            get_redis_connection("default").ping()
        assert store.acquire([CHARGE])[0].allowed
        holder.close()
        pool.disconnect()
        store.close()


def test_every_key_has_a_time_to_live(store: RedisStore, valkey_client: redis.Redis) -> None:
    store.revision()
    store.announce_policy()
    store.announce_subjects(["user:1", "key:2"])
    for algorithm in Algorithm:
        policy = QuotaPolicy("p", 1, 60, algorithm)
        shadow = QuotaPolicy("s", 1, 60, algorithm, mode=Mode.SHADOW)
        charges = (Charge("user:1", policy), Charge("all", shadow))
        for now in (None, 1):
            plan = Plan(charges, now=now, labels=("p\0t\0GET /", "s\0t\0GET /"))
            store.execute(plan)
            store.execute(plan)
        store.refund(charges)
    keys = list(valkey_client.scan_iter())
    assert len(keys) >= 6
    assert [key for key in keys if valkey_client.ttl(key) < 1] == []


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_was_charged_is_given_back_without_saying_when(
    store: RedisStore, algorithm: Algorithm
) -> None:
    charge = Charge("user:1", QuotaPolicy("p", 9, 86_400, algorithm), cost=2)
    store.acquire([charge])
    store.acquire([charge])
    store.refund([charge])
    assert store.peek([charge])[0].remaining == 7


def test_a_refund_that_gives_nothing_leaves_a_log_for_a_clock_that_goes_back(
    store: RedisStore,
) -> None:
    charge = Charge("user:1", QuotaPolicy("p", 5, 60, Algorithm.SLIDING_WINDOW_LOG))
    now = 1_000_000_000
    store.acquire([charge], now=now)
    store.refund([charge], now=now + 2 * charge.policy.window)
    assert store.peek([charge], now=now + 1)[0].remaining == 4


@pytest.mark.parametrize(
    "name", ["user:1}", "{user:1}", "a:b", "*", "\N{SNOWMAN}", "\0", "x" * 300]
)
def test_any_subject_is_one_key_and_one_client(
    store: RedisStore, valkey_client: redis.Redis, name: str
) -> None:
    assert store.acquire([Charge(name, POLICY)])[0].remaining == 99
    assert store.peek([Charge("other", POLICY)])[0].remaining == 100
    store.reset(name)
    assert valkey_client.dbsize() == 0


def test_a_key_of_another_type_is_one_subjects_matter(
    store: RedisStore, valkey_client: redis.Redis
) -> None:
    key = store.protocol.counters_key("user:1")
    valkey_client.rpush(key, "not ours")
    with suppress(RateLimitTiersError):
        store.acquire([CHARGE])
    assert store.acquire([Charge("user:2", POLICY)])[0].remaining == 99
    valkey_client.delete(key)
    assert store.acquire([CHARGE])[0].allowed


@pytest.mark.parametrize("rubbish", [b"", b"x", b"\xff" * 29, b"\0" * 1000])
def test_rubbish_in_a_counter_does_not_outlive_the_next_charge(
    store: RedisStore, valkey_client: redis.Redis, rubbish: bytes
) -> None:
    valkey_client.set(store.protocol.counters_key("user:1"), rubbish)
    assert store.acquire([CHARGE])[0].remaining == 99
    assert store.acquire([CHARGE])[0].remaining == 98


def test_a_connection_that_the_server_closed_while_idle_is_not_used(
    store: RedisStore, valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0)
    store.acquire([CHARGE])
    valkey_client.client_kill_filter(_type="normal", skipme=True)
    assert store.acquire([CHARGE])[0].remaining == 98

    async def run() -> int:
        await store.aacquire([CHARGE])
        valkey_client.client_kill_filter(_type="normal", skipme=True)
        return (await store.aacquire([CHARGE]))[0].remaining

    assert asyncio.run(run()) == 96


FORKING = """
import os, sys
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.store.redis import RedisStore

store = RedisStore(url=sys.argv[1], timeout=30)
charge = Charge("user:1", QuotaPolicy("p", 1000, 86_400, "fixed_window"))
store.acquire([charge])
child = os.fork()
told = [store.acquire([charge])[0].remaining for _ in range(200)]
assert told == sorted(told, reverse=True), told
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(store.peek([charge])[0].remaining)
"""


def test_a_forked_process_has_connections_of_its_own(redis_url: str) -> None:
    command = [sys.executable, "-c", FORKING, redis_url]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.stderr) == ("599\n", "")


def litter(number: int) -> int:
    """Make so many objects that what can be collected is collected."""
    return len([{number: [turn, {}]} for turn in range(300_000)])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_process_pool_does_not_deafen_the_connections_of_an_event_loop(redis_url: str) -> None:
    async def run() -> list[int]:
        store, told = RedisStore(url=redis_url, timeout=5), []
        for number in range(3):
            await asyncio.gather(*(store.aping() for _ in range(3)))
            with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
                await asyncio.get_running_loop().run_in_executor(pool, litter, number)
            told.append((await store.aacquire([CHARGE]))[0].remaining)
        await store.aclose()
        return told

    assert asyncio.run(run()) == [99, 98, 97]


@pytest.mark.parametrize("options", [{}, {"url": "redis://", "cache_alias": "default"}])
def test_a_store_has_exactly_one_address(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either cache_alias or url"):
        RedisStore(**options)


def test_a_server_that_is_not_there_is_named_and_nothing_else_is_raised() -> None:
    store = RedisStore(url=f"redis://{HOST}:1/0", timeout=1)
    calls: list[Call] = [store.ping, store.revision, store.announce_policy]
    calls += [lambda: store.acquire([CHARGE]), lambda: store.refund([CHARGE])]
    calls += [lambda: store.reset("a"), lambda: asyncio.run(store.aacquire([CHARGE]))]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()


class NoToken(CredentialProvider):
    """A provider of passwords that has none."""

    def get_credentials(self) -> tuple[str, str]:
        raise LookupError("no token")


def test_a_password_that_cannot_be_told_is_a_server_that_is_not_there(redis_url: str) -> None:
    pool = {"CONNECTION_POOL_KWARGS": {"credential_provider": NoToken()}}
    location = f"{redis_url}?client_name=no-token"  # django-redis keeps one pool for each URL
    with caches(default={"LOCATION": location, "OPTIONS": pool}):
        store = RedisStore(cache_alias="default", timeout=5)
        for call in (store.ping, lambda: asyncio.run(store.aping())):
            with pytest.raises(StoreUnavailable, match="LookupError: no token"):
                call()
        assert [finding.is_wrong for finding in store.examine()] == [True]


@pytest.mark.parametrize("host", ["cache..internal", "a" * 70 + ".internal"])
def test_a_name_that_can_be_none_is_a_server_that_is_not_there(host: str) -> None:
    store = RedisStore(url=f"redis://{host}/0", timeout=5)
    for call in (store.ping, lambda: asyncio.run(store.aping())):
        with pytest.raises(StoreUnavailable):
            call()


def test_two_that_make_the_first_revision_at_once_agree_on_it(
    store: RedisStore, valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = store.command

    def command(*words: Any) -> Any:
        answer = usual(*words)
        if words[0] == "GET" and answer is None:
            valkey_client.set(store.protocol.revision_key, "of-another")
        return answer

    monkeypatch.setattr(store, "command", command)
    assert store.revision() == "of-another"


@pytest.mark.parametrize(("share", "is_wrong"), [(0.24, False), (0.5, True)])
def test_a_server_that_takes_more_than_a_quarter_of_the_timeout_is_named(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, share: float, is_wrong: bool
) -> None:
    monkeypatch.setattr(examination, "_latency", lambda _: share * 0.1)
    findings = list(examine_server(store, store.command, 0.1))
    assert findings[0].is_wrong is is_wrong
