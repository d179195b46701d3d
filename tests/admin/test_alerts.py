"""The pages of alert rules."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from django_ratelimit_tiers.models import AlertRule
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
