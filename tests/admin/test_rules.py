from __future__ import annotations

from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import override_settings
from django.urls import include, path

from django_ratelimit_tiers.admin.routes import similar_names, view_names
from django_ratelimit_tiers.models import EndpointRule, PolicyRevision, Tier
from tests.admin.conftest import allowed, errors, page, row, rows, sent_form, warnings
from tests.admin.urls import answer

pytestmark = pytest.mark.django_db

NEW: dict[str, Any] = {
    "name": "Search",
    "mode": "enforce",
    "path": "/api/search",
    "identify_by": "user_or_ip",
    "count": "all",
    "scope": "rule",
    "cost": 1,
    "tier_policies": "also",
    "disclose": "on",
}
LIMIT = {"requests": 10, "period": 60}


@pytest.fixture
def rule() -> EndpointRule:
    rule = EndpointRule.objects.create(name="Login", path="/login", methods="POST")
    rule.policies.create(requests=10, period=60)
    rule.policies.create(requests=99, period=60, tier=Tier.objects.get(slug="pro"))
    return rule


def test_the_list_says_in_words_what_a_rule_does(staff, rule):
    text = staff.get(page("endpointrule_changelist")).content.decode()
    assert "POST /login" in text
    assert "Pro: 99 per minute" in text
    assert "every other tier: 10 per minute" in text


def test_an_exempt_rule_says_so(staff):
    EndpointRule.objects.create(name="Health", path="/health", exempt=True)
    assert b"exempt" in staff.get(page("endpointrule_changelist")).content


def test_the_list_says_what_is_unusual_about_how_a_rule_counts(staff, rule):
    counting = {"cost": 5, "count": "failed", "identify_by": "field", "request_field": "username"}
    EndpointRule.objects.update(**counting)
    text = staff.get(page("endpointrule_changelist")).content.decode()
    assert "<div>cost 5</div>" in text
    assert "<div>only failed requests</div>" in text
    assert "field “username” of the request" in text


def test_limits_of_a_rule_are_compared_for_each_tier_by_itself(staff, rule):
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    day = {"requests": 20_000, "period": 86_400}
    pro = Tier.objects.get(slug="pro").pk
    added = row(2, tier="", **day) | row(3, tier=pro, **day) | {"policies-TOTAL_FORMS": 4}
    response = staff.post(page("endpointrule_change", rule.pk), form | added)
    assert rule.policies.count() == 4
    assert warnings(response) == [
        "“20,000 per day” is never reached: “10 per minute” refuses first."
    ]


EARLIER, LATER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "yes"),
        ({"starts_at": EARLIER, "ends_at": LATER}, "yes"),
        ({"mode": "shadow"}, "only recorded"),
        ({"mode": "off"}, "no"),
        ({"starts_at": LATER}, "not yet"),
        ({"mode": "shadow", "starts_at": LATER}, "not yet"),
        ({"ends_at": EARLIER}, "no longer"),
    ],
)
def test_the_list_says_whether_a_rule_is_in_force(staff, rule, change, words):
    EndpointRule.objects.update(**change)
    text = staff.get(page("endpointrule_changelist")).content.decode()
    assert f'<td class="field-in_force">{words}</td>' in text


def test_the_filter_by_tier_has_a_name_for_the_limits_of_no_tier(staff, rule):
    EndpointRule.objects.create(name="Pro only", path="/x").policies.create(
        requests=9, period=60, tier=Tier.objects.get(slug="pro")
    )
    response = staff.get(page("endpointrule_changelist"), {"policies__tier__isnull": "True"})
    assert "no tier in particular</a>" in response.content.decode()
    assert [row.name for row in response.context["cl"].result_list] == ["Login"]


def test_a_hostile_name_is_shown_as_text(staff):
    EndpointRule.objects.create(name="<script>x</script>", path="/<script>", exempt=True)
    assert b"<script>x" not in staff.get(page("endpointrule_changelist")).content


def test_the_list_costs_the_same_however_many_rules_there_are(
    staff, rule, django_assert_max_num_queries
):
    for n in range(30):
        EndpointRule.objects.create(name=f"r{n}", path="/x").policies.create(requests=1, period=1)
    with django_assert_max_num_queries(10):
        staff.get(page("endpointrule_changelist"))


def test_the_page_of_a_rule_costs_the_same_however_many_limits_it_has(
    staff, rule, django_assert_max_num_queries
):
    for tier in Tier.objects.all()[:4]:
        for number in range(2, 12):
            rule.policies.create(tier=tier, requests=100 * number, period=60 * number)
    with django_assert_max_num_queries(12):
        page_of_rule = staff.get(page("endpointrule_change", rule.pk)).content.decode()
    assert page_of_rule.count("selected>Pro</option>") >= 10


def test_the_limits_of_a_rule_that_is_saved_do_not_cost_a_query_for_each_constraint(
    staff, rule, django_assert_max_num_queries
):
    tiers = Tier.objects.all()[:4]
    for number in range(2, 12):
        for tier in tiers:
            rule.policies.create(tier=tier, requests=100 * number, period=60 * number)
    limits = rule.policies.count()
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    with django_assert_max_num_queries(5 * limits):
        assert staff.post(page("endpointrule_change", rule.pk), form).status_code == 302


