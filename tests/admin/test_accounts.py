from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin import AdminSite, site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.contrib.messages import get_messages
from django.utils import timezone

from django_ratelimit_tiers.admin.accounts import TierAssignmentAdmin
from django_ratelimit_tiers.digests import key_digest, key_digests
from django_ratelimit_tiers.models import ServiceAccount, Tier, TierAssignment
from tests.admin.conftest import allowed, errors, page, sent_form

pytestmark = pytest.mark.django_db

KEY = re.compile(r"rlt_[\w-]{43}")
NEW: dict[str, Any] = {
    "name": "Backup",
    "owner": "Ops",
    "reason": "Copies everything each night",
    "is_active": "on",
    "expires_at_0": "2099-01-01",
    "expires_at_1": "00:00:00",
}


@pytest.fixture
def account() -> ServiceAccount:
    account = ServiceAccount(name="Backup", owner="Ops", reason="nightly", networks="192.0.2.0/24")
    account.new_key()
    account.save()
    return account


def keys(response: Any) -> list[str]:
    return KEY.findall(response.content.decode())


def test_a_key_is_shown_once_and_stored_as_its_digest(staff):
    response = staff.post(page("serviceaccount_add"), NEW | {"issue_key": "on"})
    [key] = keys(response)
    account = ServiceAccount.objects.get()
    assert account.key_digest == key_digest(key)
    assert "no-store" in response["Cache-Control"]
    assert keys(staff.get(page("serviceaccount_change", account.pk))) == []
    assert keys(staff.get(page("serviceaccount_changelist"))) == []


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Europe/Berlin"])
def test_an_account_that_expires_after_all_dates_is_refused_by_its_field(staff, settings, zone):
    settings.TIME_ZONE = zone
    never = {"issue_key": "on", "expires_at_0": "9999-12-31", "expires_at_1": "23:59:59"}
    response = staff.post(page("serviceaccount_add"), NEW | never)
    assert errors(response) == {"expires_at": ["The year must be from 1970 to 9000."]}


def test_a_key_travels_in_no_message_cookie_or_history(staff):
    response = staff.post(page("serviceaccount_add"), NEW | {"issue_key": "on"})
    [key] = keys(response)
    assert not [message for message in get_messages(response.wsgi_request) if key in str(message)]
    assert key not in str(response.cookies)
    assert key not in str(dict(staff.session))
    assert key not in str(list(LogEntry.objects.values()))


def test_a_new_key_replaces_the_old_one(staff, account):
    form = sent_form(staff.get(page("serviceaccount_change", account.pk)))
    response = staff.post(page("serviceaccount_change", account.pk), form | {"issue_key": "on"})
    [key] = keys(response)
    before, account.key_digest = account.key_digest, None
    account.refresh_from_db()
    assert account.key_digest == key_digest(key) != before


def test_saving_without_asking_keeps_the_key(staff, account):
    form = sent_form(staff.get(page("serviceaccount_change", account.pk)))
    response = staff.post(page("serviceaccount_change", account.pk), form)
    assert response.status_code == 302
    assert ServiceAccount.objects.get().key_digest == account.key_digest


def test_an_action_issues_keys_and_leaves_a_history(staff, account):
    response = staff.post(
        page("serviceaccount_changelist"),
        {"action": "issue_new_keys", "_selected_action": [account.pk]},
    )
    [key] = keys(response)
    assert ServiceAccount.objects.get().key_digest == key_digest(key)
    assert LogEntry.objects.get().get_change_message() == "Changed key."


@pytest.mark.parametrize("permissions", [["add"], ["add", "view"], ["add", "change"]])
def test_the_page_of_a_new_key_leads_on_to_what_one_may_see(client, permissions):
    browser = allowed(client, *(f"{name}_serviceaccount" for name in permissions))
    response = browser.post(page("serviceaccount_add"), NEW | {"issue_key": "on"})
    links = re.findall(r'href="(/admin/[^"]*)"', response.content.decode())
    [done] = re.findall(r'class="button" href="([^"]*)"', response.content.decode())
    assert (done == page("serviceaccount_changelist")) is (len(permissions) > 1)
    assert {browser.get(link).status_code for link in links if "/password" not in link} == {200}


