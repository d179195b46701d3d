"""The short way past all flows decides, charges, counts and tells the same as the plain one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, override_settings

from django_ratelimit_tiers.models import TierAssignment, TierPolicy
from django_ratelimit_tiers.policy import cashiers, express
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.store.configured import configured_store
from tests.policies import limit_tier, make_rule

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.site")]

FIELDS = "X-RateLimit-Limit", "X-RateLimit-Remaining", "RateLimit-Policy", "RateLimit"


@pytest.fixture(params=["short", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Let requests go one way or the other; yields the acquisitions that there were."""
    acquired: list[Any] = []
    acquire = cashiers.Acquisition.__init__

    def noted(self: Any, *arguments: Any) -> None:
        acquired.append(self)
        acquire(self, *arguments)

    monkeypatch.setattr(cashiers.Acquisition, "__init__", noted)
    if request.param == "plain":
        for name in ("usual_fare", "usual_door_fare", "usual_late_fare"):
            monkeypatch.setattr(express, name, lambda *_: None)
    yield acquired
    assert bool(acquired) is (request.param == "short")


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest) -> Any:
    if request.param == "sync":
        client: Any = Client()
        return lambda path, **headers: client.get(path, headers=headers)
    aclient: Any = AsyncClient()
    return lambda path, **headers: async_to_sync(aclient.get)(path, headers=headers)


def told(response: Any) -> dict[str, Any]:
    fields = {name: response.headers.get(name) for name in FIELDS}
    return {"status": response.status_code} | fields


def test_a_request_that_is_let_in(way: list[Any], get: Any, valkey_client: redis.Redis) -> None:
    limit_tier("anonymous", 5, {"requests": 100, "period": 86_400})
    make_rule("plain", 10)
    get("/plain/")
    second = told(get("/plain/"))
    assert (second["status"], second["X-RateLimit-Remaining"]) == (200, "3")
    assert re.findall(r"r=(\d+)", second["RateLimit"]) == ["8", "98", "3"]
    limiter().teller.tell()
    (usage,) = configured_store().records.usage(configured_store().records.hours()[-1]).values()
    assert (usage.allowed, usage.refused) == (2, 0)


def test_a_request_that_is_refused_gives_back_what_was_charged_before(
    way: list[Any], get: Any
) -> None:
    limit_tier("anonymous", 2)
    make_rule("door", 10, path="/plain/")
    assert [get("/plain/").status_code for _ in range(4)] == [200, 200, 429, 429]
    TierPolicy.objects.update(requests=50)
    left = told(get("/plain/"))["RateLimit"]
    assert re.findall(r"r=(\d+)", left) == ["7", "47"]
    limiter().teller.tell()
    records = configured_store().records
    (usage,) = records.usage(records.hours()[-1]).values()
    assert (usage.allowed, usage.refused) == (3, 2)
    assert len(records.sample()) == 2


def test_an_edit_holds_on_the_next_request(way: list[Any], get: Any) -> None:
    limit_tier("anonymous", 5)
    get("/plain/")
    get("/plain/")
    TierPolicy.objects.filter(tier__slug="anonymous").update(requests=3)
    third, fourth = told(get("/plain/")), told(get("/plain/"))
    assert (third["status"], third["X-RateLimit-Limit"]) == (200, "3")
    assert fourth["status"] == 429


def test_a_client_whose_tier_is_changed_has_the_new_one_at_once(way: list[Any]) -> None:
    limit_tier("free", 5)
    pro = limit_tier("pro", 50)
    client, user = Client(), User.objects.create_user("anna")
    client.force_login(user)
    client.get("/plain/")
    TierAssignment.objects.create(user=user, tier=pro)
    assert client.get("/plain/").headers["X-RateLimit-Limit"] == "50"


def test_an_unlimited_client_is_told_nothing_until_an_edit_limits_it(
    way: list[Any], get: Any
) -> None:
    tier = limit_tier("anonymous", 5)
    get("/plain/")
    tier.policies.all().delete()
    get("/plain/")
    assert told(get("/plain/"))["RateLimit"] is None
    limit_tier("anonymous", 7)
    assert told(get("/plain/"))["X-RateLimit-Limit"] == "7"


def test_a_client_that_goes_on_is_refused_from_memory_and_counted(way: list[Any], get: Any) -> None:
    limit_tier("anonymous", 1)
    with override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 5}):
        assert [get("/plain/").status_code for _ in range(30)] == [200] + [429] * 29
        limiter().teller.tell()
    records = configured_store().records
    counts = [records.counts(minute) for minute in records.minutes()]
    assert sum(sum(count.values()) for count in counts) == 29
