"""Every way in which a server fails: what is answered meanwhile, at what cost, and afterwards."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync, sync_to_async
from django.test import AsyncClient, Client

from tests import site
from tests.faults.conftest import LIMIT, Break, Site
from tests.faults.proxies import one_byte_at_a_time, reset_in_the_middle, whole
from tests.servers import HOST, free_port, wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

NUMBERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit")

Mend = Callable[[], object]


def ask(faulty: Site, *words: str | int) -> Any:
    with faulty.server.client() as client:
        return client.execute_command(*words)


def hang(faulty: Site) -> Mend:
    faulty.server.pause()
    return faulty.server.resume


def refuse_connections(faulty: Site) -> Mend:
    faulty.proxy.refuse()
    return faulty.proxy.listen


def drop_the_connection(faulty: Site) -> Mend:
    faulty.proxy.refuse()
    listener = socket.create_server((HOST, faulty.proxy.port))
    stop = threading.Event()

    def hang_up() -> None:
        with suppress(OSError):
            while not stop.is_set():
                listener.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()

    def mend() -> None:
        stop.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        faulty.proxy.listen()

    return mend


def reset_replies(faulty: Site) -> Mend:
    faulty.proxy.reply = reset_in_the_middle
    return lambda: setattr(faulty.proxy, "reply", whole)


def dribble_replies(faulty: Site) -> Mend:
    faulty.proxy.reply = one_byte_at_a_time
    return lambda: setattr(faulty.proxy, "reply", whole)


def run_out_of_memory(faulty: Site) -> Mend:
    ask(faulty, "CONFIG", "SET", "maxmemory", 1)
    return lambda: ask(faulty, "CONFIG", "SET", "maxmemory", 0)


def become_a_replica(faulty: Site) -> Mend:
    ask(faulty, "REPLICAOF", HOST, free_port())
    return lambda: ask(faulty, "REPLICAOF", "NO", "ONE")


def become_a_stale_replica(faulty: Site) -> Mend:
    ask(faulty, "CONFIG", "SET", "replica-serve-stale-data", "no")
    mend = become_a_replica(faulty)
    return lambda: (mend(), ask(faulty, "CONFIG", "SET", "replica-serve-stale-data", "yes"))


def load(faulty: Site) -> Mend:
    with faulty.server.client() as client:
        client.mset({f"filler:{number}": "x" for number in range(20_000)})
    ask(
        faulty,
        "CONFIG",
        "SET",
        "key-load-delay",
        100,
        "loading-process-events-interval-bytes",
        1024,
    )

    def reload() -> None:
        with suppress(redis.RedisError):
            ask(faulty, "DEBUG", "RELOAD")

    def is_loading() -> bool:
        try:
            ask(faulty, "GET", "x")
        except redis.BusyLoadingError:
            return True
        return False

    thread = threading.Thread(target=reload, daemon=True)
    thread.start()
    assert wait_until(is_loading, 5)

    def mend() -> None:
        ask(faulty, "CONFIG", "SET", "key-load-delay", 0)
        thread.join()

    return mend


def be_busy(faulty: Site) -> Mend:
    def loop() -> None:
        with suppress(redis.RedisError):
            ask(faulty, "EVAL", "while true do end", 0)

    def is_busy() -> bool:
        try:
            ask(faulty, "PING")
        except redis.ResponseError:
            return True
        return False

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    assert wait_until(is_busy, 5)
    return lambda: (ask(faulty, "SCRIPT", "KILL"), thread.join())


def demand_a_password(faulty: Site) -> Mend:
    admin = faulty.server.client()
    admin.config_set("requirepass", "secret")
    faulty.proxy.drop()
    return lambda: (admin.config_set("requirepass", ""), admin.close())


def forbid_scripts(faulty: Site) -> Mend:
    ask(faulty, "ACL", "SETUSER", "default", "-evalsha")
    return lambda: ask(faulty, "ACL", "SETUSER", "default", "+@all")


def take_no_more_clients(faulty: Site) -> Mend:
    admin = faulty.server.client()
    admin.ping()
    faulty.proxy.drop()
    assert wait_until(lambda: len(admin.client_list()) == 1, 5)
    admin.config_set("maxclients", 1)
    return lambda: (admin.config_set("maxclients", 10_000), admin.close())


def crash(faulty: Site) -> Mend:
    faulty.server.kill()
    return faulty.server.start


FAULTS: list[Break] = [
    hang,
    refuse_connections,
    drop_the_connection,
    reset_replies,
    dribble_replies,
    run_out_of_memory,
    become_a_replica,
    become_a_stale_replica,
    load,
    be_busy,
    demand_a_password,
    forbid_scripts,
    take_no_more_clients,
    crash,
]

every_fault = pytest.mark.parametrize("break_store", FAULTS, ids=lambda fault: fault.__name__)
on_threads_and_loops = pytest.mark.parametrize("path", ["/plain/", "/async/"])


def on_one_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on an event loop whose threads share the test's database transaction."""
    return wraps(test)(async_to_sync(test))