def test_a_viewer_issues_no_keys(viewer, account):
    chosen = {"action": "issue_new_keys", "_selected_action": [account.pk]}
    assert keys(viewer.post(page("serviceaccount_changelist"), chosen, follow=True)) == []
    response = viewer.post(page("serviceaccount_change", account.pk), NEW | {"issue_key": "on"})
    assert response.status_code == 403
    assert ServiceAccount.objects.get().key_digest == account.key_digest


def test_a_key_is_not_issued_by_looking(staff, account):
    staff.get(page("serviceaccount_change", account.pk), {"issue_key": "on"})
    staff.get(page("serviceaccount_changelist"), {"action": "issue_new_keys"})
    assert ServiceAccount.objects.get().key_digest == account.key_digest


@pytest.mark.parametrize("lookup", ["key_digest", "key_digest__startswith"])
def test_staff_cannot_guess_the_digest_of_a_key_by_filtering(staff, account, lookup):
    response = staff.get(page("serviceaccount_changelist"), {lookup: account.key_digest})
    assert response.status_code == 400


def test_an_account_that_nothing_identifies_is_refused(staff):
    response = staff.post(page("serviceaccount_add"), NEW)
    assert "Name a user or networks" in str(errors(response))


@pytest.mark.parametrize("networks", ["192.0.2.7/24", "office", "0.0.0.0/0"])
def test_wrong_networks_are_refused_at_their_field(staff, networks):
    response = staff.post(page("serviceaccount_add"), NEW | {"networks": networks})
    assert set(errors(response)) == {"networks"}


@pytest.mark.parametrize("missing", ["owner", "reason", "expires_at_0"])
def test_owner_reason_and_expiry_are_required(staff, missing):
    form = {**NEW, "networks": "192.0.2.0/24"}
    form[missing] = ""
    assert set(errors(staff.post(page("serviceaccount_add"), form))) == {missing.removesuffix("_0")}


def test_the_list_says_what_identifies_an_account(staff, account):
    account.user = User.objects.create(username="robot")
    account.save()
    text = staff.get(page("serviceaccount_changelist")).content.decode()
    assert "robot or key, from 192.0.2.0/24" in text


def test_expired_accounts_can_be_listed(staff, account):
    ServiceAccount.objects.update(expires_at=timezone.now() - timedelta(days=1))
    listed = staff.get(page("serviceaccount_changelist"), {"expired": "yes"})
    others = staff.get(page("serviceaccount_changelist"), {"expired": "no"})
    assert listed.context["cl"].result_count == 1
    assert others.context["cl"].result_count == 0


def test_an_inactive_account_is_listed_as_not_expired(staff, account):
    ServiceAccount.objects.update(is_active=False)
    listed = staff.get(page("serviceaccount_changelist"), {"expired": "no"})
    assert listed.context["cl"].result_count == 1
    assert b">not expired</a>" in listed.content


@pytest.fixture
def tier() -> Tier:
    return Tier.objects.get(slug="pro")


def assign(staff: Any, tier: Tier, **who: Any) -> Any:
    return staff.post(page("tierassignment_add"), {"tier": tier.pk, **who})


def test_a_key_is_assigned_by_typing_it_and_kept_as_its_digest(staff, tier):
    raw = "k" * 100
    assert assign(staff, tier, api_key=raw).status_code == 302
    assert TierAssignment.objects.get().api_key == key_digest(raw)
    assert raw not in str(list(LogEntry.objects.values()))


def test_a_saved_key_survives_being_edited(staff, tier):
    assignment = TierAssignment.objects.create(api_key="k1", tier=tier)
    form = sent_form(staff.get(page("tierassignment_change", assignment.pk)))
    staff.post(page("tierassignment_change", assignment.pk), form | {"note": "paid"})
    assert TierAssignment.objects.get(note="paid").api_key == key_digest("k1")


