from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from django_ratelimit_tiers.models import (
    Alert,
    EndpointRule,
    PolicyRevision,
    ServiceAccount,
    ThrottleCount,
    ThrottleEvent,
    Tier,
    UsageCount,
)
from django_ratelimit_tiers.policy.compilation import compile_rules
from tests.admin.conftest import allowed, page

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 1, 12, 30, 15, tzinfo=UTC)


def refused(**options: object) -> ThrottleEvent:
    fields = {"policy": "search-minute", "subject": "user:1", "decision_id": "d1", **options}
    return ThrottleEvent.objects.create(at=NOW, method="GET", path="/api/search/", **fields)


def shown(browser: Client, event: ThrottleEvent) -> str:
    return browser.get(page("throttleevent_change", event.pk)).content.decode()


def leads_to(browser: Client, text: str, model: str) -> int:
    """How many rows the list shows that a page links to."""
    [link] = [part.split('"')[0] for part in text.split('href="') if f"/{model}/?" in part]
    listed = browser.get(link.replace("&amp;", "&"))
    assert listed.status_code == 200, urlsplit(link).query
    return listed.context["cl"].result_count


def test_an_event_leads_to_the_rule_and_the_revision_that_decided(staff):
    rule = EndpointRule.objects.create(name="Search & <b>more</b>", path="/api/search/")
    revision = PolicyRevision.objects.latest("pk")
    text = shown(staff, refused(rule=rule.name, revision=revision.pk))
    assert f'<a href="{page("endpointrule_change", rule.pk)}">Search &amp; &lt;b&gt;' in text
    assert f'<a href="{page("policyrevision_change", revision.pk)}">{revision.pk}</a>' in text


def test_an_event_is_shown_when_its_rule_and_revision_have_gone(staff):
    text = shown(staff, refused(rule="Gone", revision=4711))
    assert ">Gone</div>" in text
    assert ">4711</div>" in text


def test_what_is_not_known_is_shown_as_a_dash(staff):
    assert ">None<" not in shown(staff, refused())
    alert = Alert.objects.create(kind="spike", cause="x", opened_at=NOW, last_seen_at=NOW)
    assert b">None<" not in staff.get(page("alert_change", alert.pk)).content
    assert b">None<" not in staff.get(page("alert_changelist")).content


def test_an_event_leads_to_everything_of_its_client_and_of_no_other(staff):
    event = refused()
    refused(subject="user:12", decision_id="d2")
    UsageCount.objects.create(hour=NOW, subject="user:1")
    text = shown(staff, event)
    assert leads_to(staff, text, "throttleevent") == 1
    assert leads_to(staff, text, "usagecount") == 1
    assert leads_to(staff, text, "throttlecount") == 0


def test_a_subject_is_shown_with_the_name_of_the_user_or_account(staff, admin_user):
    account = ServiceAccount.objects.create(
        name="Nightly", owner="Ops", reason="x", networks="192.0.2.0/24"
    )
    text = shown(staff, refused(subject=f"user:{admin_user.pk}"))
    link = reverse("admin:auth_user_change", args=[admin_user.pk])
    assert f'user:{admin_user.pk} (<a href="{link}">admin</a>)' in text
    usage = UsageCount.objects.create(hour=NOW, subject=f"account:{account.pk}")
    text = staff.get(page("usagecount_change", usage.pk)).content.decode()
    assert f'<a href="{page("serviceaccount_change", account.pk)}">Nightly</a>' in text


@pytest.mark.parametrize("subject", ["user:0", "user:<b>x", "ip:192.0.2.7", "all", "*"])
def test_a_subject_without_a_name_is_shown_as_it_is(staff, subject):
    assert not User.objects.filter(pk=0).exists()
    assert f"{subject.replace('<', '&lt;').replace('>', '&gt;')} ·" in shown(
        staff, refused(subject=subject)
    )


