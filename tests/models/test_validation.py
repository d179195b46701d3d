"""Validation before the database is asked: errors name the field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.utils import timezone

from django_ratelimit_tiers.core.policies import MAX_REQUESTS, Algorithm, policy_problems
from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.models import (
    AlertRule,
    EndpointRule,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
    TierPolicy,
)

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def problems(row: Model) -> dict[str, list[str]]:
    """What validation says against a row, by field."""
    try:
        row.full_clean()
    except ValidationError as error:
        return error.message_dict
    return {}


@pytest.mark.parametrize(
    "numbers",
    [
        {"requests": 0, "period": 60},
        {"requests": 10**10, "period": 60},
        {"requests": 1, "period": 0},
        {"requests": 1, "period": 10**9},
        {"requests": 10**6, "period": 60, "algorithm": "sliding_window_log"},
        {"requests": 1, "period": 60, "burst": 5},
        {"requests": 1, "period": 86_400, "burst": 1000, "algorithm": "token_bucket"},
    ],
)
def test_an_impossible_limit_is_refused_in_the_words_of_the_core(tier, numbers):
    row = TierPolicy(tier=tier, **numbers)
    [expected] = policy_problems(row.requests, row.period, Algorithm(row.algorithm), row.burst)
    found = problems(row)
    assert list(found) == [expected.field]
    assert found[expected.field][0].lower() == expected.message + "."


@pytest.mark.parametrize(
    "numbers", [{}, {"requests": "many"}, {"requests": 1, "period": 60, "burst": "some"}]
)
def test_a_limit_without_numbers_is_refused_by_its_fields(tier, numbers):
    assert problems(TierPolicy(tier=tier, **numbers))


def test_an_unknown_algorithm_is_refused_by_its_field(tier):
    row = TierPolicy(tier=tier, requests=1, period=60, algorithm="leaky")
    assert list(problems(row)) == ["algorithm"]


WRONG_RULES = [
    ("path", {"path": ""}),
    ("path", {"view_name": "search"}),
    ("path", {"path": "api"}),
    ("path", {"path": "/api/a*b"}),
    ("request_field", {"identify_by": "field"}),
    ("request_field", {"request_field": "username"}),
    ("cost", {"cost": 0}),
    ("cost", {"cost": MAX_REQUESTS + 1}),
    ("ends_at", {"starts_at": NOW, "ends_at": NOW - timedelta(hours=1)}),
    ("methods", {"methods": "GET/POST"}),
]


@pytest.mark.parametrize(("field", "fields"), WRONG_RULES)
def test_a_wrong_rule_is_refused_by_the_field(field, fields):
    row = EndpointRule(**{"name": "wrong", "path": "/api"} | fields)
    assert list(problems(row)) == [field]


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin"])
@pytest.mark.parametrize("far", [datetime(9999, 12, 31, 23, 59, 59), datetime(1, 1, 1)])  # noqa: DTZ001
def test_a_moment_that_another_time_zone_has_no_date_for_is_refused_by_its_field(zone, far):
    far = far.replace(tzinfo=ZoneInfo(zone))
    account = {"name": "backup", "owner": "o", "reason": "r", "networks": "192.0.2.1"}
    user = User.objects.create(username="ada")
    tier = Tier.objects.get(slug="pro")
    message = ["The year must be from 1970 to 9000."]
    assert problems(ServiceAccount(expires_at=far, **account)) == {"expires_at": message}
    assert problems(TierAssignment(expires_at=far, user=user, tier=tier)) == {"expires_at": message}
    assert problems(EndpointRule(name="r", path="/r", starts_at=far)) == {"starts_at": message}
    assert problems(EndpointRule(name="r", path="/r", ends_at=far)) == {"ends_at": message}


def test_a_second_limit_of_a_rule_for_every_tier_is_refused():
    rule = EndpointRule.objects.create(name="search", path="/api/search")
    rule.policies.create(requests=1, period=60)
    assert "already has a limit" in str(problems(RulePolicy(rule=rule, requests=2, period=60)))


def test_a_second_default_tier_is_refused():
    row = Tier(slug="gold", name="Gold", default_for="anonymous")
    assert "Another tier" in str(problems(row))


def test_an_assignment_of_nobody_or_of_two_is_refused(tier):
    user = User.objects.create(username="ada")
    assert "exactly one" in str(problems(TierAssignment(tier=tier)))
    assert "exactly one" in str(problems(TierAssignment(tier=tier, user=user, api_key="k1")))


def test_a_service_account_needs_owner_reason_and_identification():
    assert set(problems(ServiceAccount(name="backup"))) == {"owner", "reason", "__all__"}


def test_a_service_account_expires_in_a_year_unless_told_otherwise():
    ahead = ServiceAccount().expires_at - timezone.now()
    assert timedelta(days=364) < ahead < timedelta(days=366)


def test_a_new_key_is_kept_as_its_digest_only():
    account = ServiceAccount(name="backup", owner="ops", reason="nightly")
    key = account.new_key()
    account.save()
    account.refresh_from_db()
    assert account.key_digest == key_digest(key)
    assert key.startswith("rlt_")
    assert len(key) == 47
    assert key not in str(vars(account))


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (
            "ftp://example.com/",
            "Write an http or https URL with a host, of 500 characters at most.",
        ),
        (
            "https://user:word@example.com/a",
            "A user and a password are never sent: leave them out, and give a secret.",
        ),
        ("http://169.254.169.254/latest/", "169.254.169.254 is no address for a webhook."),
    ],
)
def test_a_webhook_that_nothing_could_be_sent_to_is_refused(url, advice):
    row = AlertRule(name="spikes", kind="spike", webhook_url=url)
    assert problems(row) == {"webhook_url": [advice]}


def test_a_webhook_may_have_a_host_of_one_word():
    row = AlertRule(name="spikes", kind="spike", webhook_url="http://chat:8080/@team")
    assert problems(row) == {}


def test_the_scheme_of_a_webhook_is_saved_in_lower_case():
    row = AlertRule(name="spikes", kind="spike", webhook_url="HTTPS://example.com/Hook")
    assert problems(row) == {}
    row.save()
    row.refresh_from_db()
    assert row.webhook_url == "https://example.com/Hook"


def test_a_secret_without_a_webhook_is_refused():
    row = AlertRule(name="spikes", kind="spike", webhook_secret="s")
    assert list(problems(row)) == ["webhook_url"]
