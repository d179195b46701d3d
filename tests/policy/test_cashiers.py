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

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.events.tallies import FLUSH_SECONDS, TallySheet
from django_ratelimit_tiers.models import Tier, TierAssignment, TierPolicy
from django_ratelimit_tiers.policy import cashiers, express
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.store.configured import configured_store
from tests.clocks import Clock
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


def test_an_edit_costs_the_next_request_one_call_more(
    way: list[Any], get: Any, valkey_client: redis.Redis
) -> None:
    tier = limit_tier("anonymous", 5)
    get("/plain/")
    get("/plain/")
    tier.policies.update(requests=6)
    before = _calls(valkey_client)
    get("/plain/")
    assert _calls(valkey_client) - before == 2


def test_another_tier_costs_the_next_request_one_call_more(
    way: list[Any], valkey_client: redis.Redis
) -> None:
    limit_tier("free", 5)
    client, user = Client(), User.objects.create_user("anna")
    client.force_login(user)
    client.get("/plain/")
    client.get("/plain/")
    TierAssignment.objects.create(user=user, tier=limit_tier("pro", 50))
    client.get("/marked/")  # follows the edit of the tier's limits
    TierAssignment.objects.update(tier=Tier.objects.get(slug="business"))
    before = _calls(valkey_client)
    client.get("/plain/")
    assert _calls(valkey_client) - before == 2


def test_a_request_that_notices_takes_the_tally_along(
    way: list[Any], get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(limiter().teller, "_sheet", TallySheet(clock))
    get("/plain/")
    clock.now += FLUSH_SECONDS + 1
    get("/plain/")
    records = configured_store().records
    (usage,) = records.usage(records.hours()[-1]).values()
    assert usage.allowed == 2


def test_an_error_of_a_store_that_is_no_outage_comes_out(
    way: list[Any], get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_plan: Plan) -> None:
        raise LookupError("a store of somebody's own is broken")

    async def abroken(plan: Plan) -> None:
        broken(plan)

    get("/plain/")
    monkeypatch.setattr(configured_store(), "execute", broken)
    monkeypatch.setattr(configured_store(), "aexecute", abroken)
    with pytest.raises(LookupError, match="broken"):
        get("/plain/")


def _calls(client: redis.Redis) -> int:
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])