def test_times_of_history_have_seconds_and_a_zone(staff, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    event = refused()
    assert b"2026-01-01 13:30:15 CET" in staff.get(page("throttleevent_changelist")).content
    assert "2026-01-01 13:30:15 CET" in shown(staff, event)


def test_a_rule_leads_to_what_it_refused(staff):
    rule = EndpointRule.objects.create(name="Search", path="/api/search/")
    rule.policies.create(requests=5, period=60)
    refused(rule="Search")
    refused(rule="Search more", decision_id="d2")
    for policy in ("search-minute", "research-minute"):
        ThrottleCount.objects.create(minute=NOW, count=3, policy=policy, subject="user:1")
    text = staff.get(page("endpointrule_change", rule.pk)).content.decode()
    assert leads_to(staff, text, "throttleevent") == 1
    assert leads_to(staff, text, "throttlecount") == 1


def test_a_rule_whose_name_is_not_ascii_leads_to_its_own_counts(staff):
    rule = EndpointRule.objects.create(name="API поиск", path="/api/search/")
    rule.policies.create(requests=5, period=60)
    for policy in (f"api-{rule.pk}-minute", f"api-{rule.pk + 1}-minute"):
        ThrottleCount.objects.create(minute=NOW, policy=policy, subject="user:1", count=5)
    text = staff.get(page("endpointrule_change", rule.pk)).content.decode()
    assert leads_to(staff, text, "throttlecount") == 1


def test_a_rule_leads_to_nothing_of_a_rule_whose_name_goes_on(staff):
    rule = EndpointRule.objects.create(name="Login", path="/login/", mode="shadow")
    rule.policies.create(requests=5, period=60)
    for policy in ("login-minute", "login-api-minute", "login-hour"):
        ThrottleCount.objects.create(minute=NOW, count=3, policy=policy, subject="user:1")
    text = staff.get(page("endpointrule_change", rule.pk)).content.decode()
    assert leads_to(staff, text, "throttlecount") == 1


def test_a_rule_leads_to_what_each_of_its_limits_refused(staff):
    rule = EndpointRule.objects.create(name="Login", path="/login/")
    for period, tier, algorithm in (
        (60, None, "fixed_window"),
        (60, None, "token_bucket"),
        (300, None, "fixed_window"),
        (60, Tier.objects.get(slug="pro"), "fixed_window"),
    ):
        rule.policies.create(requests=5, period=period, tier=tier, algorithm=algorithm)
    [compiled] = compile_rules()
    names = {policy.name for policies in compiled.policies.values() for policy in policies}
    assert len(names) == 4
    for policy in names:
        ThrottleCount.objects.create(minute=NOW, count=3, policy=policy, subject="user:1")
    text = staff.get(page("endpointrule_change", rule.pk)).content.decode()
    assert leads_to(staff, text, "throttlecount") == 4


def test_a_tier_leads_to_those_who_have_it_and_to_what_it_refused(staff):
    tier = Tier.objects.get(slug="pro")
    ThrottleCount.objects.create(minute=NOW, policy="pro-minute", tier="pro", subject="user:1")
    text = staff.get(page("tier_change", tier.pk)).content.decode()
    assert leads_to(staff, text, "tierassignment") == 0
    assert leads_to(staff, text, "throttlecount") == 1


def at_ops(browser: Client, model: str, pk: int) -> str:
    """A page of the smaller site."""
    address = reverse(f"admin:django_ratelimit_tiers_{model}_change", args=[pk], current_app="ops")
    assert address.startswith("/ops/")
    response = browser.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_links_stay_within_the_site_of_their_page(staff):
    rule = EndpointRule.objects.create(name="Search", path="/api/search/")
    text = at_ops(staff, "throttleevent", refused(rule="Search").pk)
    assert f'<a href="/ops/django_ratelimit_tiers/endpointrule/{rule.pk}/change/">' in text
    assert 'href="/admin/' not in text


@pytest.mark.parametrize("model", ["tier", "endpointrule", "throttleevent"])
def test_what_the_site_has_no_page_for_is_named_without_a_link(staff, model):
    EndpointRule.objects.create(name="Search", path="/api/search/")
    refused(revision=PolicyRevision.objects.latest("pk").pk)
    text = at_ops(staff, model, apps.get_model("django_ratelimit_tiers", model).objects.first().pk)
    assert "throttle counts ·" in text or "· throttle counts" in text
    assert "/throttlecount/" not in text
    assert 'href="/admin/' not in text


def test_no_link_leads_to_a_page_that_its_reader_may_not_see(client):
    browser = allowed(client, "view_tier")
    text = browser.get(page("tier_change", Tier.objects.get(slug="free").pk)).content.decode()
    assert "throttle counts" in text
    assert page("throttlecount_changelist") not in text
    assert page("tierassignment_changelist") not in text


def test_a_user_is_named_to_those_only_who_may_view_users(client, viewer):
    somebody = User.objects.create_user("alice")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    usage = UsageCount.objects.create(hour=moment, subject=f"user:{somebody.pk}")
    address = page("usagecount_change", usage.pk)
    assert b"alice" in viewer.get(address).content
    text = allowed(client, "view_usagecount").get(address).content.decode()
    assert "alice" not in text
    assert f"?subject=user%3A{somebody.pk}" in text


def test_who_made_an_edit_is_told_to_those_only_who_may_view_users(client, viewer):
    author = User.objects.create_user("alice")
    edit = PolicyRevision.objects.create(model="tier", reason="changed", author=author)
    address = page("throttleevent_change", refused(revision=edit.pk).pk)
    assert b", by alice." in viewer.get(address).content
    text = allowed(client, "view_throttleevent").get(address).content.decode()
    assert f"by revision {edit.pk} of the policy" in text
    assert "alice" not in text
