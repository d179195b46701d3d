"""An explanation for every refusal that was sampled."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events
from django_ratelimit_tiers.models import EndpointRule, ThrottleEvent, Tier, TierAssignment
from django_ratelimit_tiers.models.history import edits_by
from django_ratelimit_tiers.policy.explanations import explain
from django_ratelimit_tiers.policy.limiter import limiter
from tests.databases import without_tables
from tests.policies import YEAR, limit_tier, make_rule

pytestmark = pytest.mark.django_db


def refused(client: Client) -> ThrottleEvent:
    client.get("/plain/")
    decision_id = client.get("/plain/").headers["X-RateLimit-Decision"]
    limiter().teller.tell()
    aggregate_throttle_events()
    return ThrottleEvent.objects.get(decision_id=decision_id)


def test_it_names_rule_revision_author_and_how_much_is_used(client: Client) -> None:
    limit_tier("anonymous")
    with edits_by(User.objects.create_user("ada")):
        make_rule("plain", {"requests": 1, "period": 3600})
    text = "\n".join(explain(refused(client)))
    assert "plain-hour of the rule “plain” refused ip:127.0.0.1 at GET /plain/." in text
    assert "of the policy: Limit of a rule created" in text
    assert "by ada." in text
    assert "Now it allows 1 per hour, fixed window." in text
    assert "It has used 1 of 1 now" in text


def test_it_names_the_tier_where_no_rule_refused(client: Client) -> None:
    limit_tier("anonymous", 1)
    assert "of the tier “anonymous” refused" in explain(refused(client))[0]


def test_it_says_that_a_limit_refuses_nobody_any_more(client: Client) -> None:
    limit_tier("anonymous", 1)
    event = refused(client)
    words = "It is in shadow mode and refuses nobody."
    assert words not in "\n".join(explain(event))
    Tier.objects.update(mode="shadow")
    assert words in "\n".join(explain(event))


def test_it_tells_the_limit_of_the_clients_tier(client: Client) -> None:
    tier = limit_tier("anonymous")
    rule = make_rule("plain", 9)
    rule.policies.create(requests=1, period=YEAR, algorithm="fixed_window", tier=tier)
    text = "\n".join(explain(refused(client)))
    assert "Now it allows 1 per 366 days" in text
    assert "It has used 1 of 1 now" in text


def test_it_is_in_english_whatever_the_language_of_the_admin(client: Client) -> None:
    limit_tier("anonymous")
    rule = make_rule("plain", 1)
    event = refused(client)
    rule.policies.update(requests=5000)
    with override("de"):
        assert "Now it allows 5,000 per 366 days" in "\n".join(explain(event))


def test_it_says_when_the_policy_is_gone(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1)
    event = refused(client)
    EndpointRule.objects.all().delete()
    lines = explain(event)
    assert lines[-1].startswith("That policy is not in force any more")
    assert "The policy was edited 2 more times since." in lines


def test_edits_of_whose_tier_is_which_are_no_edits_of_the_policy(client: Client) -> None:
    limit_tier("anonymous", 1)
    event = refused(client)
    user = User.objects.create_user("bob")
    TierAssignment.objects.create(user=user, tier=Tier.objects.get(slug="pro"))
    assert "since" not in "\n".join(explain(event))


def test_it_tells_no_number_of_a_rule_that_counts_each_route_by_itself(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1, scope="route")
    assert explain(refused(client))[-1].endswith("or counts each route by itself.")


def test_explaining_spends_nothing(client: Client) -> None:
    limit_tier("anonymous", 3)
    for _ in range(3):
        client.get("/plain/")
    event = refused(client)
    used = [explain(event)[-1].partition(" now")[0] for _ in range(2)]
    assert used[0] == used[1] == "It has used 3 of 3"
    assert "It has used 3 of 3 now" in explain(event)[-1]


@pytest.mark.parametrize("named", ["{}", "X-RateLimit-Decision: {}", " {} "])
def test_the_command_explains_by_the_id_that_the_client_was_told(
    client: Client, named: str
) -> None:
    limit_tier("anonymous", 1)
    event = refused(client)
    out = StringIO()
    call_command("ratelimit_explain", named.format(event.decision_id), stdout=out)
    assert "GET /plain/" in out.getvalue()
    assert "refused ip:127.0.0.1" in out.getvalue()


def test_the_command_says_what_to_do_about_an_unknown_id() -> None:
    with pytest.raises(CommandError, match="only a sample is kept"):
        call_command("ratelimit_explain", "unknown")


@pytest.mark.django_db(transaction=True)
def test_the_command_says_what_to_do_where_the_tables_are_missing() -> None:
    with (
        without_tables(ThrottleEvent),
        pytest.raises(CommandError, match=r"run `manage.py migrate`"),
    ):
        call_command("ratelimit_explain", "9f86d081884c7d65")


def test_the_admin_explains_on_the_page_of_the_event(
    client: Client, admin_client: Client, settings: object
) -> None:
    limit_tier("anonymous", 1)
    event = refused(client)
    settings.RATELIMIT_TIERS = {"ENABLED": False}  # type: ignore[attr-defined]
    page = reverse("admin:django_ratelimit_tiers_throttleevent_change", args=[event.pk])
    response = admin_client.get(page)
    assert "refused ip:127.0.0.1" in response.content.decode()


@pytest.mark.parametrize(
    "change",
    [
        {"ends_at": timezone.now()},
        {"starts_at": timezone.now() + timedelta(days=1)},
        {"exempt": True},
    ],
)
def test_a_limit_of_a_rule_that_does_not_act_now_is_not_in_force(
    client: Client, change: dict[str, Any]
) -> None:
    limit_tier("anonymous")
    rule = make_rule("plain", 1)
    event = refused(client)
    EndpointRule.objects.filter(pk=rule.pk).update(**change)
    assert explain(event)[-1].startswith("That policy is not in force any more")


@pytest.mark.parametrize("name", ["می\u200cشود", "a\xadb", "👩\u200d👧"])
def test_a_rule_is_found_by_a_name_with_signs_that_nobody_sees(
    client: Client, admin_client: Client, name: str
) -> None:
    limit_tier("anonymous")
    rule = make_rule(name, 1, path="/plain/")
    event = refused(client)
    assert "It has used 1 of 1 now" in explain(event)[-1]
    page = admin_client.get(
        reverse("admin:django_ratelimit_tiers_throttleevent_change", args=[event.pk])
    ).content.decode()
    assert reverse("admin:django_ratelimit_tiers_endpointrule_change", args=[rule.pk]) in page


def test_it_promises_nothing_for_limits_that_were_not_asked_yet(client: Client) -> None:
    limit_tier("anonymous", 1)
    make_rule("plain", {"requests": 1, "period": 60})
    told = "\n".join(explain(refused(client)))
    assert "\nThat limit would have let the same request on " in told
    assert "would have passed" not in told
