"""Logs that are decided again: as the site did, or as it would with another policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path as url
from django.urls import register_converter
from django.utils import timezone

from django_ratelimit_tiers.core.accesslogs import LoggedRequest
from django_ratelimit_tiers.core.policies import Algorithm
from django_ratelimit_tiers.core.replays import Replay
from django_ratelimit_tiers.models import (
    EndpointRule,
    ServiceAccount,
    ThrottleCount,
    Tier,
    TierAssignment,
)
from django_ratelimit_tiers.policy.replays import Replayer
from django_ratelimit_tiers.policy.trials import AS_IT_IS, Trial, TriedLimit
from tests.policies import YEAR, limit_tier, make_rule
from tests.site import plain

pytestmark = pytest.mark.django_db

NOON = 1_800_000_000_000_000


def asked(
    path: str = "/plain/", seconds: float = 0, address: str = "192.0.2.7", **fields: Any
) -> LoggedRequest:
    told: dict[str, Any] = {"method": "GET", "status": 200, **fields}
    return LoggedRequest(NOON + int(seconds * 1_000_000), address, path=path, **told)


def replayed(requests: Iterable[LoggedRequest], trial: Trial = AS_IT_IS) -> Replay:
    replayer = Replayer(trial)
    for request in requests:
        replayer.decide(request)
    return replayer.replay


def refusals(replay: Replay) -> dict[str, int]:
    """Return how often each limit refused anybody, or would have in shadow mode."""
    return {limit.policy.name: counts.total() for limit, counts in replay.limits.items()}


PATHS = [
    *("/plain/", "/async/", "/api/search/?q=a", "/api/find/", "/api/notes/", "/api/export/"),
    *("/api/files/a/../b", "/api/items/٣/", "/api/REPORTS/summary", "/health/", "/api/orders/7/"),
    *("/nowhere/", "/plain", "/de/about/", "/about/", "/%2Fplain/", "/caf%C3%A9/", "/api/login/"),
]


def test_a_replay_refuses_what_the_site_has_refused() -> None:
    limit_tier("anonymous", 60)
    limit_tier("free", 45)
    limit_tier("pro", {"requests": 80, "period": YEAR, "algorithm": "sliding_window_log"})
    make_rule("plain", 5)
    make_rule("files", 9, path="/api/files/**", identify_by="everyone", cost=2)
    make_rule("search", 20, view_name="search", identify_by="user", tier_policies="replace")
    make_rule("routes", 11, path="/api/**", identify_by="user_or_ip", scope="route")
    make_rule("failures", 30, path="/api/**", count="failed")
    make_rule("about", path="/*/about/", exempt=True)
    make_rule("tried", 3, path="/async/", mode="shadow")
    anna, ben, service = (User.objects.create_user(name) for name in ("anna", "ben", "service"))
    team = Group.objects.create(name="team")
    ben.groups.add(team)
    TierAssignment.objects.create(group=team, tier=Tier.objects.get(slug="pro"))
    ServiceAccount.objects.create(name="s", owner="o", reason="r", user=service)

    random, log = Random(7), list[LoggedRequest]()
    clients = {user: Client() for user in (None, anna, ben, service)}
    for user in (anna, ben, service):
        clients[user].force_login(user)
    for second in range(800):
        user = random.choice([None, anna, ben, service])
        address = random.choice(["192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8::2"])
        method = random.choice(["GET", "GET", "GET", "HEAD", "POST"])
        path, _, query = random.choice(PATHS).partition("?")
        response = clients[user].generic(method, path, QUERY_STRING=query, REMOTE_ADDR=address)
        told = {"method": method, "query": query, "status": response.status_code}
        log.append(asked(path, second, address, user=user.username if user else "", **told))

    replayer = Replayer(AS_IT_IS)
    assert [(r, replayer.decide(r)) for r in log] == [(r, r.status != 429) for r in log]
    refusing = {limit.rule or limit.tier for limit in replayer.replay.limits}
    assert refusing == {*("anonymous", "free", "pro", "tried"), *("plain", "files", "routes")}


def test_a_rule_in_shadow_mode_is_tried_as_enforced() -> None:
    rule = make_rule("plain", 2, mode="shadow")
    log = [asked(seconds=second) for second in range(5)]
    before, after = replayed(log), replayed(log, Trial(enforced={rule.pk}))
    assert (before.refused, before.requests) == (0, 5)
    assert (after.refused, after.requests) == (3, 5)
    assert refusals(before) == refusals(after) == {"plain-31622400s": 3}


def test_a_rule_that_is_off_is_tried_whatever_its_dates() -> None:
    later = timezone.now() + timedelta(days=1)
    rule = make_rule("plain", 2, mode="off", starts_at=later)
    log = [asked(seconds=second) for second in range(5)]
    assert replayed(log).refused == 0
    assert replayed(log, Trial(enforced={rule.pk})).refused == 3


def test_a_rule_that_is_over_is_tried_as_if_it_were_not() -> None:
    rule = make_rule("plain", 2, ends_at=timezone.now() - timedelta(days=1), mode="shadow")
    log = [asked() for _ in range(5)]
    assert refusals(replayed(log)) == {}
    assert replayed(log, Trial(enforced={rule.pk})).refused == 3


def test_a_limit_is_tried_with_other_numbers() -> None:
    limit_tier("anonymous", {"requests": 6, "period": 60, "algorithm": "token_bucket", "burst": 9})
    log = [asked() for _ in range(12)]
    assert replayed(log).refused == 3
    assert replayed(log, Trial(limits={"anonymous-minute": TriedLimit(3)})).refused == 3
    assert replayed(log, Trial(limits={"anonymous-minute": TriedLimit(6, 10)})).refused == 2
    with pytest.raises(ValueError, match="requests must be from 1"):
        Replayer(Trial(limits={"anonymous-minute": TriedLimit(0)}))


def test_the_limits_of_a_rule_are_tried_with_other_numbers() -> None:
    make_rule("plain", 2)
    log = [asked() for _ in range(5)]
    assert replayed(log, Trial(limits={"plain-31622400s": TriedLimit(4)})).refused == 1


def test_a_rule_that_is_left_out_refuses_nothing() -> None:
    rule = make_rule("plain", 2)
    log = [asked() for _ in range(5)]
    assert replayed(log, Trial(without={rule.pk})).refused == 0


def test_time_passes_as_it_did_in_the_log() -> None:
    limit_tier("anonymous", {"requests": 2, "period": 60, "algorithm": "sliding_window_log"})
    log = [asked(seconds=second) for second in (0, 1, 2, 59, 60, 60.5, 61)]
    replayer = Replayer(AS_IT_IS)
    assert [replayer.decide(r) for r in log] == [True, True, False, False, True, False, True]


def test_a_replay_tells_who_was_refused_by_what_and_since_when() -> None:
    limit_tier("anonymous", {"requests": 1, "period": 60, "algorithm": "fixed_window"})
    make_rule("plain", {"requests": 3, "period": 86_400}, identify_by="everyone")
    log = [asked(seconds=s, address=f"192.0.2.{n}") for s, n in ((0, 1), (5, 1), (6, 2), (70, 3))]
    log.append(asked(seconds=80, address="192.0.2.4"))
    replay = replayed(log)
    assert (replay.first, replay.last) == (NOON, NOON + 80_000_000)
    assert replay.refused_clients == {"ip:192.0.2.1", "ip:192.0.2.4"}
    assert replay.clients["ip:192.0.2.1"].requests == 2
    assert replay.clients["ip:192.0.2.1"].first_refused == NOON + 5_000_000
    assert replay.endpoints == {"GET plain/": 1, "GET /plain/": 1}
    told = {(limit.policy.name, limit.tier, limit.rule) for limit in replay.limits}
    assert told == {("anonymous-minute", "anonymous", ""), ("plain-day", "", "plain")}


def test_a_user_is_known_by_name_or_by_number_and_else_as_somebody() -> None:
    anna = User.objects.create_user("anna")
    TierAssignment.objects.create(user=anna, tier=limit_tier("pro", 2))
    limit_tier("free", 1)
    names = ["anna", str(anna.pk), "anna", "nobody", "nobody"]
    replay = replayed(asked(user=name, seconds=n) for n, name in enumerate(names))
    assert {name: count.refused for name, count in replay.clients.items()} == {
        f"user:{anna.pk}": 1,
        "user:nobody": 1,
    }


@pytest.mark.parametrize("name", ["id", "last_login"])
def test_user_names_may_be_of_another_type_than_texts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    anna = User.objects.create_user("anna")
    monkeypatch.setattr(User, "USERNAME_FIELD", name)
    replay = replayed(asked(user=user) for user in ("gone", str(anna.pk)))
    assert set(replay.clients) == {"user:gone", f"user:{anna.pk}"}


def test_a_verified_key_and_a_tier_are_taken_from_the_log() -> None:
    limit_tier("pro", 1)
    limit_tier("free", 2)
    log = [asked(api_key="k7", tier=tier) for tier in ("pro", "pro", None, None)]
    replayer = Replayer(AS_IT_IS)
    assert [replayer.decide(request) for request in log] == [True, False, True, False]
    [client] = replayer.replay.clients
    assert client.startswith("key:")


def tier_by_query(request: HttpRequest) -> str | None:
    return request.GET.get("tier")


def is_verified(user: User) -> bool:
    return "@" in user.email


def test_the_functions_of_the_site_are_asked() -> None:
    limit_tier("pro", 1)
    limit_tier("business", 2)
    Tier.objects.filter(slug="business").update(default_for="unverified")
    User.objects.create_user("anna")
    functions = {
        "TIER_RESOLVER": f"{__name__}.tier_by_query",
        "VERIFIED_TEST": f"{__name__}.is_verified",
    }
    log = [asked(query="tier=pro") for _ in range(2)]
    log += [asked(user="anna", seconds=n) for n in range(3)]
    log += [asked(user="nobody that a test could ask"), asked(query="caf\udcc3\udca9")]
    with override_settings(RATELIMIT_TIERS=functions):
        replayer = Replayer(AS_IT_IS)
        assert [replayer.decide(r) for r in log] == [True, False, True, True, False, True, True]


def tier_by_user(request: HttpRequest) -> str | None:
    return "pro" if request.user.is_authenticated and request.user.is_staff else None


async def tier_on_an_event_loop(request: HttpRequest) -> str | None:
    return "pro" if (await request.auser()).is_authenticated else None


def test_a_function_of_the_site_finds_the_user_on_an_event_loop() -> None:
    limit_tier("pro", 1)
    User.objects.create_user("anna")
    resolver = {"TIER_RESOLVER": f"{__name__}.tier_on_an_event_loop"}
    with override_settings(RATELIMIT_TIERS=resolver):
        replay = replayed([asked(user="anna"), asked(user="anna"), asked(), asked()])
    assert refusals(replay) == {"pro-31622400s": 1}


def test_no_function_of_the_site_is_asked_about_a_user_who_is_gone() -> None:
    limit_tier("pro", 1)
    limit_tier("free", 2)
    User.objects.create_user("anna", is_staff=True)
    log = [asked(user=name) for name in ("anna", "anna", "gone", "gone", "gone")]
    with override_settings(RATELIMIT_TIERS={"TIER_RESOLVER": f"{__name__}.tier_by_user"}):
        replayer = Replayer(AS_IT_IS)
        assert [replayer.decide(r) for r in log] == [True, False, True, True, False]


def test_a_preflight_is_charged_nothing() -> None:
    limit_tier("anonymous", 1)
    assert replayed([asked(method="OPTIONS") for _ in range(3)]).refused == 0


def test_a_user_who_sends_options_is_no_browser_that_asks_permission() -> None:
    limit_tier("free", 1)
    log = [asked(method="OPTIONS", user="anna", status=204) for _ in range(3)]
    assert replayed(log).refused == 2


def test_exempt_requests_are_counted_and_charged_nothing() -> None:
    limit_tier("anonymous", 1)
    make_rule("open", path="/plain/", exempt=True)
    replay = replayed([asked(), asked(), asked("/async/")])
    assert (replay.exempt, replay.refused, replay.requests) == (2, 0, 3)


def test_a_view_that_refused_to_authenticate_has_not_asked_its_throttle() -> None:
    """Such requests count for their address, as on the site."""
    limit_tier("anonymous", 1)
    log = [asked("/api/notes/", user="anna", status=status) for status in (403, 401, 406, 200)]
    replay = replayed(log)
    assert {name: count.refused for name, count in replay.clients.items()} == {
        "ip:192.0.2.7": 2,
        "user:anna": 0,
    }


def test_what_no_renderer_can_answer_counts_for_its_address(client: Client) -> None:
    limit_tier("anonymous", 1)
    client.force_login(User.objects.create_user("anna"))
    answers = [client.get("/api/notes/", HTTP_ACCEPT="image/png").status_code for _ in range(2)]
    assert answers == [406, 429]
    assert replayed(asked("/api/notes/", user="anna", status=406) for _ in "12").refused == 1


def test_what_did_not_fail_is_given_back_to_a_rule_that_counts_failures() -> None:
    make_rule("login", 2, path="/api/login/", count="failed")
    statuses = [200, 401, 200, 401, 200, 401]
    replayer = Replayer(AS_IT_IS)
    log = [asked("/api/login/", method="POST", status=status) for status in statuses]
    assert [replayer.decide(request) for request in log] == [True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/shop", "/shop/plain/"),
        ("/shop/", "/shop/plain/"),
        ("/", "/plain/"),
        ("/pla", "/plain/"),
    ],
)
def test_a_log_has_the_prefix_that_the_site_is_mounted_at(prefix: str, path: str) -> None:
    make_rule("plain", 1)
    with override_settings(FORCE_SCRIPT_NAME=prefix):
        assert refusals(replayed([asked(path), asked(path)])) == {"plain-31622400s": 1}


def test_a_replay_leaves_the_store_and_the_database_alone(valkey_client: redis.Redis) -> None:
    limit_tier("anonymous", 1)
    before = sorted(valkey_client.keys()), EndpointRule.objects.count()
    assert replayed([asked(), asked()]).refused == 1
    assert (sorted(valkey_client.keys()), EndpointRule.objects.count()) == before
    assert not ThrottleCount.objects.exists()


def test_guesses_that_the_tier_refuses_afterwards_count_for_a_rule_all_the_same() -> None:
    limit_tier("anonymous", 1)
    make_rule("guesses", 3, path="/api/search/", count="failed")
    log = [asked("/api/search/", seconds=n, status=401) for n in range(5)]
    assert refusals(replayed(log)) == {"anonymous-31622400s": 2, "guesses-31622400s": 2}


def test_a_preflight_that_found_nothing_is_charged_to_rules() -> None:
    limit_tier("anonymous")
    make_rule("scans", 2, path="/**")
    log = [asked("/nowhere/", seconds=n, method="OPTIONS", status=404) for n in range(3)]
    assert replayed(log).refused == 1


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_request_that_was_logged_late_is_given_back_all_the_same(algorithm: Algorithm) -> None:
    """Servers log what lasts when it ends, with the time at which it began."""
    limit_tier("anonymous")
    limit = {"requests": 2, "period": 60, "algorithm": algorithm.value}
    make_rule("failures", limit, path="/api/login/", count="failed", identify_by="everyone")
    seconds = [0, *[-2] * 5]
    log = [asked("/api/login/", seconds=second, method="POST", status=302) for second in seconds]
    assert replayed(log).refused == 0


@override_settings(RATELIMIT_TIERS={"API_KEY_RESOLVER": "tests.site.key_from_header"})
def test_guesses_of_a_key_in_the_query_count_for_a_rule_as_on_the_site(client: Client) -> None:
    limit_tier("anonymous", 2)
    make_rule("plain", 4)
    log, limits = list[LoggedRequest](), []
    for second in range(6):
        response = client.get("/plain/?api_key=guess", REMOTE_ADDR="192.0.2.7")
        refusing = response.wsgi_request.ratelimit.decision.refusing
        limits += [outcome.charge.policy.name for outcome in refusing]
        status = response.status_code
        log.append(asked(seconds=second, query="api_key=guess", status=status))
    assert refusals(replayed(log)) == Counter(limits)
    assert set(limits) == {"anonymous-31622400s", "plain-31622400s"}


class ForgetfulConverter:
    regex = "[0-9]+"

    def to_python(self, value: str) -> str:
        return {"1": "one"}[value]

    def to_url(self, value: str) -> str:
        return value


register_converter(ForgetfulConverter, "forgetful")
urlpatterns = [url("plain/", plain), url("numbers/<forgetful:number>/", plain)]


@override_settings(ROOT_URLCONF=__name__)
def test_a_path_that_a_converter_fails_on_is_charged_to_its_address_as_on_the_site() -> None:
    limit_tier("anonymous", 1)
    client, log = Client(raise_request_exception=False), list[LoggedRequest]()
    for second, path in enumerate(["/numbers/2/", "/plain/"]):
        status = client.get(path, REMOTE_ADDR="192.0.2.7").status_code
        log.append(asked(path, second, status=status))
    assert [request.status for request in log] == [500, 429]
    assert replayed(log).refused == 1