def test_an_assignment_of_nobody_or_of_two_is_refused(staff, tier):
    user = User.objects.create(username="ada")
    assert "exactly one" in str(errors(assign(staff, tier)))
    assert "exactly one" in str(errors(assign(staff, tier, user=user.pk, api_key="k1")))


def test_a_second_assignment_of_a_user_is_refused_at_the_field(staff, tier):
    user = User.objects.create(username="ada")
    TierAssignment.objects.create(user=user, tier=tier)
    assert set(errors(assign(staff, tier, user=user.pk))) == {"user"}


def test_the_list_says_who_is_assigned(staff, tier):
    group = Group.objects.create(name="customers")
    TierAssignment.objects.create(group=group, tier=tier)
    TierAssignment.objects.create(user=User.objects.create(username="ada"), tier=tier)
    text = staff.get(page("tierassignment_changelist")).content.decode()
    assert "group customers" in text
    assert ">ada<" in text


def test_an_assignment_is_found_by_user_group_and_digest(staff, tier):
    TierAssignment.objects.create(api_key="k1", tier=tier)
    TierAssignment.objects.create(user=User.objects.create(username="ada"), tier=tier)
    for query in ("ada", key_digest("k1")):
        response = staff.get(page("tierassignment_changelist"), {"q": query})
        assert response.context["cl"].result_count == 1


def test_a_key_is_known_again_under_an_earlier_secret(staff, tier, settings):
    settings.SECRET_KEY_FALLBACKS = ["an earlier secret"]
    _, earlier = key_digests("k1")
    known = TierAssignment.objects.create(api_key=earlier, tier=tier)
    message = "This key has a tier already: edit its assignment."
    assert errors(assign(staff, tier, api_key="k1")) == {"api_key": [message]}
    response = staff.get(page("tierassignment_changelist"), {"q": "k1"})
    assert list(response.context["cl"].queryset) == [known]


def test_users_are_chosen_by_typing_their_name(staff):
    text = staff.get(page("tierassignment_add")).content.decode()
    assert "admin-autocomplete" in text


def test_ids_are_typed_where_users_have_no_admin(rf, admin_user):
    request = rf.get("/")
    request.user = admin_user
    bare = AdminSite()
    assert TierAssignmentAdmin(TierAssignment, bare).get_autocomplete_fields(request) == []
    assert site.get_model_admin(TierAssignment).get_autocomplete_fields(request)


def test_ids_are_typed_by_staff_who_may_not_search_users(client, tier):
    somebody = User.objects.create_user("somebody-else")
    browser = allowed(client, "add_tierassignment")
    text = browser.get(page("tierassignment_add")).content.decode()
    assert "admin-autocomplete" not in text  # it would ask a page that refuses them
    sent = {"user": somebody.pk, "tier": tier.pk}
    assert browser.post(page("tierassignment_add"), sent).status_code == 302
    assert TierAssignment.objects.get().user == somebody


def test_the_page_of_new_keys_tells_the_way_to_it_as_django_does(staff, account):
    chosen = {"action": "issue_new_keys", "_selected_action": [account.pk]}
    address = page("serviceaccount_changelist")
    answers = staff.get(address), staff.post(address, chosen)
    first, other = (re.search(r"<(\w+) class=.breadcrumbs", a.content.decode()) for a in answers)
    assert first[1] == other[1]


def test_a_typed_id_is_named_to_those_only_who_may_view_users(client, staff, tier):
    sent = {"user": User.objects.create_user("alice").pk, "tier": ""}
    assert b"alice" in staff.post(page("tierassignment_add"), sent).content
    browser = allowed(client, "add_tierassignment")
    response = browser.post(page("tierassignment_add"), sent)
    assert errors(response) == {"tier": ["This field is required."]}
    assert b"alice" not in response.content
