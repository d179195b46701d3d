"""Limits in shadow mode are counted and recorded, and refuse nobody."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client

from django_ratelimit_tiers.models import Tier
from django_ratelimit_tiers.store.configured import configured_store
from tests.policies import limit_tier, make_rule, used
from tests.site import statuses

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def shadow() -> Tier:
    tier = limit_tier("anonymous", 2)
    Tier.objects.filter(pk=tier.pk).update(mode="shadow")
    return tier


@pytest.mark.parametrize("path", ["/plain/", "/api/search/", "/nowhere/"])
def test_nobody_is_refused_and_every_refusal_that_would_be_is_counted(
    client: Client, path: str
) -> None:
    assert 429 not in statuses(client, path, 5)
    [minute] = configured_store().records.minutes()
    counts = configured_store().records.counts(minute)
    assert {(key.mode, key.tier, count) for key, count in counts.items()} == {
        ("shadow", "anonymous", 3)
    }


def test_clients_are_told_nothing_of_it(client: Client) -> None:
    fields = {name for name in client.get("/plain/").headers if "ratelimit" in name.lower()}
    assert fields == set()


@pytest.mark.django_db(transaction=True)
def test_what_was_used_counts_when_it_is_enforced(client: Client, valkey_client: Any) -> None:
    statuses(client, "/plain/", 5)
    assert used(valkey_client) == {"ip:127.0.0.1": [2]}
    Tier.objects.update(mode="enforce")
    assert statuses(client, "/plain/", 1) == [429]


def test_rules_refuse_as_before(client: Client) -> None:
    make_rule("plain", 3, identify_by="user_or_ip")
    assert statuses(client, "/plain/", 4) == [200, 200, 200, 429]


def test_the_database_knows_no_other_mode(shadow: Tier) -> None:
    for mode in ("off", "", "SHADOW"):
        with pytest.raises(IntegrityError), transaction.atomic():
            Tier.objects.filter(pk=shadow.pk).update(mode=mode)


def test_a_rule_in_shadow_mode_that_was_not_charged_is_given_nothing_back(
    client: Client, valkey_client: Any
) -> None:
    Tier.objects.update(mode="enforce")
    make_rule("plain", 1, mode="shadow")
    assert statuses(client, "/plain/", 3) == [200, 200, 429]
    assert used(valkey_client) == {"ip:127.0.0.1": [1, 2]}


@pytest.mark.parametrize("identify_by", ["ip", "user_or_ip"])
def test_limits_of_a_rule_that_exempts_would_refuse_nobody(
    client: Client, identify_by: str
) -> None:
    make_rule("plain", 1, exempt=True, mode="shadow", identify_by=identify_by)
    statuses(client, "/plain/", 5)
    [minute] = configured_store().records.minutes()
    counted = configured_store().records.counts(minute)
    assert {key.policy for key in counted} == {"anonymous-31622400s"}
