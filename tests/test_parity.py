"""Threads and event loops give the same answers: one table of scenarios through both clients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, override_settings
from django.test.signals import setting_changed

from django_ratelimit_tiers.models import ServiceAccount, Tier, TierAssignment
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.redis import RedisStore
from tests.policies import limit_tier, make_rule, used

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

CHANGING = {"X-RateLimit-Reset", "X-RateLimit-Decision", "Retry-After", "RateLimit", "Set-Cookie"}
"""Header fields whose values depend on the moment, or are drawn at random."""


@dataclass(frozen=True)
class Scenario:
    """Requests after some preparation, all of one kind."""

    path: str
    times: int = 3
    method: str = "get"
    user: bool = False
    prepare: Callable[[], object] = lambda: None
    headers: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def assign_pro() -> None:
    user, tier = User.objects.get(username="anna"), Tier.objects.get(slug="pro")
    TierAssignment.objects.create(user=user, tier=tier)


def exempt_loopback() -> None:
    ServiceAccount.objects.create(name="a", owner="o", reason="r", networks="127.0.0.0/8")


REPLACING = {"path": "/**", "tier_policies": "replace"}
PREFLIGHT = {"Origin": "https://example.org", "Access-Control-Request-Method": "PUT"}

SCENARIOS: dict[str, Scenario] = {
    "a plain view": Scenario("/plain/"),
    "an asynchronous view": Scenario("/async/"),
    "a view that looks at its user": Scenario("/who/", user=True),
    "an asynchronous view that looks at its user": Scenario("/awho/", user=True),
    "a user of a session": Scenario("/plain/", user=True),
    "an assigned tier": Scenario("/plain/", user=True, prepare=assign_pro),
    "a view of the REST framework": Scenario("/drf/"),
    "its user": Scenario("/drf/", user=True),
    "a private view of it": Scenario("/drf-private/"),
    "a dear view": Scenario("/dear/"),
    "a dear asynchronous view": Scenario("/adear/"),
    "a marked asynchronous view": Scenario("/amarked/"),
    "an exempt view": Scenario("/afree/"),
    "a missing page": Scenario("/nothing/"),
    "a missing slash": Scenario("/plain"),
    "a head request": Scenario("/async/", method="head"),
    "a preflight": Scenario("/async/", method="options", headers=PREFLIGHT),
    "an exempt client": Scenario("/plain/", prepare=exempt_loopback),
    "a rule": Scenario("/plain/", prepare=lambda: make_rule("plain", 1)),
    "a rule by view": Scenario(
        "/async/", prepare=lambda: make_rule("a", 1, view_name="tests.site.asynchronous")
    ),
    "a rule for everyone": Scenario(
        "/async/", prepare=lambda: make_rule("a", 1, identify_by="everyone", **REPLACING)
    ),
    "a rule in shadow mode": Scenario(
        "/async/", prepare=lambda: make_rule("a", 1, mode="shadow", **REPLACING)
    ),
    "a rule for failures": Scenario(
        "/async/401/", prepare=lambda: make_rule("a", 1, path="/**", count="failed")
    ),
    "a rule for failures and none": Scenario(
        "/async/", prepare=lambda: make_rule("a", 1, path="/**", count="failed")
    ),
    "an undisclosed rule": Scenario(
        "/async/", prepare=lambda: make_rule("async", 1, disclose=False)
    ),
    "a page in HTML": Scenario("/async/", headers={"Accept": "text/html"}),
    "a problem": Scenario("/plain/", headers={"Accept": "application/problem+json"}),
    "a response of one's own": Scenario("/async/", settings={"RESPONSE": "tests.site.teapot"}),
    **{
        f"the {key} {function}": Scenario(
            "/async/", headers=headers, settings={key: f"tests.site.{function}"}
        )
        for key, headers, functions in (
            ("TIER_RESOLVER", {"X-Tier": "free"}, ("tier_from_header", "atier_from_header")),
            ("API_KEY_RESOLVER", {"X-Key": "k1"}, ("key_from_header", "akey_from_header")),
        )
        for function in functions
    },
    "disabled": Scenario("/async/", settings={"ENABLED": False}),
    "in memory": Scenario(
        "/async/", settings={"STORE": "django_ratelimit_tiers.store.memory.MemoryStore"}
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_clients_get_the_same_answers(valkey_client: redis.Redis, name: str) -> None:
    scenario = SCENARIOS[name]
    for slug, limit in (("anonymous", 2), ("free", 2), ("pro", 1)):
        limit_tier(slug, limit)
    anna = User.objects.create_user("anna")
    scenario.prepare()
    with override_settings(RATELIMIT_TIERS=scenario.settings):
        in_threads = answers(scenario, anna), used(valkey_client)
        valkey_client.flushall()
        setting_changed.send(None, setting="RATELIMIT_TIERS", value=None, enter=True)
        on_a_loop = async_to_sync(aanswers)(scenario, anna), used(valkey_client)
    assert on_a_loop == in_threads
    assert len(in_threads[0]) == scenario.times


def answers(scenario: Scenario, user: User) -> list[Any]:
    client = Client()
    if scenario.user:
        client.force_login(user)
    send = getattr(client, scenario.method)
    return [told(send(scenario.path, headers=scenario.headers)) for _ in range(scenario.times)]


async def aanswers(scenario: Scenario, user: User) -> list[Any]:
    client = AsyncClient()
    if scenario.user:
        await client.aforce_login(user)
    send = getattr(client, scenario.method)
    return [
        told(await send(scenario.path, headers=scenario.headers)) for _ in range(scenario.times)
    ]


def told(response: Any) -> Any:
    """Return a response as a value, without what differs from one moment to the next."""
    headers = {
        name: "..." if name in CHANGING else value for name, value in response.headers.items()
    }
    content = response.content
    if response.status_code == 429:
        content = bytes(byte for byte in content if not chr(byte).isdigit())
        headers.pop("Content-Length", None)
    return response.status_code, headers, content


@pytest.mark.parametrize("store", [MemoryStore, RedisStore])
def test_a_store_has_a_twin_of_everything_that_a_request_needs(store: type[Store]) -> None:
    for name in ("execute", "acquire", "peek", "refund", "reset", "ping"):
        assert inspect.iscoroutinefunction(getattr(store, f"a{name}"))
