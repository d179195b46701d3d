"""Two staff members who edit the limits of one tier or rule; a form that is sent twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from django_ratelimit_tiers.admin.limits import LimitFormSet
from django_ratelimit_tiers.models import EndpointRule, Tier
from tests.admin.conftest import errors, page, rows, sent_form

pytestmark = pytest.mark.django_db


@pytest.fixture
def gold() -> Tier:
    tier = Tier.objects.create(slug="gold", name="Gold", rank=25)
    tier.policies.create(requests=60, period=60)
    tier.policies.create(requests=5_000, period=86_400)
    return tier


def shown(staff: Client, tier: Tier) -> dict[str, Any]:
    return sent_form(staff.get(page("tier_change", tier.pk)))


def test_a_limit_that_two_delete_is_gone(staff, gold):
    form = shown(staff, gold) | {"policies-0-DELETE": "on"}
    for _ in range(2):
        assert staff.post(page("tier_change", gold.pk), form).status_code == 302
    assert gold.policies.get().period == 86_400


def test_an_edit_of_a_limit_that_another_has_deleted_is_refused_in_words(staff, gold):
    form = shown(staff, gold)
    gold.policies.get(period=60).delete()
    found = errors(staff.post(page("tier_change", gold.pk), form))
    assert found["rows"] == ["Somebody else has deleted one of these limits: load the page again."]


def test_a_limit_that_two_add_is_refused_the_second_time(staff, gold):
    gold.policies.all().delete()
    form = shown(staff, gold) | rows({"requests": 5, "period": 3_600})
    assert staff.post(page("tier_change", gold.pk), form).status_code == 302
    found = errors(staff.post(page("tier_change", gold.pk), form))
    assert found == {"0-period": ["Somebody else has added a limit of this period and algorithm."]}


def test_a_limit_of_a_rule_that_two_add_is_refused_the_second_time(staff):
    rule = EndpointRule.objects.create(name="r", path="/api/search/")
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    form |= rows({"requests": 5, "period": 60, "tier": ""})
    assert staff.post(page("endpointrule_change", rule.pk), form).status_code == 302
    assert "0-period" in errors(staff.post(page("endpointrule_change", rule.pk), form))


def test_a_limit_for_another_tier_than_somebody_has_added_is_saved(staff, gold):
    rule = EndpointRule.objects.create(name="r", path="/api/search/")
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    rule.policies.create(requests=5, period=60)
    form |= rows({"requests": 5, "period": 60, "tier": gold.pk})
    assert staff.post(page("endpointrule_change", rule.pk), form).status_code == 302
    assert rule.policies.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_forms_that_are_sent_at_once_the_second_is_refused_in_words(gold, monkeypatch):
    staff = User.objects.create_superuser("staff")
    browsers = [Client(raise_request_exception=False) for _ in range(2)]
    for browser in browsers:
        browser.force_login(staff)
    form = shown(browsers[0], gold) | rows({"requests": 70, "period": 3_600})
    both, clean = Barrier(2), LimitFormSet.clean

    def clean_together(formset: LimitFormSet) -> None:
        clean(formset)
        with suppress(BrokenBarrierError):
            both.wait(1)

    def status(browser: Client) -> int:
        try:
            return browser.post(page("tier_change", gold.pk), form).status_code
        finally:
            connection.close()

    monkeypatch.setattr(LimitFormSet, "clean", clean_together)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(status, browsers)) == [200, 302]
    assert gold.policies.count() == 3
