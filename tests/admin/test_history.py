from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.models import (
    Alert,
    AlertRule,
    PolicyRevision,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.store.configured import configured_store
from tests.admin.conftest import errors, page, sent_form

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFUSED = {"policy": "free-minute", "endpoint": "search", "subject": "user:1"}


@pytest.fixture
def alert() -> Alert:
    return Alert.objects.create(
        kind="spike",
        cause="spike of refusals",
        opened_at=NOW,
        last_seen_at=NOW,
        detail={"addresses": ["<b>192.0.2.1</b>"]},
    )


@pytest.fixture
def history(alert) -> dict[str, int]:
    event = ThrottleEvent(at=NOW, decision_id="d1", method="GET", path="/<script>", **REFUSED)
    rows = [
        ThrottleCount(minute=NOW, count=3, **REFUSED),
        event,
        UsageCount(hour=NOW, subject="user:1", allowed=5),
        PolicyRevision(model="tier", reason="changed", subjects=["user:1", "user:2"]),
    ]
    for row in rows:
        row.save()
    return {row._meta.model_name: row.pk for row in (*rows, alert)}


def test_history_is_listed_and_shown_as_text(staff, history):
    for model, pk in history.items():
        for response in (
            staff.get(page(f"{model}_changelist"), {"q": "user"}),
            staff.get(page(f"{model}_changelist")),
            staff.get(page(f"{model}_change", pk)),
        ):
            assert response.status_code == 200
            assert b"/<script>" not in response.content
            assert b"<b>192" not in response.content


def test_pages_break_what_has_no_space_to_break_at(staff, history):
    for model, pk in history.items():
        assert b"django_ratelimit_tiers/admin.css" in staff.get(page(f"{model}_change", pk)).content


def test_a_list_of_history_computes_nothing_for_every_row(staff, history):
    for model in history:
        with CaptureQueriesContext(connection) as queries:
            staff.get(page(f"{model}_changelist"))
        assert not [query for query in queries.captured_queries if "trunc(" in query["sql"].lower()]


def test_nobody_writes_history_by_hand(staff, history):
    for model, pk in history.items():
        assert staff.get(page(f"{model}_add")).status_code == 403
        assert staff.post(page(f"{model}_change", pk), {}).status_code == 403
        assert staff.post(page(f"{model}_delete", pk), {"post": "yes"}).status_code == 403


def test_a_revision_says_whom_it_concerns(staff, history):
    assert b"user:1 and 1 more" in staff.get(page("policyrevision_changelist")).content
    PolicyRevision.objects.update(subjects=[])
    assert b"everyone" in staff.get(page("policyrevision_changelist")).content


def test_a_revision_names_what_was_edited_in_words(staff):
    PolicyRevision.objects.create(model="django_ratelimit_tiers.tierpolicy", reason="changed")
    text = staff.get(page("policyrevision_changelist"), {"_facets": "True"}).content.decode()
    assert ">Limit of a tier</td>" in text
    assert "Limit of a tier (1)" in text
    assert ">django_ratelimit_tiers.tierpolicy" not in text


def test_a_revision_of_a_model_that_has_gone_shows_its_label(staff):
    PolicyRevision.objects.create(model="old.gone", reason="changed")
    assert b">old.gone</td>" in staff.get(page("policyrevision_changelist")).content


def acknowledge(browser, alert: Alert) -> None:
    chosen = {"action": "acknowledge", "_selected_action": [alert.pk]}
    browser.post(page("alert_changelist"), chosen)
    alert.refresh_from_db()


def test_an_open_alert_is_acknowledged_with_name_and_time(staff, admin_user, alert):
    acknowledge(staff, alert)
    assert (alert.state, alert.acknowledged_by) == ("acknowledged", admin_user)
    assert alert.acknowledged_at is not None
    assert LogEntry.objects.get().object_id == str(alert.pk)


def test_a_closed_alert_stays_closed(staff, alert):
    Alert.objects.update(state="closed", closed_at=NOW)
    acknowledge(staff, alert)
    assert alert.state == "closed"
    assert not LogEntry.objects.exists()


def test_a_viewer_acknowledges_nothing(viewer, alert):
    acknowledge(viewer, alert)
    assert alert.state == "open"


ALERT_RULE = {
    "name": "Spikes",
    "kind": "spike",
    "is_active": "on",
    "grouping": "total",
    "sensitivity": "normal",
    "minimum_volume": 20,
    "cooldown": 3600,
    "emails": "ops@example.com",
    "webhook_url": "https://hooks.example.com/x",
    "webhook_secret": "top secret",
}


def start_anew(browser: Client, model: str) -> Any:
    data = {"action": "start_anew", "_selected_action": [1, 2]}
    return browser.post(page(f"{model}_changelist"), data, follow=True)


@pytest.fixture
def charge() -> Charge:
    """One of user 1, who has used all of a limit; the history has rows of him and of others."""
    for pk, subject in enumerate(["user:1", "*"], 1):
        refused = REFUSED | {"pk": pk, "subject": subject}
        ThrottleCount.objects.create(minute=NOW, count=3, **refused)
        ThrottleEvent.objects.create(at=NOW, decision_id=f"d{pk}", **refused)
        UsageCount.objects.create(pk=pk, hour=NOW, subject=subject)
    charge = Charge("user:1", QuotaPolicy("p", 1, 86_400))
    configured_store().acquire([charge])
    return charge


def remaining(charge: Charge) -> int:
    return configured_store().peek([charge])[0].remaining


@pytest.mark.parametrize("model", ["throttlecount", "throttleevent", "usagecount"])
def test_staff_lets_a_client_start_anew(staff, charge, model):
    assert b"1 client starts anew." in start_anew(staff, model).content
    assert remaining(charge) == 1
    assert LogEntry.objects.get().object_id == "1"


@pytest.mark.parametrize("model", ["throttlecount", "throttleevent", "usagecount"])
def test_a_viewer_lets_nobody_start_anew(viewer, charge, model):
    start_anew(viewer, model)
    assert remaining(charge) == 0


def test_a_store_that_is_away_is_told(staff, charge, settings):
    settings.RATELIMIT_TIERS = {
        "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
        "STORE_OPTIONS": {"url": "redis://127.0.0.1:1"},
    }
    assert b"The store does not answer" in start_anew(staff, "throttlecount").content
    assert not LogEntry.objects.exists()


def test_memory_that_no_other_process_can_reset_is_told(staff, charge, settings):
    settings.RATELIMIT_TIERS = {"STORE": "django_ratelimit_tiers.store.memory.MemoryStore"}
    assert b"Each process counts in its own memory" in start_anew(staff, "throttlecount").content
    assert not LogEntry.objects.exists()


def test_a_client_with_a_long_history_starts_anew_once(staff, charge):
    for minute in range(1, 60):
        ThrottleCount.objects.create(minute=NOW.replace(minute=minute), **REFUSED)
    chosen = list(ThrottleCount.objects.values_list("pk", flat=True))
    data = {"action": "start_anew", "_selected_action": chosen}
    with CaptureQueriesContext(connection) as queries:
        staff.post(page("throttlecount_changelist"), data)
    assert remaining(charge) == 1
    assert LogEntry.objects.get().object_repr.startswith("2026-01-01 00:59 free-minute user:1")
    [read] = [q["sql"] for q in queries if "GROUP BY" in q["sql"]]
    assert "LIMIT 1001" in read


def test_one_action_is_for_so_many_clients(staff, charge, monkeypatch):
    monkeypatch.setattr("django_ratelimit_tiers.admin.history.MOST_RESETS", 0)
    assert b"Select fewer" in start_anew(staff, "throttlecount").content
    assert remaining(charge) == 0


@pytest.fixture
def rule(staff) -> AlertRule:
    assert staff.post(page("alertrule_add"), ALERT_RULE).status_code == 302
    return AlertRule.objects.latest("pk")


def test_a_secret_is_kept_and_never_sent_back(staff, rule):
    response = staff.get(page("alertrule_change", rule.pk))
    assert b"top secret" not in response.content
    form = sent_form(response) | {"webhook_secret": "", "name": "Any spike"}
    staff.post(page("alertrule_change", rule.pk), form)
    rule.refresh_from_db()
    assert (rule.name, rule.webhook_secret) == ("Any spike", "top secret")


def test_a_viewer_learns_only_that_there_is_a_secret(viewer):
    rule = AlertRule.objects.create(name="x", kind="spike", webhook_secret="top secret")
    response = viewer.get(page("alertrule_change", rule.pk))
    assert b"Has a webhook secret" in response.content
    assert b"top secret" not in response.content


@pytest.mark.parametrize(
    ("model", "secret"),
    [
        ("alertrule", "webhook_secret"),
        ("alert", "rule__webhook_secret"),
        ("alert", "acknowledged_by__password"),
        ("policyrevision", "author__password"),
        ("serviceaccount", "key_digest"),
        ("serviceaccount", "user__password"),
        ("tierassignment", "user__password"),
    ],
)
@pytest.mark.parametrize("lookup", ["", "__startswith", "__gte"])
def test_no_list_is_filtered_by_a_secret(viewer, model, secret, lookup):
    address = page(f"{model}_changelist")
    assert viewer.get(address).status_code == 200
    assert viewer.get(address, {f"{secret}{lookup}": "t"}).status_code == 400


def test_a_secret_goes_with_its_webhook(staff, rule):
    form = sent_form(staff.get(page("alertrule_change", rule.pk)))
    form |= {"webhook_secret": "", "webhook_url": ""}
    assert staff.post(page("alertrule_change", rule.pk), form).status_code == 302
    rule.refresh_from_db()
    assert rule.webhook_secret == ""


def test_an_alert_rule_is_listed_with_who_is_told(staff, rule):
    assert b"ops@example.com, webhook" in staff.get(page("alertrule_changelist")).content


@pytest.mark.parametrize(
    ("field", "value"),
    [("webhook_url", "javascript:alert(1)"), ("emails", "ops"), ("minimum_volume", -1)],
)
def test_a_wrong_alert_rule_is_refused_at_its_field(staff, field, value):
    sent = ALERT_RULE | {"webhook_secret": "", field: value}
    assert set(errors(staff.post(page("alertrule_add"), sent))) == {field}
