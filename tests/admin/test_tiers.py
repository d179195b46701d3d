from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry

from django_ratelimit_tiers.models import PolicyRevision, Tier, TierPolicy
from tests.admin.conftest import errors, page, rows, sent_form

pytestmark = pytest.mark.django_db


@pytest.fixture
def free() -> Tier:
    return Tier.objects.get(slug="free")


def test_the_list_says_in_words_what_a_tier_allows(staff):
    text = staff.get(page("tier_changelist")).content.decode()
    assert "60 per minute, burst 100; 5,000 per day" in text
    assert "unlimited" in text
    assert "no limits yet" in text


def test_the_list_costs_the_same_however_many_tiers_there_are(staff, django_assert_max_num_queries):
    Tier.objects.bulk_create([Tier(slug=f"t{n}", name=f"T{n}") for n in range(50)])
    with django_assert_max_num_queries(8):
        staff.get(page("tier_changelist"))


def test_a_tier_is_found_by_its_slug(staff):
    assert b"5,000 per day" in staff.get(page("tier_changelist"), {"q": "free"}).content


def test_a_raised_limit_is_saved_logged_and_attributed(staff, admin_user, free):
    form = sent_form(staff.get(page("tier_change", free.pk)))
    number = [form[f"policies-{n}-period"] for n in range(2)].index(60)
    PolicyRevision.objects.all().delete()
    staff.post(page("tier_change", free.pk), form | {f"policies-{number}-requests": 90})
    assert free.policies.get(period=60).requests == 90
    assert LogEntry.objects.get().object_id == str(free.pk)
    assert {revision.author for revision in PolicyRevision.objects.all()} == {admin_user}


def test_a_row_is_headed_by_its_limit_in_words(staff, free):
    text = staff.get(page("tier_change", free.pk)).content.decode()
    assert "Free: 60 per minute, burst 100" in text


def test_a_new_tier_comes_with_its_limits(staff):
    form = {"name": "Gold", "slug": "gold", "rank": 25, "default_for": ""}
    limits = rows({"requests": 60, "period": 60}, {"requests": 5_000, "period": 86_400})
    assert staff.post(page("tier_add"), form | limits).status_code == 302
    assert Tier.objects.get(slug="gold").policies.count() == 2


NEW = {"name": "Gold", "slug": "gold", "rank": 25, "default_for": ""}


@pytest.mark.parametrize(
    ("limits", "at_fault"),
    [
        ([{"requests": 0, "period": 60}], {"0-requests"}),
        ([{"requests": -1, "period": 60}], {"0-requests"}),
        ([{"requests": "1" * 30, "period": 60}], {"0-requests"}),
        ([{"requests": 1, "period": 0}], {"0-period"}),
        ([{"requests": 1, "period": 60, "burst": 5}], {"0-burst"}),
        ([{"requests": 9, "period": 60}, {"requests": 5, "period": 3600}], {"1-requests"}),
        ([{"requests": 5, "period": 3600}, {"requests": 9, "period": 60}], {"0-requests"}),
        ([{"requests": "", "period": 60}], {"0-requests"}),
        ([{"requests": 5, "period": 60, "algorithm": "leaky"}], {"0-algorithm"}),
    ],
)
def test_a_wrong_limit_is_refused_at_its_field(staff, limits, at_fault):
    response = staff.post(page("tier_add"), NEW | rows(*limits))
    assert set(errors(response)) == at_fault
    assert not Tier.objects.filter(slug="gold").exists()


def test_a_repeated_limit_is_refused(staff):
    twice = rows({"requests": 5, "period": 60}, {"requests": 5, "period": 60})
    assert errors(staff.post(page("tier_add"), NEW | twice))


def test_limits_of_the_same_period_by_other_algorithms_are_no_repetition(staff):
    both = rows(
        {"requests": 9, "period": 60},
        {"requests": 5, "period": 60, "algorithm": "fixed_window"},
    )
    assert staff.post(page("tier_add"), NEW | both).status_code == 302


def test_a_deleted_row_is_not_compared(staff, free):
    form = sent_form(staff.get(page("tier_change", free.pk)))
    number = [form[f"policies-{n}-period"] for n in range(2)].index(60)
    change = {f"policies-{number}-DELETE": "on", f"policies-{1 - number}-requests": 1}
    assert staff.post(page("tier_change", free.pk), form | change).status_code == 302
    assert TierPolicy.objects.get(tier=free).requests == 1


def test_a_second_default_is_refused_in_words(staff):
    form = {"name": "Gold", "slug": "gold", "rank": 25, "default_for": "anonymous"}
    response = staff.post(page("tier_add"), form | rows())
    assert "Another tier is the default" in str(errors(response))


def test_a_viewer_changes_nothing(viewer, free):
    assert viewer.get(page("tier_change", free.pk)).status_code == 200
    assert viewer.post(page("tier_change", free.pk), {}).status_code == 403
    assert viewer.post(page("tier_delete", free.pk), {"post": "yes"}).status_code == 403
    assert viewer.get(page("tier_add")).status_code == 403
