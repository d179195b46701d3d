"""What a request would be charged, told without charging it."""

from __future__ import annotations

import time
from io import StringIO
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.http import HttpRequest
from django.test import Client, override_settings

from django_ratelimit_tiers.models import ServiceAccount, Tier, TierAssignment
from django_ratelimit_tiers.policy.previews import Enquiry, preview
from tests.policies import limit_tier, make_rule

pytestmark = pytest.mark.django_db

ADDRESS = "127.0.0.1"
"""Where the test client comes from."""


def previewed(method: str = "GET", path: str = "/plain/", **fields: Any) -> list[str]:
    return preview(Enquiry(method, path, **{"address": ADDRESS, **fields}))


def test_it_tells_every_limit_and_what_is_used_of_it(client: Client) -> None:
    burst = {"requests": 6, "period": 86_400, "algorithm": "token_bucket", "burst": 9}
    limit_tier("anonymous", burst)
    make_rule("plain", 10, cost=4)
    make_rule("tried", 1, path="/plain/", mode="shadow", identify_by="everyone")
    client.get("/plain/")
    told = previewed(path="/plain/?page=2")
    assert told[:4] == [
        "GET /plain/ leads to the route “plain/”, named “plain”.",
        "The client is ip:127.0.0.1.",
        "Its tier is “anonymous”.",
        "The request would pass.",
    ]
    rule, tried, tier = (line.split(", full again")[0] for line in told[4:])
    assert rule == (
        "plain-31622400s (rule “plain”) allows ip:127.0.0.1 10 per 366 days, at a cost of 4: "
        "4 of 10 used"
    )
    assert tried == ("tried-31622400s (rule “tried”) allows all 1 per 366 days: 1 of 1 used")
    assert tier == (
        "anonymous-day (tier “anonymous”) allows ip:127.0.0.1 6 per day, burst 9: 1 of 9 used"
    )
    assert told[5].endswith(" s. It would refuse, but is in shadow mode.")


def test_asking_charges_and_counts_nothing(valkey_client: redis.Redis) -> None:
    limit_tier("anonymous", 1)
    make_rule("plain", 1)
    before = sorted(valkey_client.keys())
    assert "The request would pass." in previewed()
    assert "The request would pass." in previewed()
    assert sorted(valkey_client.keys()) == before


def test_it_tells_what_a_refused_client_is_told(client: Client) -> None:
    limit_tier("anonymous", {"requests": 1, "period": 86_400, "algorithm": "fixed_window"})
    client.get("/plain/")
    wait = int(client.get("/plain/").headers["Retry-After"])
    verdict = previewed()[3]
    words = verdict.removeprefix("The request would be refused; it would pass in ")
    told = int(words.split()[0].replace(",", ""))
    assert wait - 30 <= told <= wait
    assert previewed()[4].endswith(" It refuses.")


def test_a_limit_is_not_full_again_before_it_says_so(client: Client) -> None:
    limit_tier("anonymous", {"requests": 24, "period": 86_400, "algorithm": "token_bucket"})
    began = time.time()
    client.get("/plain/")
    told = previewed()[-1].split(", full again in ")[1]
    assert int(told.split()[0].replace(",", "")) >= 3600 - (time.time() - began)


def test_it_stops_where_the_request_does(client: Client) -> None:
    make_rule("plain", 1)
    client.get("/plain/")
    told = previewed(user="anna")
    assert told[0] == "GET /plain/ leads to the route “plain/”, named “plain”."
    assert told[1].startswith("The request would be refused before it is known who asks; ")
    assert [line.split()[0] for line in told[2:]] == ["plain-31622400s"]


def test_it_knows_users_and_their_tiers() -> None:
    anna = User.objects.create_user("anna")
    TierAssignment.objects.create(user=anna, tier=Tier.objects.get(slug="internal"))
    for name in ("anna", str(anna.pk)):
        assert previewed(user=name)[1:4] == [
            f"The client is user:{anna.pk}.",
            "Its tier is “internal”, which is unlimited.",
            "The request would pass.",
        ]
    assert previewed(user="nobody")[1:4] == [
        "The client is user:nobody.",
        "No user has this name or primary key: it is taken for one known by a token alone.",
        "Its tier is “free”.",
    ]
    Tier.objects.update(default_for="")
    assert "It has no tier, so only rules limit it." in previewed()


def test_it_knows_keys() -> None:
    assert previewed(api_key="k7")[1].startswith("The client is key:")


def test_it_says_why_no_limit_applies() -> None:
    user = User.objects.create_user("robot")
    ServiceAccount.objects.create(name="robot", owner="o", reason="r", user=user)
    make_rule("plain", 1)
    told = previewed(user="robot")
    assert told[-1] == "No limit applies: it is exempt by service account robot."
    make_rule("open", path="/async/", exempt=True)
    assert previewed(path="/async/")[-1] == "No limit applies: it is exempt by rule open."
    told = previewed(path="/health/")
    assert told[-1] == "No limit applies: it is exempt by the decorator of its view."


