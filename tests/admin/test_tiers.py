from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User

from django_ratelimit_tiers.models import PolicyRevision, Tier, TierAssignment, TierPolicy
from tests.admin.conftest import allowed, errors, page, row, rows, sent_form, warnings

pytestmark = pytest.mark.django_db


@pytest.fixture
def free() -> Tier:
    return Tier.objects.get(slug="free")


def test_the_list_says_in_words_what_a_tier_allows(staff):
    text = staff.get(page("tier_changelist")).content.decode()
    assert "60 per minute, burst 100; 5,000 per day" in text
    assert "unlimited" in text
    assert "no limits yet" in text


def test_the_list_does_not_say_that_an_unlimited_tier_is_recorded(staff):
    Tier.objects.exclude(slug="internal").delete()
    Tier.objects.update(unlimited=True, mode="shadow")
    text = staff.get(page("tier_changelist")).content.decode()
    assert "unlimited" in text
    assert "only recorded" not in text


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
    form = {"name": "Gold", "slug": "gold", "rank": 25, "default_for": "", "mode": "enforce"}
    limits = rows({"requests": 60, "period": 60}, {"requests": 5_000, "period": 86_400})
    assert staff.post(page("tier_add"), form | limits).status_code == 302
    assert Tier.objects.get(slug="gold").policies.count() == 2


NEW = {"name": "Gold", "slug": "gold", "rank": 25, "default_for": "", "mode": "enforce"}


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


def test_a_limit_that_another_keeps_out_of_reach_is_saved_with_a_warning(staff):
    limits = rows({"requests": 2, "period": 60}, {"requests": 9_000, "period": 86_400})
    response = staff.post(page("tier_add"), NEW | limits)
    assert Tier.objects.get(slug="gold").policies.count() == 2
    assert warnings(response) == ["“9,000 per day” is never reached: “2 per minute” refuses first."]


def test_limits_that_are_all_reached_are_saved_without_a_warning(staff, free):
    form = sent_form(staff.get(page("tier_change", free.pk)))
    assert warnings(staff.post(page("tier_change", free.pk), form)) == []


def test_a_row_that_is_deleted_keeps_no_other_out_of_reach(staff, free):
    form = sent_form(staff.get(page("tier_change", free.pk)))
    number = [form[f"policies-{n}-period"] for n in range(2)].index(60)
    form |= {f"policies-{1 - number}-requests": 900_000}
    [warning] = warnings(staff.post(page("tier_change", free.pk), form))
    assert warning.startswith("“900,000 per day” is never reached: ")
    staff.get(page("tier_changelist"))  # shows it
    form |= {f"policies-{number}-DELETE": "on"}
    assert warnings(staff.post(page("tier_change", free.pk), form)) == []


def test_a_deleted_row_is_not_compared(staff, free):
    form = sent_form(staff.get(page("tier_change", free.pk)))
    number = [form[f"policies-{n}-period"] for n in range(2)].index(60)
    change = {f"policies-{number}-DELETE": "on", f"policies-{1 - number}-requests": 1}
    assert staff.post(page("tier_change", free.pk), form | change).status_code == 302
    assert TierPolicy.objects.get(tier=free).requests == 1


PERIODS = {60: 10, 3600: 100, 86_400: 1_000}


@pytest.fixture
def gold() -> Tier:
    """A tier with three limits, whose rows are listed by their period."""
    gold = Tier.objects.create(slug="gold", name="Gold", rank=25)
    for period, requests in PERIODS.items():
        gold.policies.create(requests=requests, period=period)
    return gold


@pytest.mark.parametrize(
    ("change", "periods"),
    [
        (["hour", "day", "week"], [3600, 86_400, 604_800]),
        (["week", "minute", "hour"], [604_800, 60, 3600]),
        (["hour", "minute", "day"], [3600, 60, 86_400]),
        (["second", "minute", "hour"], [1, 60, 3600]),
        (["hour", None, "day"], [3600, 86_400]),
        ([None, "minute", "hour"], [60, 3600]),
    ],
)
def test_limits_take_the_places_of_others(staff, gold, change, periods):
    before = list(gold.policies.values_list("pk", flat=True))
    kept = [pk for pk, period in zip(before, change, strict=True) if period]
    form = sent_form(staff.get(page("tier_change", gold.pk)))
    for number, period in enumerate(change):
        form |= {f"policies-{number}-requests": 5}
        form |= row(number, period=period) if period else {f"policies-{number}-DELETE": "on"}
    assert staff.post(page("tier_change", gold.pk), form).status_code == 302
    after = gold.policies.order_by("pk").values_list("pk", "period", "requests")
    assert list(after) == [(pk, period, 5) for pk, period in zip(kept, periods, strict=True)]


def test_a_new_limit_takes_the_place_of_one_that_moves(staff, gold):
    form = sent_form(staff.get(page("tier_change", gold.pk)))
    form |= {"policies-TOTAL_FORMS": 4} | row(3, requests=1, period="minute")
    form |= row(0, period="second", requests=1)
    assert staff.post(page("tier_change", gold.pk), form).status_code == 302
    assert gold.policies.count() == 4


def test_limits_that_swap_places_are_logged_as_changed(staff, gold):
    form = sent_form(staff.get(page("tier_change", gold.pk)))
    form |= row(0, requests=100, period=3600) | row(1, requests=10, period=60)
    form |= {"policies-2-DELETE": "on"}
    staff.post(page("tier_change", gold.pk), form)
    assert LogEntry.objects.get().get_change_message() == (
        "Changed Requests and Period for limit of a tier “Gold: 100 per hour”. "
        "Changed Requests and Period for limit of a tier “Gold: 10 per minute”. "
        "Deleted limit of a tier “Gold: 1000 per day”."
    )


