"""Nothing piles up in a process that lives on, whatever its traffic and whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.core.handlers.base import BaseHandler
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from django_ratelimit_tiers.models import TierPolicy
from django_ratelimit_tiers.policy.breaker import COOL_DOWN_SECONDS
from django_ratelimit_tiers.policy.identity import address_client
from django_ratelimit_tiers.policy.limiter import limiter
from testproject.api_keys import issue_key
from tests.memory import counted_objects
from tests.policies import YEAR, limit_tier, make_rule
from tests.servers import ValkeyProcess

ADDRESSES_CACHED = 10_000
"""More than a process keeps parsed, for speed."""

ROUNDS = 3

FRESH, AGAIN, KNOWN, ON_LOOPS = 400, 40, 40, 20
"""Requests of a round: from new addresses, from attackers, by users and keys, on event loops."""

REQUESTS = FRESH + 2 * AGAIN + KNOWN + ON_LOOPS

FEW = 1 / 2
"""Objects for each request that a process may keep: a leak is at least one."""


@pytest.fixture
def own_valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}
        with override_settings(CACHES={"default": cache}):
            yield server


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Write no log: the tests keep every line of it."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def address(number: int) -> str:
    if number % 2:
        return f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::{number:x}"
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class Traffic:
    """Mixed requests to this process; no two rounds have the same addresses.

    Without Django's test client, which itself keeps a little of each request.
    """

    def __init__(self, store: ValkeyProcess) -> None:
        self._store = store
        self._handler, self._async_handler = BaseHandler(), BaseHandler()
        self._handler.load_middleware()
        self._async_handler.load_middleware(is_async=True)
        tier = limit_tier("anonymous", 20)
        make_rule("async", 1000, {"requests": 1000, "algorithm": "sliding_window_log"})
        self._limit = TierPolicy.objects.get(tier=tier, period=YEAR)
        self._seen = ADDRESSES_CACHED
        self._users = [User.objects.create_user(f"user{number}") for number in range(10)]
        self._keys = [issue_key(user) for user in self._users]

    def round(self) -> None:
        for number in range(FRESH):
            self._ask(("/plain/", "/api/search/?q=a", "/nowhere/")[number % 3], self._new_address())
        self._attack()
        self._store.kill()
        self._attack()  # the first finds out, and all pass
        self._store.start()
        time.sleep(1.5 * COOL_DOWN_SECONDS)
        self._limit.requests += 1
        self._limit.save()
        for number in range(KNOWN):
            key = {"HTTP_X_API_KEY": self._keys[number % 10]} if number % 2 else {}
            self._ask("/api/export/", self._new_address(), **key)
        asyncio.run(self._on_a_loop())
        limiter().teller.tell()  # what waits to be told is no leak

    def _attack(self) -> None:
        for _ in range(AGAIN):
            self._ask("/plain/", "192.0.2.1")

    async def _on_a_loop(self) -> None:
        for _ in range(ON_LOOPS):
            request = AsyncRequestFactory().get("/async/")
            request.META["REMOTE_ADDR"] = self._new_address()
            response = await self._async_handler.get_response_async(request)
            assert response.status_code == 200

    def _ask(self, path: str, remote: str, **headers: str) -> None:
        request = RequestFactory().get(path, REMOTE_ADDR=remote, **headers)
        response = self._handler.get_response(request)
        response.close()
        assert response.status_code in (200, 401, 404, 429)

    def _new_address(self) -> str:
        self._seen += 1
        return address(self._seen)


@pytest.mark.django_db(transaction=True)
def test_a_process_that_lives_on_keeps_nothing_of_its_requests(
    own_valkey: ValkeyProcess, unlogged: None
) -> None:
    with counted_objects() as kept:
        for number in range(ADDRESSES_CACHED):
            address_client(RequestFactory().get("/", REMOTE_ADDR=address(number)))
        traffic = Traffic(own_valkey)
        for _ in range(2):
            traffic.round()
        before = kept()
        for _ in range(ROUNDS):
            traffic.round()
        grown = kept() - before
    assert grown < ROUNDS * REQUESTS * FEW
