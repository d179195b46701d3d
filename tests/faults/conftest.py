"""A site whose store is a private Valkey behind a proxy that breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import override_settings

from django_ratelimit_tiers.policy.limiter import Limiter, limiter
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.redis import RedisStore
from tests import site
from tests.clocks import Clock
from tests.faults.proxies import FaultProxy
from tests.policies import limit_tier
from tests.servers import ValkeyProcess

TIMEOUT = 1.0
"""Seconds for one call: more than a busy machine needs, less than a hung server takes."""

LIMIT = 4
"""Requests of one address in a test that never ends."""


class BreakerClock(Clock):
    """The clock of a circuit breaker."""

    def pass_cool_down(self) -> None:
        """Let so much time pass that the store may be asked again."""
        self.now += 10


@dataclass
class Site:
    """A limiter, its store's server, and what stands between them."""

    server: ValkeyProcess
    proxy: FaultProxy
    clock: BreakerClock

    @property
    def limiter(self) -> Limiter:
        """The limiter of this process."""
        return limiter()

    @contextmanager
    def using(self, policy: str, **options: object) -> Iterator[RedisStore]:
        """Answer by this failure policy while the store is away."""
        setting = {
            "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
            "STORE_OPTIONS": {"url": self.proxy.url, "timeout": TIMEOUT},
            "ON_STORE_FAILURE": policy,
            **options,
        }
        with override_settings(RATELIMIT_TIERS=setting):
            limiter().breaker.clock = self.clock
            store = configured_store()
            assert isinstance(store, RedisStore)
            try:
                yield store
            finally:
                store.close()

    @asynccontextmanager
    async def answering(self, policy: str) -> AsyncIterator[None]:
        """Do what `using` does, on an event loop."""
        with self.using(policy) as store:
            try:
                yield
            finally:
                await store.aclose()


@pytest.fixture(scope="module")
def module_server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess("enable-debug-command yes", "busy-reply-threshold 50") as server:
        yield server


@pytest.fixture
def faulty(
    db: None, module_server: ValkeyProcess, django_capture_on_commit_callbacks: Any
) -> Iterator[Site]:
    """A site with a limit of LIMIT requests for everybody, whose store is about to fail."""
    site.RUNS.clear()
    with django_capture_on_commit_callbacks(execute=True):
        limit_tier("anonymous", LIMIT)
    with module_server.client() as client:
        client.flushall()
    with FaultProxy(module_server.port) as proxy:
        yield Site(module_server, proxy, BreakerClock())
    site.RUNS.clear()


Break = Callable[[Site], Callable[[], object]]
"""Breaks a site's store, and returns what mends it."""