def test_limits_that_swap_places_are_announced_once(
    staff, gold, django_capture_on_commit_callbacks
):
    form = sent_form(staff.get(page("tier_change", gold.pk)))
    form |= row(0, requests=100, period=3600) | row(1, requests=10, period=60)
    with django_capture_on_commit_callbacks() as announcements:
        staff.post(page("tier_change", gold.pk), form)
    assert len(set(announcements)) == 1


def test_a_limit_with_another_period_is_recorded_as_changed(staff, gold):
    form = sent_form(staff.get(page("tier_change", gold.pk)))
    PolicyRevision.objects.all().delete()
    staff.post(page("tier_change", gold.pk), form | row(0, period="second"))
    limits = PolicyRevision.objects.filter(model="django_ratelimit_tiers.tierpolicy")
    assert {revision.reason for revision in limits} == {"changed"}


ANONYMOUS = NEW | {"default_for": "anonymous"}


def test_a_tier_takes_over_from_the_former_default(staff, admin_user):
    former = Tier.objects.get(default_for="anonymous")
    response = staff.post(page("tier_add"), ANONYMOUS | rows(), follow=True)
    assert Tier.objects.get(default_for="anonymous").slug == "gold"
    assert (
        f"“{former}” is no longer the default for anonymous clients." in response.content.decode()
    )
    entry = LogEntry.objects.get(object_id=str(former.pk))
    assert entry.get_change_message() == "Changed default for."
    assert PolicyRevision.objects.filter(reason="changed").latest("pk").author == admin_user


def test_clients_are_never_without_a_default(staff, gold, django_capture_on_commit_callbacks):
    form = sent_form(staff.get(page("tier_change", gold.pk))) | {"default_for": "anonymous"}
    with django_capture_on_commit_callbacks() as announcements:
        assert staff.post(page("tier_change", gold.pk), form).status_code == 302
    assert len(set(announcements)) == 1
    assert Tier.objects.get(default_for="anonymous") == gold


def test_a_wrong_tier_takes_nothing_over(staff):
    former = Tier.objects.get(default_for="anonymous")
    wrong = ANONYMOUS | rows({"requests": 0, "period": 60})
    assert set(errors(staff.post(page("tier_add"), wrong))) == {"0-requests"}
    assert Tier.objects.get(default_for="anonymous") == former


def test_an_unknown_default_is_refused_at_its_field(staff):
    response = staff.post(page("tier_add"), NEW | {"default_for": "robots"} | rows())
    assert set(errors(response)) == {"default_for"}


def test_who_may_only_add_tiers_takes_no_default_over(client):
    browser = allowed(client, "add_tier")
    response = browser.post(page("tier_add"), ANONYMOUS | rows())
    assert "Another tier is the default" in str(errors(response))


def test_who_may_only_change_tiers_changes_their_limits(client, gold):
    browser = allowed(client, "change_tier")
    form = sent_form(browser.get(page("tier_change", gold.pk)))
    form |= {"policies-0-requests": 20, "policies-1-DELETE": "on"}
    assert browser.post(page("tier_change", gold.pk), form).status_code == 302
    assert list(gold.policies.values_list("requests", flat=True)) == [20, 1_000]


def test_a_viewer_changes_nothing(viewer, free):
    assert viewer.get(page("tier_change", free.pk)).status_code == 200
    assert viewer.post(page("tier_change", free.pk), {}).status_code == 403
    assert viewer.post(page("tier_delete", free.pk), {"post": "yes"}).status_code == 403
    assert viewer.get(page("tier_add")).status_code == 403


def test_an_action_puts_tiers_into_shadow_mode_and_enforces_them(staff, admin_user, free):
    pro = Tier.objects.get(slug="pro")
    Tier.objects.filter(pk=pro.pk).update(mode="shadow")
    PolicyRevision.objects.all().delete()
    chosen = {"_selected_action": [free.pk, pro.pk]}
    answer = staff.post(page("tier_changelist"), {"action": "shadow", **chosen}, follow=True)
    assert set(Tier.objects.filter(mode="shadow")) == {free, pro}
    assert "1 tier was changed." in answer.content.decode()
    assert "only recorded" in answer.content.decode()
    assert LogEntry.objects.get().object_id == str(free.pk)
    assert PolicyRevision.objects.get().author == admin_user
    staff.post(page("tier_changelist"), {"action": "enforce", **chosen})
    assert not Tier.objects.filter(mode="shadow").exists()


@pytest.mark.parametrize("action", ["enforce", "shadow"])
def test_a_viewer_changes_no_mode(viewer, free, action):
    before = "enforce" if action == "shadow" else "shadow"
    Tier.objects.update(mode=before)
    viewer.post(page("tier_changelist"), {"action": action, "_selected_action": [free.pk]})
    free.refresh_from_db()
    assert free.mode == before


def test_a_tier_that_many_have_is_not_deleted_and_none_of_them_is_named(
    staff, free, django_assert_max_num_queries
):
    users = User.objects.bulk_create([User(username=f"u{n}") for n in range(150)])
    TierAssignment.objects.bulk_create([TierAssignment(user=user, tier=free) for user in users])
    with django_assert_max_num_queries(8):
        text = staff.post(page("tier_delete", free.pk), {"post": "yes"}).content.decode()
    assert "<li>150 tier assignments</li>" in text
    assert Tier.objects.filter(pk=free.pk).exists()
    several = {"action": "delete_selected", "_selected_action": [free.pk], "post": "yes"}
    with django_assert_max_num_queries(12):
        assert b"150 tier assignments" in staff.post(page("tier_changelist"), several).content
