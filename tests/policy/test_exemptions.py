"""An exempt rule wins over every other rule, whichever way it names the view."""

from __future__ import annotations

import pytest
from django.test import Client

from django_ratelimit_tiers.models import EndpointRule, Tier

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def everything_is_limited(redis_url: str) -> None:
    Tier.objects.get(slug="anonymous").policies.all().delete()
    rule = EndpointRule.objects.create(name="all", path="/**", identify_by="everyone")
    rule.policies.create(requests=1, period=3600)


def statuses(client: Client, path: str) -> list[int]:
    return [client.get(path).status_code for _ in range(2)]


@pytest.mark.parametrize("named", [{"path": "/plain/"}, {"view_name": "plain"}])
def test_an_exempt_rule_wins_before_authentication(client: Client, named: dict[str, str]) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, **named)
    assert statuses(client, "/plain/") == [200, 200]


def test_other_views_are_limited_still(client: Client) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, view_name="plain")
    assert statuses(client, "/api/files/x") == [200, 429]


def test_what_resolves_to_nothing_is_limited_still(client: Client) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, view_name="plain")
    assert statuses(client, "/nowhere/") == [404, 429]


def test_an_exempt_path_covers_the_other_spellings_of_its_view(client: Client) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, path="/api/items/7/")
    assert statuses(client, "/api/items/007/") == [200, 200]