def test_a_new_rule_is_saved_with_its_limits(staff):
    assert staff.post(page("endpointrule_add"), NEW | rows(LIMIT)).status_code == 302
    assert EndpointRule.objects.get().policies.get().requests == 10


def test_a_rule_by_view_is_saved(staff):
    form = NEW | {"path": "", "view_name": "search"}
    assert staff.post(page("endpointrule_add"), form | rows(LIMIT)).status_code == 302


@pytest.mark.parametrize(
    ("change", "limits", "at_fault"),
    [
        ({"path": ""}, [LIMIT], {"path"}),
        ({"view_name": "search"}, [LIMIT], {"path"}),
        ({"path": "api"}, [LIMIT], {"path"}),
        ({"path": "", "view_name": "serch"}, [LIMIT], {"view_name"}),
        ({"cost": 0}, [LIMIT], {"cost"}),
        ({"cost": 11}, [LIMIT], {"0-requests"}),
        ({"cost": 11}, [LIMIT | {"algorithm": "token_bucket", "burst": 10}], {"0-burst"}),
        ({"identify_by": "field"}, [LIMIT], {"request_field"}),
        ({}, [{"requests": 0, "period": "5 minuets"}], {"0-requests", "0-period"}),
        ({}, [{"requests": "ten", "period": 60, "burst": 5}], {"0-requests", "0-burst"}),
        ({}, [], {"rows"}),
        ({}, [LIMIT, {"requests": 5, "period": 60}], {"1-period"}),
        ({}, [LIMIT, {"requests": 5, "period": 3600}], {"1-requests"}),
    ],
)
def test_a_wrong_rule_is_refused_at_its_field(staff, change, limits, at_fault):
    response = staff.post(page("endpointrule_add"), NEW | change | rows(*limits))
    assert set(errors(response)) == at_fault
    assert not EndpointRule.objects.exists()


def test_the_rows_offer_tiers_and_no_buttons_that_edit_them(staff):
    text = staff.get(page("endpointrule_add")).content.decode()
    assert ">every other tier</option>" in text
    assert "delete_id_policies-0-tier" not in text


def test_a_cost_that_only_the_burst_can_bear_is_accepted(staff):
    limit = LIMIT | {"algorithm": "token_bucket", "burst": 20}
    form = NEW | {"cost": 15} | rows(limit)
    assert staff.post(page("endpointrule_add"), form).status_code == 302


def test_an_exempt_rule_needs_no_limits(staff):
    form = NEW | {"exempt": "on"} | rows()
    assert staff.post(page("endpointrule_add"), form).status_code == 302


def test_limits_of_different_tiers_are_not_compared(staff):
    pro = Tier.objects.get(slug="pro").pk
    limits = rows(LIMIT, {"requests": 5, "period": 3600, "tier": pro}, LIMIT | {"tier": pro})
    response = staff.post(page("endpointrule_add"), NEW | limits)
    assert set(errors(response)) == {"1-requests"}
    limits = rows(LIMIT, {"requests": 5, "period": 3600, "tier": pro})
    assert staff.post(page("endpointrule_add"), NEW | limits).status_code == 302


def test_limits_of_a_rule_swap_their_tiers(staff, rule):
    pro, free = (Tier.objects.get(slug=slug) for slug in ("pro", "free"))
    rule.policies.filter(tier=None).update(tier=free)
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    tiers = form["policies-0-tier"], form["policies-1-tier"]
    form["policies-1-tier"], form["policies-0-tier"] = tiers
    assert staff.post(page("endpointrule_change", rule.pk), form).status_code == 302
    assert rule.policies.get(tier=free).requests == 99
    assert rule.policies.get(tier=pro).requests == 10


def test_a_limit_takes_the_place_of_a_deleted_one_of_another_tier(staff, rule):
    pro = rule.policies.get(tier__slug="pro").tier_id
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    [owned] = [n for n in range(2) if form.get(f"policies-{n}-tier") == pro]
    form |= {f"policies-{owned}-DELETE": "on", f"policies-{1 - owned}-tier": pro}
    assert staff.post(page("endpointrule_change", rule.pk), form).status_code == 302
    assert rule.policies.get(tier=pro).requests == 10


def test_who_may_only_change_rules_changes_their_limits(client, rule):
    browser = allowed(client, "change_endpointrule")
    address = page("endpointrule_change", rule.pk)
    form = sent_form(browser.get(address))
    assert {"0-requests", "1-requests"} <= set(errors(browser.post(address, form | {"cost": 100})))
    form |= {"cost": 100, "policies-0-requests": 100, "policies-1-DELETE": "on"}
    assert browser.post(address, form).status_code == 302
    assert rule.policies.get().requests == 100


