"""What no write may put into the database, whatever form it passes by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.core.checks import Tags, run_checks
from django.db import IntegrityError, transaction
from django.db.models import Model

from django_ratelimit_tiers.core.policies import (
    MAX_LOG_REQUESTS,
    MAX_PERIOD,
    MAX_REQUESTS,
    Algorithm,
    policy_problems,
)
from django_ratelimit_tiers.models import (
    Alert,
    AlertNotice,
    AlertRule,
    EndpointRule,
    RulePolicy,
    ServiceAccount,
    ThrottleCount,
    Tier,
    TierAssignment,
    TierPolicy,
    UsageCount,
)

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
LONG_PAST, FAR_OFF = datetime(1900, 1, 1, tzinfo=UTC), datetime(9500, 1, 1, tzinfo=UTC)


def refuses(constraint: str, row: Model) -> bool:
    """Whether the database refuses to insert a row, for the named reason."""
    reason = ""
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        reason = str(error)
    assert constraint in reason or not reason
    return bool(reason)


def test_the_database_knows_every_kind_of_constraint():
    assert run_checks(tags=[Tags.models], databases=["default"]) == []


@pytest.fixture
def rule() -> EndpointRule:
    return EndpointRule.objects.create(name="search", path="/api/search")


LIMITS = [
    (0, 60, "fixed_window", None),
    (1, 60, "fixed_window", None),
    (MAX_REQUESTS, 60, "fixed_window", None),
    (MAX_REQUESTS + 1, 60, "fixed_window", None),
    (10**18, 60, "fixed_window", None),
    (MAX_LOG_REQUESTS, 60, "sliding_window_log", None),
    (MAX_LOG_REQUESTS + 1, 60, "sliding_window_log", None),
    (1, 0, "fixed_window", None),
    (1, MAX_PERIOD, "fixed_window", None),
    (1, MAX_PERIOD + 1, "fixed_window", None),
    (1, 60, "fixed_window", 1),
    (1, 60, "sliding_window_counter", 1),
    (1, 60, "token_bucket", None),
    (1, 60, "token_bucket", 0),
    (1, 60, "token_bucket", 1),
    (MAX_REQUESTS, 60, "token_bucket", MAX_REQUESTS),
    (MAX_REQUESTS, 60, "token_bucket", MAX_REQUESTS + 1),
    (1, MAX_PERIOD, "token_bucket", 1),
    (1, MAX_PERIOD, "token_bucket", 2),
    (1, 86_400, "token_bucket", 366),
    (1, 86_400, "token_bucket", 367),
]


@pytest.mark.parametrize(("requests", "period", "algorithm", "burst"), LIMITS)
def test_the_database_refuses_exactly_the_limits_that_the_core_refuses(
    tier, rule, requests, period, algorithm, burst
):
    numbers = {"requests": requests, "period": period, "algorithm": algorithm, "burst": burst}
    wrong = bool(policy_problems(requests, period, Algorithm(algorithm), burst))
    assert refuses("rlt_tierpolicy_", TierPolicy(tier=tier, **numbers)) == wrong
    assert refuses("rlt_rulepolicy_", RulePolicy(rule=rule, **numbers)) == wrong


def test_an_unknown_algorithm_is_refused(tier):
    row = TierPolicy(tier=tier, requests=1, period=60, algorithm="leaky")
    assert refuses("algorithm_known", row)


def test_a_tier_has_one_limit_for_a_period_and_algorithm(tier):
    tier.policies.create(requests=1, period=60)
    assert refuses("", TierPolicy(tier=tier, requests=2, period=60))
    assert not refuses("", TierPolicy(tier=tier, requests=2, period=60, algorithm="fixed_window"))


def test_a_rule_has_one_limit_for_a_period_algorithm_and_tier(rule, tier):
    rule.policies.create(requests=1, period=60)
    rule.policies.create(requests=1, period=60, tier=tier)
    assert refuses("", RulePolicy(rule=rule, requests=2, period=60))
    assert refuses("", RulePolicy(rule=rule, requests=2, period=60, tier=tier))


@pytest.mark.parametrize("default_for", ["anonymous", "authenticated"])
def test_only_one_tier_is_the_default_for_some_clients(default_for):
    assert refuses("", Tier(slug="gold", default_for=default_for))


def test_any_number_of_tiers_are_the_default_for_nobody(tier):
    assert not refuses("", Tier(slug="silver"))


def test_an_unknown_default_is_refused():
    assert refuses("default_for_known", Tier(slug="gold", default_for="everybody"))


WRONG_RULES = [
    ("path_xor_view_name", {"path": ""}),
    ("path_xor_view_name", {"view_name": "search"}),
    ("request_field_if_used", {"identify_by": "field"}),
    ("request_field_if_used", {"request_field": "username"}),
    ("cost_in_range", {"cost": 0}),
    ("cost_in_range", {"cost": MAX_REQUESTS + 1}),
    ("starts_at_before_ends_at", {"starts_at": LATER, "ends_at": NOW}),
    ("starts_at_before_ends_at", {"starts_at": NOW, "ends_at": NOW}),
    ("starts_at_readable", {"starts_at": LONG_PAST}),
    ("ends_at_readable", {"ends_at": FAR_OFF}),
    ("mode_known", {"mode": "on"}),
    ("mode_known", {"mode": "Enforce"}),
    ("mode_known", {"mode": "enforce "}),
    ("identify_by_known", {"identify_by": "cookie"}),
    ("count_known", {"count": "some"}),
    ("scope_known", {"scope": "path"}),
    ("tier_policies_known", {"tier_policies": "instead"}),
    ("on_store_failure_known", {"on_store_failure": "panic"}),
]


@pytest.mark.parametrize(("constraint", "fields"), WRONG_RULES)
def test_a_rule_that_contradicts_itself_is_refused(constraint, fields):
    row = EndpointRule(**{"name": "wrong", "path": "/api"} | fields)
    assert refuses(f"rlt_endpointrule_{constraint}", row)


RIGHT_RULES = [
    {},
    {"path": "", "view_name": "search"},
    {"identify_by": "field", "request_field": "username"},
    {"cost": MAX_REQUESTS},
    {"starts_at": NOW, "ends_at": LATER},
    {"starts_at": NOW},
    {"on_store_failure": "closed"},
    {"exempt": True},
]


@pytest.mark.parametrize("fields", RIGHT_RULES)
def test_a_rule_that_makes_sense_is_accepted(fields):
    assert not refuses("", EndpointRule(**{"name": "right", "path": "/api"} | fields))


def test_an_assignment_names_exactly_one_of_user_group_and_key(tier):
    user, group = User.objects.create(username="ada"), Group.objects.create(name="customers")
    given = {"user": user, "group": group, "api_key": "k1"}
    assert refuses("one_subject", TierAssignment(tier=tier))
    assert refuses("one_subject", TierAssignment(tier=tier, **given))
    for left_out in given:
        two = {name: value for name, value in given.items() if name != left_out}
        assert refuses("one_subject", TierAssignment(tier=tier, **two))
    for name, value in given.items():
        assert not refuses("", TierAssignment(tier=tier, **{name: value}))


@pytest.mark.parametrize("moment", [LONG_PAST, FAR_OFF])
def test_an_assignment_that_expires_in_a_year_that_not_all_can_read_is_refused(tier, moment):
    row = TierAssignment(api_key="k1", tier=tier, expires_at=moment)
    assert refuses("expires_at_readable", row)


def test_a_user_and_a_key_are_assigned_once(tier):
    user = User.objects.create(username="ada")
    TierAssignment.objects.create(user=user, tier=tier)
    TierAssignment.objects.create(api_key="k1", tier=tier)
    assert refuses("user_id", TierAssignment(user=user, tier=tier))
    assert refuses("api_key", TierAssignment(api_key="k1", tier=tier))


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("identified", {"networks": ""}),
        ("owner_filled", {"owner": ""}),
        ("reason_filled", {"reason": ""}),
        ("expires_at_readable", {"expires_at": FAR_OFF}),
    ],
)
def test_a_service_account_without_something_it_needs_is_refused(constraint, fields):
    right = {"name": "backup", "owner": "ops", "reason": "nightly", "networks": "192.0.2.0/24"}
    assert refuses(constraint, ServiceAccount(**right | fields))


def alert(**fields: object) -> Alert:
    seen = {"kind": "spike", "cause": "all", "opened_at": NOW, "last_seen_at": NOW}
    return Alert(**seen | fields)


def test_one_alert_of_a_cause_is_open_at_a_time():
    alert(state="closed", closed_at=LATER).save()
    alert(state="closed", closed_at=LATER).save()
    alert().save()
    assert refuses("", alert())
    assert refuses("", alert(state="acknowledged"))
    assert not refuses("", alert(cause="another"))


def test_an_alert_has_an_end_exactly_when_it_is_closed():
    assert refuses("closed_at_if_closed", alert(state="closed"))
    assert refuses("closed_at_if_closed", alert(closed_at=NOW))


def test_a_notice_goes_out_once_for_each_alert_event_channel_and_target():
    of_alert = alert()
    of_alert.save()
    notice = {"alert": of_alert, "event": "opened", "channel": "email", "target": "a@example.com"}
    assert not refuses("", AlertNotice(**notice))
    assert refuses("", AlertNotice(**notice))
    assert not refuses("", AlertNotice(**notice | {"event": "closed"}))


def test_targets_that_differ_in_case_both_get_their_notice():
    of_alert = alert()
    of_alert.save()
    notice = {"alert": of_alert, "event": "opened", "channel": "webhook"}
    for target in ("https://example.com/Hook", "https://example.com/hook"):
        assert not refuses("", AlertNotice(**notice, target=target))


def test_alerts_of_causes_that_differ_in_case_are_open_at_once():
    alert(cause="Spike: GET /a").save()
    assert not refuses("", alert(cause="Spike: GET /A"))


def test_a_webhook_is_reached_by_http_only():
    rule = AlertRule(name="spikes", kind="spike", webhook_url="file:///etc/passwd")
    assert refuses("webhook_by_http", rule)


def test_a_count_is_kept_once_for_each_time_and_subject():
    what = {"policy": "free-minute", "tier": "free", "endpoint": "search", "subject": "user:1"}
    assert not refuses("", ThrottleCount(minute=NOW, **what))
    assert refuses("", ThrottleCount(minute=NOW, count=5, **what))
    for different in ({"mode": "shadow"}, {"resolution": "hour"}, {"subject": "user:2"}):
        assert not refuses("", ThrottleCount(minute=NOW, **what | different))


def test_usage_is_kept_once_for_each_hour_and_subject():
    assert not refuses("", UsageCount(hour=NOW, subject="user:1", allowed=1))
    assert refuses("", UsageCount(hour=NOW, subject="user:1", allowed=2))
