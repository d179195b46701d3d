"""The pages of alert rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.views.debug import ExceptionReporter

from django_ratelimit_tiers.models import AlertRule, SeriesHour
from tests.admin.conftest import errors, page, sent_form

pytestmark = pytest.mark.django_db


def test_the_list_says_who_is_told_those_in_the_settings_too(staff: Client, settings: Any) -> None:
    AlertRule.objects.all().delete()
    AlertRule.objects.create(kind="spike", name="any", emails="a@example.com\nb@example.com")
    events = {"RECIPIENTS": ["b@example.com"], "WEBHOOK": "https://chat.example.org/h"}
    settings.RATELIMIT_TIERS = {"EVENTS": events}
    text = staff.get(page("alertrule_changelist")).content.decode()
    assert "a@example.com, b@example.com, webhook<" in text


def test_a_rule_whose_alerts_could_be_called_as_anothers_is_refused(staff: Client) -> None:
    rule = AlertRule.objects.create(kind="spike", name="any")
    sent = sent_form(staff.get(page("alertrule_change", rule.pk))) | {"name": "any: login"}
    message = "Leave out “: ”: what follows it in an alert is what the rule has found."
    assert errors(staff.post(page("alertrule_change", rule.pk), sent)) == {"name": [message]}


def test_a_secret_that_got_lost_with_a_wrong_form_has_to_be_typed_again(staff: Client) -> None:
    rule = AlertRule.objects.create(kind="spike", name="any")
    sent = sent_form(staff.get(page("alertrule_change", rule.pk)))
    sent |= {"webhook_url": "https://example.org/h", "webhook_secret": "s3cret", "emails": "nobody"}
    response = staff.post(page("alertrule_change", rule.pk), sent)
    assert b"s3cret" not in response.content
    assert errors(response)["webhook_secret"] == ["Type the secret again: it is not shown here."]
    assert staff.post(page("alertrule_change", rule.pk), sent | {"emails": ""}).status_code == 302
    rule.refresh_from_db()
    assert rule.webhook_secret == "s3cret"


def test_what_django_mails_of_an_error_tells_no_secret(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room on the disk")

    rule = AlertRule.objects.create(kind="spike", name="any")
    sent = sent_form(staff.get(page("alertrule_change", rule.pk)))
    sent |= {"webhook_url": "https://example.org/h", "webhook_secret": "s3cret"}
    monkeypatch.setattr(AlertRule, "save", fail)
    staff.raise_request_exception = False
    response = staff.post(page("alertrule_change", rule.pk), sent)
    assert response.status_code == 500
    told = ExceptionReporter(response.wsgi_request, *response.exc_info).get_traceback_text()
    assert "no room on the disk" in told
    assert "https://example.org/h" in told
    assert "s3cret" not in told


def test_a_wrong_form_without_a_secret_asks_for_none(staff: Client) -> None:
    rule = AlertRule.objects.create(kind="spike", name="any")
    sent = sent_form(staff.get(page("alertrule_change", rule.pk))) | {"emails": "nobody"}
    assert set(errors(staff.post(page("alertrule_change", rule.pk), sent))) == {"emails"}


def test_the_one_address_of_many_that_is_wrong_is_named(staff: Client) -> None:
    rule = AlertRule.objects.create(kind="spike", name="any")
    sent = sent_form(staff.get(page("alertrule_change", rule.pk)))
    sent |= {"emails": "ops@example.com\nnobody\nduty@example.com"}
    [message] = errors(staff.post(page("alertrule_change", rule.pk), sent))["emails"]
    assert "“nobody”" in message


def watched(name: str, hours: int) -> AlertRule:
    """An alert rule that has watched for so long."""
    rule = AlertRule.objects.create(kind="spike", name=name)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    SeriesHour.objects.bulk_create(
        SeriesHour(rule=rule, hour=start + timedelta(hours=number)) for number in range(hours)
    )
    return rule


def test_the_page_that_deletes_a_rule_with_many_hours_tells_how_many_and_lists_none(
    staff: Client, django_assert_max_num_queries: Any
) -> None:
    rule = watched("<i>any", 1500)
    with django_assert_max_num_queries(8):
        text = staff.get(page("alertrule_delete", rule.pk)).content.decode()
    assert "<li>Alert rule: &lt;i&gt;any</li>" in text
    assert "<li>1,500 hours of series</li>" in text
    assert "2026-01-01 00:00" not in text
    assert staff.post(page("alertrule_delete", rule.pk), {"post": "yes"}).status_code == 302
    assert not SeriesHour.objects.exists()


def test_several_rules_with_many_hours_are_deleted_together(staff: Client) -> None:
    rules = [watched("one", 60).pk, watched("two", 60).pk]
    sent = {"action": "delete_selected", "_selected_action": rules}
    assert b"<li>120 hours of series</li>" in staff.post(page("alertrule_changelist"), sent).content
    sent |= {"post": "yes"}
    assert staff.post(page("alertrule_changelist"), sent).status_code == 302
    assert not AlertRule.objects.filter(pk__in=rules).exists()


def test_the_few_hours_of_a_rule_are_listed(staff: Client) -> None:
    text = staff.get(page("alertrule_delete", watched("any", 2).pk)).content.decode()
    assert "2026-01-01 01:00" in text
