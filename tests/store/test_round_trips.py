"""Counted on the socket: one command and one round trip for each stage that charges, no SQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connections
from django.test import AsyncClient, Client, override_settings
from django.test.utils import CaptureQueriesContext

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.models import (
    EndpointRule,
    PolicyRevision,
    ServiceAccount,
    Tier,
    TierAssignment,
)
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.policy.snapshots import IDLE_LOOK_SECONDS
from django_ratelimit_tiers.policy.tellers import Teller
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.memory_records import MemoryRecords
from django_ratelimit_tiers.store.redis import RedisStore
from django_ratelimit_tiers.store.scripts import ACQUIRE, REFUND
from django_ratelimit_tiers.store.server_records import ADD
from tests.clocks import Clock
from tests.databases import without_tables
from tests.policies import limit_tier, make_rule
from tests.servers import ValkeyProcess
from tests.store.counting import CountingProxy

DAY = 86_400
PLENTY = 1_000_000

Ask = Callable[..., int]


@pytest.fixture(scope="module")
def counting(valkey: ValkeyProcess) -> Iterator[CountingProxy]:
    with CountingProxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(counting: CountingProxy) -> Iterator[CountingProxy]:
    """The proxy, as the store's only way to the session's Valkey."""
    setting = {
        "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
        "STORE_OPTIONS": {"url": counting.url, "timeout": 10},
        "API_KEY_RESOLVER": "tests.site.key_from_header",
    }
    with override_settings(RATELIMIT_TIERS=setting):
        yield counting
        store = configured_store()
        assert isinstance(store, RedisStore)
        store.close()


@pytest.fixture(params=["sync", "async"])
def get_twice(request: pytest.FixtureRequest) -> Ask:
    """Get a path in one of the colours, do something, get it again; return the second status."""

    def run(path: str, between: Callable[[], object], user: User | None, **headers: str) -> int:
        client = Client()
        if user:
            client.force_login(user)
        client.get(path, headers=headers)
        between()
        return client.get(path, headers=headers).status_code

    async def arun(
        path: str, between: Callable[[], object], user: User | None, **headers: str
    ) -> int:
        client = AsyncClient()
        if user:
            await client.aforce_login(user)
        await client.get(path, headers=headers)
        between()
        return (await client.get(path, headers=headers)).status_code

    return run if request.param == "sync" else async_to_sync(arun)


def charges(policies: int, subjects: int) -> tuple[Charge, ...]:
    made = [
        QuotaPolicy(f"p{n}", PLENTY if n % 4 != 1 else 1000, DAY, list(Algorithm)[n % 4])
        for n in range(policies)
    ]
    return tuple(Charge(f"user:{n % subjects}", policy) for n, policy in enumerate(made))


def scripts(proxy: CountingProxy) -> list[bytes]:
    """Return the digests of the scripts called, after seeing that nothing else was.

    What a process tells of usage every two seconds belongs to no request.
    """
    assert proxy.round_trips == len(proxy.commands)
    of_requests = [command for command in proxy.commands if command[1] != ADD.text]
    assert {command[0] for command in of_requests} <= {b"EVALSHA"}
    return [command[1] for command in of_requests]


REFUSED = Outcome(charges(1, 1)[0], False, 0, 1, 1)
TOLD = ("id", 7, "GET", "192.0.2.1", "/plain/", "tester/1")

ONE_ACQUIRE = [ACQUIRE.digest]


@pytest.mark.parametrize("subjects", [1, 3])
@pytest.mark.parametrize("policies", [1, 8])
def test_a_plan_is_one_command_and_one_round_trip(
    counting: CountingProxy, policies: int, subjects: int
) -> None:
    plan = Plan(charges(policies, subjects), labels=("label\0\0GET /",) * policies)
    store = RedisStore(url=counting.url, timeout=10)
    store.execute(plan)
    counting.clear()
    store.execute(plan)
    store.close()
    assert scripts(counting) == ONE_ACQUIRE

    async def run() -> None:
        await store.aexecute(plan)
        counting.clear()
        await store.aexecute(plan)

    asyncio.run(run())
    assert scripts(counting) == ONE_ACQUIRE


def test_an_event_loop_decides_and_tells_usage_without_a_thread(redis_url: str) -> None:
    store = RedisStore(url=redis_url, timeout=10)
    teller = Teller(store, MemoryRecords())
    hops: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().run_in_executor = hops.append  # type: ignore[assignment,method-assign]
        reply = await store.aexecute(Plan(charges(2, 1), labels=("label\0\0GET /",) * 2))
        teller.count_refusal("user:1", "label\0\0GET /")
        teller.sample(REFUSED, "label\0\0GET /", 7, TOLD)
        await teller.atell()
        await store.aclose()
        assert reply.outcomes

    asyncio.run(run())
    teller.stop()
    store.close()
    assert hops == []
    assert sum(store.records.counts(store.records.minutes()[0]).values()) == 1


@pytest.mark.django_db
@pytest.mark.urls("tests.site")
class TestRequests:
    """Warm requests through the whole of Django."""

    @pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/", "/marked/", "/nothing/"])
    @pytest.mark.parametrize("limits", [1, 8])
    def test_a_stage_that_charges_is_one_command(
        self, proxy: CountingProxy, get_twice: Ask, path: str, limits: int
    ) -> None:
        periods = [{"requests": PLENTY, "period": DAY + n} for n in range(limits)]
        limit_tier("anonymous", *periods)
        assert self.commands_of(proxy, get_twice, path) == ONE_ACQUIRE

    @pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
    def test_two_stages_that_charge_are_two_commands(
        self, proxy: CountingProxy, get_twice: Ask, path: str
    ) -> None:
        make_rule("all", PLENTY, {"requests": PLENTY, "period": DAY}, path="/**")
        assert self.commands_of(proxy, get_twice, path) == ONE_ACQUIRE * 2

    def test_a_reservation_that_is_given_back_is_one_more(
        self, proxy: CountingProxy, get_twice: Ask
    ) -> None:
        make_rule("plain", PLENTY, count="failed")
        refund = [REFUND.digest]
        assert self.commands_of(proxy, get_twice, "/plain/") == ONE_ACQUIRE * 2 + refund

    @pytest.mark.parametrize("path", ["/free/", "/afree/"])
    def test_a_request_that_charges_nothing_asks_nothing(
        self, proxy: CountingProxy, get_twice: Ask, path: str
    ) -> None:
        assert self.commands_of(proxy, get_twice, path) == []

    def test_a_request_that_charges_nothing_asks_nothing_after_one_that_was_charged(
        self, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client, clock = Client(), Clock(time.monotonic())
        client.get("/plain/")
        monkeypatch.setattr(limiter()._snapshots, "_clock", clock)
        clock.now += IDLE_LOOK_SECONDS + 1
        client.get("/plain/")
        proxy.clear()
        client.get("/free/")
        assert proxy.commands == []
        clock.now += IDLE_LOOK_SECONDS + 1
        client.get("/free/")
        assert len(proxy.commands) == 1

    @pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/", "/nothing/", "/plain"])
    def test_an_anonymous_request_runs_no_sql(
        self, proxy: CountingProxy, get_twice: Ask, path: str
    ) -> None:
        make_rule("all", PLENTY, path="/**")
        assert self.queries_of(get_twice, path) == 0

    @pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
    def test_a_request_with_a_verified_key_runs_no_sql(
        self, proxy: CountingProxy, get_twice: Ask, path: str
    ) -> None:
        TierAssignment.objects.create(api_key="k1", tier=Tier.objects.get(slug="pro"))
        assert self.queries_of(get_twice, path, **{"X-Key": "k1"}) == 0

    @pytest.mark.parametrize("path", ["/who/", "/awho/", "/drf/"])
    def test_a_request_of_a_user_runs_only_what_finding_the_user_takes(
        self, proxy: CountingProxy, get_twice: Ask, path: str
    ) -> None:
        user = User.objects.create_user("anna")
        TierAssignment.objects.create(user=user, tier=Tier.objects.get(slug="pro"))
        queries = self.queries_of(get_twice, path, user=user)
        with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
            assert queries == self.queries_of(get_twice, path, user=user)

    @staticmethod
    def commands_of(proxy: CountingProxy, get_twice: Ask, path: str) -> list[bytes]:
        assert get_twice(path, proxy.clear, None) in {200, 301, 404}
        return scripts(proxy)

    @staticmethod
    def queries_of(get_twice: Ask, path: str, user: User | None = None, **headers: str) -> int:
        warm: list[int] = []
        with CaptureQueriesContext(connections["default"]) as queries:
            get_twice(path, lambda: warm.append(len(queries)), user, **headers)
        return len(queries) - warm[0]


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_a_warm_server_needs_no_tables(serve: Callable[..., str], server: str) -> None:
    limit_tier("anonymous", 100)
    path = "/async/" if server == "uvicorn" else "/plain/"
    with httpx.Client(base_url=serve(server)) as client:
        client.get(path)
        with without_tables(Tier, EndpointRule, ServiceAccount, PolicyRevision, TierAssignment):
            answers = [client.get(path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["98", "97", "96"]