def test_who_may_only_add_rules_adds_them_with_limits(client):
    browser = allowed(client, "add_endpointrule")
    assert browser.get(page("endpointrule_add")).status_code == 200
    assert set(errors(browser.post(page("endpointrule_add"), NEW | rows()))) == {"rows"}
    assert browser.post(page("endpointrule_add"), NEW | rows(LIMIT)).status_code == 302
    assert EndpointRule.objects.get().policies.get().requests == 10


def test_who_may_only_look_at_rules_sees_limits_and_edits_none(client, rule):
    browser = allowed(client, "view_endpointrule")
    text = browser.get(page("endpointrule_change", rule.pk)).content.decode()
    assert "Login: 99 per minute" in text
    assert 'name="policies-0-requests"' not in text


def test_permissions_for_limits_alone_open_no_rule(client, rule):
    browser = allowed(client, "view_rulepolicy", "change_rulepolicy", "add_rulepolicy")
    assert browser.get(page("endpointrule_change", rule.pk)).status_code == 403
    assert browser.post(page("endpointrule_change", rule.pk), {}).status_code == 403


def test_the_form_suggests_the_views_of_the_project(staff):
    text = staff.get(page("endpointrule_add")).content.decode()
    assert '<option value="search">' in text
    assert '<option value="notes:list">' in text


def test_a_view_name_that_has_gone_does_not_stand_in_the_way(staff):
    rule = EndpointRule.objects.create(name="Old", view_name="gone")
    rule.policies.create(**LIMIT)
    form = sent_form(staff.get(page("endpointrule_change", rule.pk)))
    response = staff.post(page("endpointrule_change", rule.pk), form | {"notes": "still here"})
    assert response.status_code == 302


def test_a_misspelt_view_name_is_answered_with_the_right_one():
    assert "search" in similar_names("serch")
    assert similar_names("\x00" * 500) == []


def test_a_view_may_be_named_by_its_dotted_path(staff):
    named = NEW | {"path": "", "view_name": "tests.admin.urls.answer"} | rows(LIMIT)
    assert staff.post(page("endpointrule_add"), named).status_code == 302


def test_a_urlconf_that_includes_itself_has_view_names():
    urls = ModuleType("urls")
    urls.urlpatterns = [path("search/", answer, name="search"), path("again/", include(urls))]
    with override_settings(ROOT_URLCONF=urls):
        assert view_names() == ["search", "tests.admin.urls.answer"]


def test_view_names_carry_their_namespaces():
    names = {"search", "notes:list", "notes:tests.admin.urls.answer", "admin:login"}
    assert names <= set(view_names())


ACTIONS = [("enforce", "enforce"), ("shadow", "shadow"), ("turn_off", "off")]


@pytest.mark.parametrize(("action", "mode"), ACTIONS)
def test_an_action_changes_the_mode_with_a_revision_and_a_history(
    staff, admin_user, rule, action, mode
):
    EndpointRule.objects.create(
        name="Other", path="/other", mode="off" if mode == "enforce" else "enforce"
    )
    EndpointRule.objects.filter(pk=rule.pk).update(mode=mode)
    PolicyRevision.objects.all().delete()
    chosen = [row.pk for row in EndpointRule.objects.all()]
    staff.post(page("endpointrule_changelist"), {"action": action, "_selected_action": chosen})
    assert set(EndpointRule.objects.values_list("mode", flat=True)) == {mode}
    assert PolicyRevision.objects.get().author == admin_user
    entry = LogEntry.objects.get()  # only the one that had another mode
    assert entry.object_repr == "Other"
    assert entry.get_change_message() == "Changed mode."


def test_the_actions_name_what_they_change(staff, rule):
    rules = staff.get(page("endpointrule_changelist")).content.decode()
    tiers = staff.get(page("tier_changelist")).content.decode()
    assert "Enforce selected endpoint rules</option>" in rules
    assert "Turn selected endpoint rules off</option>" in rules
    assert "Put selected tiers into shadow mode</option>" in tiers


def test_an_action_works_on_a_list_filtered_by_tier(staff, rule):
    pro = Tier.objects.get(slug="pro").pk
    staff.post(
        page("endpointrule_changelist") + f"?policies__tier__id__exact={pro}",
        {"action": "shadow", "_selected_action": [rule.pk]},
    )
    rule.refresh_from_db()
    assert rule.mode == "shadow"


@pytest.mark.parametrize(("action", "mode"), ACTIONS)
def test_a_viewer_has_no_actions(viewer, rule, action, mode):
    EndpointRule.objects.update(mode="shadow" if mode != "shadow" else "off")
    before = EndpointRule.objects.get().mode
    viewer.post(page("endpointrule_changelist"), {"action": action, "_selected_action": [rule.pk]})
    assert EndpointRule.objects.get().mode == before


def test_deleting_selected_rules_raises_the_revision(staff, admin_user, rule):
    PolicyRevision.objects.all().delete()
    staff.post(
        page("endpointrule_changelist"),
        {"action": "delete_selected", "_selected_action": [rule.pk], "post": "yes"},
    )
    assert not EndpointRule.objects.exists()
    assert {revision.author for revision in PolicyRevision.objects.all()} == {admin_user}
