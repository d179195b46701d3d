from __future__ import annotations

from contextlib import suppress

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.admin.periods import PeriodField
from django_ratelimit_tiers.models import PolicyRevision, Tier
from django_ratelimit_tiers.models.words import period_words
from tests.admin.conftest import errors, page, rows, sent_form

NEW = {"name": "Gold", "slug": "gold", "rank": 25, "default_for": "", "mode": "enforce"}


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("300", 300),
        (" 60 ", 60),
        ("minute", 60),
        ("5 minutes", 300),
        ("1 day", 86_400),
        ("2weeks", 1_209_600),
        ("6 HOURS", 21_600),
        ("90 seconds", 90),
    ],
)
def test_a_period_is_typed_in_seconds_or_in_words(typed, seconds):
    assert PeriodField().clean(typed) == seconds


@pytest.mark.parametrize(
    "typed",
    ["soon", "5 fortnights", "-5 minutes", "1.5 hours", "minutes 5", "٥ minutes", "9" * 5_000],
)
def test_what_is_no_period_is_refused(typed):
    with pytest.raises(ValidationError):
        PeriodField().clean(typed)


@given(st.integers(min_value=1, max_value=366 * 86_400))
def test_the_words_of_every_period_can_be_typed(seconds):
    assert PeriodField().clean(period_words(seconds)) == seconds


@given(st.text())
def test_any_text_is_a_period_or_refused(text):
    with suppress(ValidationError):
        PeriodField(required=False).clean(text)


@pytest.mark.django_db
def test_a_limit_is_saved_with_a_period_in_words(staff):
    limits = rows({"requests": 60, "period": "5 minutes"})
    assert staff.post(page("tier_add"), NEW | limits).status_code == 302
    assert Tier.objects.get(slug="gold").policies.get().period == 300


@pytest.mark.django_db
def test_the_form_of_a_rule_takes_words_too(staff):
    text = staff.get(page("endpointrule_add")).content.decode()
    assert 'name="policies-0-period" size="12"' in text


@pytest.mark.django_db
@pytest.mark.parametrize("period", ["soon", "0 minutes", "999999999999 weeks", "-60"])
def test_a_wrong_period_is_refused_at_its_field(staff, period):
    response = staff.post(page("tier_add"), NEW | rows({"requests": 60, "period": period}))
    assert set(errors(response)) == {"0-period"}


@pytest.mark.django_db
def test_a_refusal_says_how_a_period_is_written(staff):
    found = errors(staff.post(page("tier_add"), NEW | rows({"requests": 60, "period": "soon"})))
    assert found == {"0-period": ["Write a period like 300 or “5 minutes”."]}


@pytest.mark.django_db
def test_the_same_period_in_words_is_no_change(staff):
    free = Tier.objects.get(slug="free")
    form = sent_form(staff.get(page("tier_change", free.pk)))
    number = [form[f"policies-{n}-period"] for n in range(2)].index(60)
    change = {f"policies-{number}-period": "1 minute"}
    PolicyRevision.objects.all().delete()
    assert staff.post(page("tier_change", free.pk), form | change).status_code == 302
    revisions = PolicyRevision.objects.values_list("model", flat=True)
    assert "django_ratelimit_tiers.tierpolicy" not in revisions


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["requests", "period", "burst"])
def test_a_number_with_its_thousands_apart_is_not_taken_for_a_smaller_one(staff, field):
    limit = {"requests": 9_000, "period": 60, "algorithm": "token_bucket", "burst": 9_000}
    response = staff.post(page("tier_add"), NEW | rows(limit | {field: "5.000"}))
    assert set(errors(response)) == {f"0-{field}"}


@pytest.mark.django_db
def test_neither_is_a_cost(staff):
    form = sent_form(staff.get(page("endpointrule_add"))) | {"name": "r", "path": "/api/search/"}
    limits = rows({"requests": 9_000, "period": 60, "tier": ""})
    assert "cost" in errors(staff.post(page("endpointrule_add"), form | limits | {"cost": "1.000"}))