def test_what_comes_to_no_view_is_charged_to_its_address() -> None:
    told = previewed(path="/nowhere/%1b[31m", user="anna")
    assert told[:3] == [
        "GET /nowhere/�[31m leads to no view, so it is charged to its address.",
        "The client is ip:127.0.0.1.",
        "Its tier is “anonymous”.",
    ]


def pro(request: HttpRequest) -> str:
    return "pro"


def test_it_asks_the_functions_of_the_site() -> None:
    with override_settings(RATELIMIT_TIERS={"TIER_RESOLVER": f"{__name__}.pro"}):
        assert "Its tier is “pro”." in previewed()


def test_it_takes_a_preflight_for_one_that_the_site_answers() -> None:
    told = "It is taken for a browser's preflight, which is only limited by rules for OPTIONS."
    assert told in previewed("OPTIONS")
    assert len(previewed("OPTIONS")) == 4


def test_who_has_a_verified_key_sends_no_preflight() -> None:
    make_rule("all", 3, path="/**")
    told = preview(Enquiry("OPTIONS", "/plain/", "127.0.0.1", api_key="7"))
    assert any(line.startswith("all-31622400s (rule “all”) ") for line in told)


def test_a_preflight_that_finds_nothing_is_charged(client: Client) -> None:
    limit_tier("anonymous", 1)
    asked = {"HTTP_ORIGIN": "null", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}
    answers = [client.options("/nowhere/", **asked).status_code for _ in range(2)]
    assert answers == [404, 429]
    told = previewed("OPTIONS", "/nowhere/")
    assert any(line.startswith("The request would be refused; ") for line in told)


def test_it_says_when_limits_are_switched_off() -> None:
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        assert previewed()[-1] == "Note: Nothing is limited: ENABLED is False."


def test_it_says_when_processes_count_apart() -> None:
    memory = {"STORE": "django_ratelimit_tiers.store.memory.MemoryStore"}
    with override_settings(RATELIMIT_TIERS=memory):
        assert previewed()[-1].startswith("Note: Each process counts by itself; ")


def test_it_says_when_only_some_views_are_limited() -> None:
    with override_settings(MIDDLEWARE=[]):
        assert previewed()[-1].startswith("Note: The middleware is not installed: only views with")


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("ratelimit_preview", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_prints_it() -> None:
    told = command("get", "/plain/", "--user", "anna", "--address", ADDRESS)
    assert told.splitlines() == previewed(user="anna")
    assert "The client is ip:192.0.2.1." in command("GET", "/plain/")
    assert "The client is key:" in command("GET", "/plain/", "--api-key", "7")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["GET", "/", "--address", "nowhere"], "'nowhere' does not appear to be an IPv4 or IPv6 a"),
        (["GET", "plain/"], "'plain/' is no path such as /api/search/"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why):
        command(*arguments)


def test_the_command_says_when_the_store_is_away() -> None:
    away = {
        "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
        "STORE_OPTIONS": {"url": "redis://127.0.0.1:1/0"},
    }
    with (
        override_settings(RATELIMIT_TIERS=away),
        pytest.raises(CommandError, match="The store does not answer"),
    ):
        command("GET", "/plain/")


def test_it_promises_no_wait_where_a_request_costs_more_than_its_limit_holds() -> None:
    limit_tier("free", {"requests": 4, "period": 60})
    User.objects.create_user("anna")
    told = previewed(path="/api/export/", user="anna")
    assert "The request would be refused; it costs more than is ever allowed at once." in told
    assert not any("would pass" in line for line in told)


def test_it_says_that_it_does_not_know_the_field_that_a_rule_counts_by(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("names", 1, path="/plain/", identify_by="field", request_field="username")
    statuses = [client.post("/plain/", {"username": "anna"}).status_code for _ in range(2)]
    assert statuses == [200, 429]
    told = previewed("POST")
    assert "The request would pass." in told
    assert told[-1] == (
        "Note: The rule “names” counts by the request field “username”, which is not known here: "
        "this is how it stands without."
    )


def test_it_says_when_a_user_may_not_log_in(client: Client) -> None:
    anna = User.objects.create_user("anna")
    client.force_login(anna)
    User.objects.update(is_active=False)
    response = client.get("/plain/")
    assert response.wsgi_request.ratelimit.client.subject == f"ip:{ADDRESS}"
    words = "This user is not active: Django's own backends would take it for nobody."
    assert words in previewed(user="anna")
    User.objects.update(is_active=True)
    assert words not in previewed(user="anna")


def test_it_promises_nothing_for_limits_that_were_not_asked_yet(client: Client) -> None:
    limit_tier("anonymous", 1)
    make_rule("plain", {"requests": 1, "period": 60})
    client.get("/plain/")
    told = "\n".join(previewed())
    assert "; these limits would let it on in " in told
    assert "would pass" not in told
