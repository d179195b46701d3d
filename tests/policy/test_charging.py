"""What a request is charged when one of its two stages refuses it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.models import EndpointRule, Tier
from django_ratelimit_tiers.store.configured import configured_store

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 3600


def limit_tier(requests: int) -> None:
    tier = Tier.objects.get(slug="anonymous")
    tier.policies.all().delete()
    tier.policies.create(requests=requests, period=HOUR)


def used_of(rule: EndpointRule) -> int:
    policy = QuotaPolicy("any", 100, HOUR, counter=f"r{rule.pk}")
    (outcome,) = configured_store().peek([Charge("ip:127.0.0.1", policy)])
    return 100 - outcome.remaining


def test_a_refusal_after_authentication_gives_back_what_came_before(
    redis_url: str, client: Client
) -> None:
    limit_tier(1)
    rule = EndpointRule.objects.create(name="plain", path="/plain/", identify_by="ip")
    rule.policies.create(requests=100, period=HOUR)
    assert client.get("/plain/").status_code == 200
    assert client.get("/plain/").status_code == 429
    assert used_of(rule) == 1


def test_a_request_that_reaches_no_view_and_is_refused_is_not_charged(
    redis_url: str, client: Client
) -> None:
    limit_tier(1)
    rule = EndpointRule.objects.create(name="all", path="/**", identify_by="ip")
    rule.policies.create(requests=100, period=HOUR)
    assert client.get("/nowhere/").status_code == 404
    assert client.get("/nowhere/").status_code == 429
    assert used_of(rule) == 1


def test_a_login_that_succeeds_gives_back_its_reservation(redis_url: str, client: Client) -> None:
    User.objects.create_user("ada", password="right")
    rule = EndpointRule.objects.create(
        name="login", view_name="login", identify_by="ip", count="failed"
    )
    rule.policies.create(requests=100, period=HOUR)
    wrong = {"username": "ada", "password": "wrong"}
    assert client.post("/api/login/", wrong).status_code == 401
    assert used_of(rule) == 1
    assert client.post("/api/login/", wrong | {"password": "right"}).status_code == 200
    assert used_of(rule) == 1