async def get(path: str) -> Any:
    """Ask for a page, as a server with threads or one with an event loop would."""
    if path == "/async/":
        return await AsyncClient().get(path)
    return await sync_to_async(Client().get)(path)


async def passed_until_refused(path: str) -> int:
    for passed in range(LIMIT + 2):
        if (await get(path)).status_code == 429:
            return passed
    raise AssertionError("no limit holds")


@every_fault
@on_threads_and_loops
@on_one_loop
async def test_open_lets_everybody_pass_and_tells_no_numbers(
    faulty: Site, break_store: Break, path: str
) -> None:
    async with faulty.answering("open"):
        assert (await get(path))["X-RateLimit-Remaining"] == str(LIMIT - 1)
        mend = break_store(faulty)
        try:
            responses = [await get(path) for _ in range(LIMIT + 2)]
        finally:
            mend()
        assert [response.status_code for response in responses] == [200] * (LIMIT + 2)
        assert not [name for response in responses for name in NUMBERS if name in response]
        assert sum(site.RUNS.values()) == 1 + LIMIT + 2


@every_fault
@on_one_loop
async def test_closed_refuses_with_503_and_runs_no_view(faulty: Site, break_store: Break) -> None:
    async with faulty.answering("closed"):
        assert (await get("/plain/")).status_code == 200
        mend = break_store(faulty)
        try:
            responses = [await get("/plain/") for _ in range(2)]
        finally:
            mend()
        assert [response.status_code for response in responses] == [503, 503]
        assert all(int(response["Retry-After"]) >= 1 for response in responses)
        assert not [name for response in responses for name in NUMBERS if name in response]
        assert site.RUNS["plain"] == 1


@every_fault
@on_one_loop
async def test_local_keeps_limiting_in_this_process(faulty: Site, break_store: Break) -> None:
    async with faulty.answering("local"):
        assert (await get("/plain/")).status_code == 200
        mend = break_store(faulty)
        try:
            responses = [await get("/plain/") for _ in range(LIMIT + 1)]
        finally:
            mend()
        assert [response.status_code for response in responses] == [200] * LIMIT + [429]
        assert int(responses[-1]["Retry-After"]) >= 1
        assert not [name for response in responses for name in NUMBERS if name in response]
        assert site.RUNS["plain"] == 1 + LIMIT


@every_fault
@on_threads_and_loops
@on_one_loop
async def test_only_the_first_request_pays_and_limits_hold_again_afterwards(
    faulty: Site, break_store: Break, path: str
) -> None:
    async with faulty.answering("closed"):
        assert (await get(path)).status_code == 200
        mend = break_store(faulty)
        try:
            assert (await get(path)).status_code == 503
            asked = faulty.proxy.traffic
            assert [(await get(path)).status_code for _ in range(3)] == [503] * 3
            assert faulty.proxy.traffic == asked
        finally:
            mend()
        faulty.clock.pass_cool_down()
        assert await passed_until_refused(path) <= LIMIT
        assert (await get(path))["X-RateLimit-Remaining"] == "0"
