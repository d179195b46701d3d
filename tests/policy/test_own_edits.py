"""A process obeys at once what it edits or resets itself, also where it asks the store nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, override_settings

from django_ratelimit_tiers.models import (
    EndpointRule,
    ServiceAccount,
    Tier,
    TierAssignment,
    TierPolicy,
)
from tests.policies import limit_tier, make_rule
from tests.site import statuses

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.site")]


def without_limits() -> Callable[[], object]:
    TierPolicy.objects.all().delete()
    return lambda: make_rule("plain", 1)


def by_a_service_account() -> Callable[[], object]:
    limit_tier("anonymous", 1)
    known = {"owner": "ops", "reason": "monitoring", "networks": "127.0.0.0/8"}
    account = ServiceAccount.objects.create(name="monitor", **known)
    return account.delete


def by_an_exempt_rule() -> Callable[[], object]:
    limit_tier("anonymous", 1)
    make_rule("plain", exempt=True)
    return lambda: EndpointRule.objects.update(mode="off")


def of_an_unlimited_tier() -> Callable[[], object]:
    limit_tier("anonymous", 1)
    Tier.objects.update(unlimited=True)
    return lambda: Tier.objects.update(unlimited=False)


@pytest.mark.parametrize(
    "passing", [without_limits, by_a_service_account, by_an_exempt_rule, of_an_unlimited_tier]
)
def test_what_charged_nothing_is_charged_right_after_the_edit(
    client: Client, passing: Callable[[], Callable[[], object]]
) -> None:
    edit = passing()
    assert statuses(client, "/plain/", 3) == [200, 200, 200]
    edit()
    assert statuses(client, "/plain/", 2) == [200, 429]


@pytest.fixture
def attacked(client: Client) -> Iterator[User]:
    """Whom the process refuses from its memory."""
    anna = User.objects.create_user("anna")
    client.force_login(anna)
    limit_tier("free", 1)
    with override_settings(RATELIMIT_TIERS={**settings.RATELIMIT_TIERS, "REFUSAL_MEMORY": 1}):
        assert statuses(client, "/plain/", 40) == [200] + 39 * [429]
        yield anna


def test_a_limit_that_is_raised_during_an_attack_holds_at_once(
    client: Client, attacked: User
) -> None:
    TierPolicy.objects.filter(tier__slug="free").update(requests=100)
    assert statuses(client, "/plain/", 1) == [200]


def test_a_better_tier_that_is_given_during_an_attack_holds_at_once(
    client: Client, attacked: User
) -> None:
    TierAssignment.objects.create(user=attacked, tier=Tier.objects.get(slug="pro"))
    assert statuses(client, "/plain/", 1) == [200]


def test_who_is_let_start_anew_during_an_attack_is_let_in_at_once(
    client: Client, attacked: User
) -> None:
    call_command("ratelimit_reset", f"user:{attacked.pk}")
    assert statuses(client, "/plain/", 2) == [200, 429]
