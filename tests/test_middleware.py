"""The middleware: every kind of view limited once, before its view runs, and told so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import copy
from datetime import timedelta
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils import timezone

from django_ratelimit_tiers.models import (
    EndpointRule,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
)
from django_ratelimit_tiers.store.configured import configured_store
from tests import site
from tests.policies import ANYBODY, limit_tier, make_rule, used
from tests.site import statuses

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

FIELDS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit")


@pytest.fixture(autouse=True)
def _counted_runs() -> Iterator[None]:
    site.RUNS.clear()
    yield
    site.RUNS.clear()


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def tight() -> Tier:
    """The tier of anonymous clients, which are allowed two requests."""
    return limit_tier("anonymous", 2)


VIEWS = ["/plain/", "/async/", "/marked/", "/amarked/", "/drf/", "/drf-function/", "/drf-option/"]


@pytest.mark.parametrize("path", [*VIEWS, "/drf-unthrottled/", "/things/", "/things/unthrottled/"])
def test_every_kind_of_view_is_limited_and_charged_once(
    client: Client, tight: Tier, valkey_client: redis.Redis, path: str
) -> None:
    assert client.get(path).status_code == 200
    assert used(valkey_client) == {ANYBODY: [1]}
    assert statuses(client, path, 2) == [200, 429]
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize(
    ("rules", "refusals", "expected"),
    [
        ([], 0, 1),
        ([{"path": "/plain/"}], 0, 2),
        ([{"view_name": "tests.site.plain"}], 0, 2),
        ([{"path": "/plain/"}, {"view_name": "tests.site.plain"}], 0, 3),
        ([{"path": "/plain/", "count": "failed"}], 0, 3),
        ([{"path": "/plain/"}], 1, 3),
    ],
    ids=["tier", "path", "view", "path and view", "not failed", "refused by the tier"],
)
def test_a_request_takes_as_many_calls_as_the_page_on_the_architecture_says(
    client: Client,
    tight: Tier,
    valkey_client: redis.Redis,
    rules: list[dict[str, Any]],
    refusals: int,
    expected: int,
) -> None:
    def calls() -> int:
        return int(valkey_client.info("commandstats")["cmdstat_evalsha"]["calls"])

    for number, fields in enumerate(rules):
        make_rule(f"rule-{number}", 100, **fields)
    client.get("/plain/")
    if refusals:
        client.get("/plain/")
    before = calls()
    assert client.get("/plain/").status_code == (429 if refusals else 200)
    assert calls() - before == expected


def test_rules_whose_names_differ_outside_ascii_only_tell_of_two_limits(
    client: Client,
) -> None:
    limit_tier("anonymous")
    search = make_rule("API поиск", 5, path="/plain/")
    orders = make_rule("API заказы", 9, path="/plain/**")
    told = client.get("/plain/").headers["RateLimit-Policy"]
    assert f'"api-{search.pk}-31622400s";q=5' in told
    assert f'"api-{orders.pk}-31622400s";q=9' in told


@pytest.mark.parametrize("path", [*VIEWS, "/drf-unthrottled/", "/nothing/"])
def test_middleware_that_only_knows_threads_changes_nothing_on_an_event_loop(
    tight: Tier, valkey_client: redis.Redis, path: str
) -> None:
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, "tests.site.no_user"]):
        get = async_to_sync(AsyncClient().get)
        answers = [get(path).status_code for _ in range(3)]
    assert answers == [answers[0], answers[0], 429]
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("moment", ["early_account", "late_account"])
@pytest.mark.parametrize("path", [*VIEWS, "/drf-unthrottled/", "/nothing/"])
def test_another_limiter_may_put_its_account_where_views_find_ours(
    client: Client, tight: Tier, valkey_client: redis.Redis, path: str, moment: str
) -> None:
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, f"tests.site.{moment}"]):
        answers = statuses(client, path, 3)
    assert answers == [answers[0], answers[0], 429]
    assert used(valkey_client) == {ANYBODY: [2]}


def test_views_whose_routes_have_one_name_count_together_under_a_rule_for_it(
    client: Client,
) -> None:
    limit_tier("anonymous")
    make_rule("exports", 3, view_name="export")
    paths = ["/export/a/", "/export-b/", "/export/a/", "/export-b/"]
    assert [client.get(path).status_code for path in paths] == [200, 200, 200, 429]


@pytest.mark.parametrize("view", [site.marked, site.Throttled.as_view()])
def test_a_view_that_is_called_without_a_url_is_limited_too(tight: Tier, view: Any) -> None:
    request = RequestFactory().get("/wherever/")
    assert [view(copy(request)).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
def test_the_view_of_a_refused_request_never_runs(client: Client, tight: Tier, path: str) -> None:
    assert statuses(client, path, 5) == [200, 200, 429, 429, 429]
    assert site.RUNS.total() == 2


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/", "/drf-unthrottled/"])
def test_allowed_and_refused_responses_tell_the_limit(
    client: Client, tight: Tier, path: str
) -> None:
    allowed, _, refused = (client.get(path) for _ in range(3))
    assert [allowed.headers[name] for name in FIELDS[:2]] == ["2", "1"]
    assert [refused.headers[name] for name in FIELDS[:2]] == ["2", "0"]
    for response in (allowed, refused):
        assert response.headers["RateLimit-Policy"] == '"anonymous-31622400s";q=2;w=31622400'
    assert "Retry-After" not in allowed.headers
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in allowed.headers


@pytest.mark.parametrize("path", ["/plain/", "/drf/"])
def test_a_day_limit_that_refuses_leaves_the_minute_limit_untouched(
    client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 2, {"requests": 100, "period": 86_400})
    assert statuses(client, path, 6) == [200, 200, 429, 429, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2, 2]}


def test_what_the_first_stage_took_is_given_back_when_the_second_refuses(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    make_rule("plain", 100)
    assert statuses(client, "/plain/", 4) == [200, 200, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2, 2]}


@pytest.mark.parametrize("path", ["/nothing/", "/plain", "/static/x.css"])
def test_what_reaches_no_view_is_charged_and_limited(
    client: Client, tight: Tier, valkey_client: redis.Redis, path: str
) -> None:
    first, _, refused, _ = (client.get(path) for _ in range(4))
    assert first.status_code in {301, 404}
    assert first.headers["X-RateLimit-Remaining"] == "1"
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert used(valkey_client) == {ANYBODY: [2]}


BY_ADDRESS = ["ip", "user_or_ip", "api_key"]


@pytest.mark.parametrize("identify_by", BY_ADDRESS)
@pytest.mark.parametrize("path", ["/nothing/", "/plain", "/drf-private/"])
def test_what_reaches_no_view_or_throttle_is_charged_to_the_rules_on_it(
    client: Client, valkey_client: redis.Redis, path: str, identify_by: str
) -> None:
    limit_tier("anonymous")
    make_rule("all", 2, path="/**", identify_by=identify_by)
    first, *others = statuses(client, path, 4)
    assert others == [first, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("path", ["/nothing/", "/plain", "/drf-private/"])
def test_what_reaches_no_view_or_throttle_is_charged_to_no_tier_that_is_replaced(
    client: Client, tight: Tier, path: str
) -> None:
    make_rule("all", 100, path="/**", identify_by="user_or_ip", tier_policies="replace")
    assert 429 not in statuses(client, path, 4)


@pytest.mark.parametrize("identify_by", BY_ADDRESS)
@pytest.mark.parametrize(("path", "is_failure"), [("/drf-private/", True), ("/plain", False)])
def test_what_reaches_no_view_or_throttle_counts_as_failed_by_its_answer(
    client: Client, path: str, identify_by: str, is_failure: bool
) -> None:
    limit_tier("anonymous")
    make_rule("all", 2, path="/**", identify_by=identify_by, count="failed")
    assert (429 in statuses(client, path, 4)) is is_failure


@pytest.mark.parametrize(
    ("status", "answers"),
    [(201, [201] * 4), (302, [302] * 4), (400, [400, 400, 429, 429])],
)
def test_what_a_view_without_its_throttle_has_done_is_not_refused_afterwards(
    client: Client, tight: Tier, status: int, answers: list[int]
) -> None:
    path = f"/drf-to-read/{status}/"
    assert [client.post(path).status_code for _ in range(4)] == answers
    assert site.RUNS["drf"] == 4


def test_who_is_turned_away_is_charged_though_a_site_answers_all_with_success(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    handler = {"EXCEPTION_HANDLER": "tests.site.answer_all_is_well"}
    with override_settings(REST_FRAMEWORK={**settings.REST_FRAMEWORK, **handler}):
        answers = [client.post("/drf-private/") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2]}


def test_who_is_turned_away_from_a_view_that_costs_more_than_the_tier_has_is_told_so(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    assert statuses(client, "/dear-drf-private/", 3) == [401, 401, 429]
    assert used(valkey_client) == {ANYBODY: [2]}


def test_what_a_view_without_its_throttle_was_asked_to_read_is_limited(
    client: Client, tight: Tier
) -> None:
    assert statuses(client, "/drf-to-read/", 3) == [200, 200, 429]


def test_a_refusal_of_what_reaches_no_view_gives_back_what_came_before(
    client: Client, valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous", 1)
    make_rule("all", 100, path="/**")
    assert statuses(client, "/nowhere/", 2) == [404, 429]
    assert used(valkey_client) == {ANYBODY: [1, 1]}


def test_a_refusal_tells_nothing_of_what_was_given_back(client: Client) -> None:
    limit_tier("anonymous", 1)
    make_rule("plain", 5)
    client.get("/plain/")
    refused = client.get("/plain/")
    assert refused.status_code == 429
    assert "plain-" not in refused.headers["RateLimit"]


def test_a_user_who_turns_out_to_be_exempt_is_charged_nothing(
    client: Client, anna: User, valkey_client: redis.Redis
) -> None:
    ServiceAccount.objects.create(name="robot", owner="ops", reason="backup", user=anna)
    make_rule("plain", 1)
    client.force_login(anna)
    responses = [client.get("/plain/") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 200]
    assert not set(FIELDS) & set(responses[0].headers)
    assert used(valkey_client) == {}


def test_a_redirect_and_its_target_are_two_requests(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    assert client.get("/plain", follow=True).status_code == 200
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("path", ["/drf-private/", "/free-drf/"])
def test_a_view_that_refuses_before_its_throttle_runs_is_charged_unless_it_is_exempt(
    client: Client, tight: Tier, valkey_client: redis.Redis, path: str
) -> None:
    expected = [401, 401, 401] if path == "/free-drf/" else [401, 401, 429]
    assert statuses(client, path, 3) == expected
    assert used(valkey_client) == ({} if path == "/free-drf/" else {ANYBODY: [2]})


def test_a_view_that_fails_is_charged_once(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    client.raise_request_exception = False
    assert statuses(client, "/broken/", 3) == [500, 500, 429]
    assert site.RUNS["broken"] == 2
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("path", ["/free/", "/afree/"])
def test_an_exempt_view_is_neither_charged_nor_told(
    client: Client, tight: Tier, valkey_client: redis.Redis, path: str
) -> None:
    view = {"/free/": "tests.site.free", "/afree/": "tests.site.afree"}[path]
    make_rule("by view", 1, view_name=view)
    responses = [client.get(path) for _ in range(4)]
    assert {response.status_code for response in responses} == {200}
    assert not set(FIELDS) & set(responses[0].headers)
    assert used(valkey_client) == {}


CACHED = [
    settings.MIDDLEWARE[0],
    "django.middleware.cache.UpdateCacheMiddleware",
    *settings.MIDDLEWARE[1:],
    "django.middleware.cache.FetchFromCacheMiddleware",
]


@pytest.mark.parametrize("exempt_by", ["decorator", "rule"])
@pytest.mark.parametrize(
    ("options", "status"), [({"SECURE_SSL_REDIRECT": True}, 301), ({"MIDDLEWARE": CACHED}, 200)]
)
def test_what_middleware_answers_in_place_of_an_exempt_view_is_not_charged(
    tight: Tier, valkey_client: redis.Redis, options: dict[str, Any], status: int, exempt_by: str
) -> None:
    make_rule("free", exempt=True, view_name="tests.site.plain")
    path = {"decorator": "/free/", "rule": "/plain/"}[exempt_by]
    with override_settings(**options):
        assert statuses(Client(), path, 4) == [status] * 4
    assert used(valkey_client) == {}


@pytest.mark.parametrize("path", ["/plain/", "/async/"])
def test_a_view_is_exempt_only_where_it_is_decorated(
    client: Client, tight: Tier, path: str
) -> None:
    assert statuses(client, f"/free-{path[1:]}", 3) == [200] * 3
    assert statuses(client, path, 3) == [200, 200, 429]


@pytest.mark.parametrize("path", ["/free-to-read/", "/free-to-list/"])
def test_a_method_of_a_class_is_exempt_by_itself(client: Client, tight: Tier, path: str) -> None:
    assert statuses(client, path, 3) == [200] * 3
    assert client.head(path).status_code == 200
    assert [client.put(path).status_code for _ in range(3)] == [200, 200, 429]


def test_head_counts_as_get(client: Client, tight: Tier) -> None:
    make_rule("plain", 1, methods="GET", tier_policies="replace")
    assert client.head("/plain/").status_code == 200
    assert client.get("/plain/").status_code == 429
    assert client.post("/plain/").status_code == 200


PREFLIGHT = {"Origin": "https://example.org", "Access-Control-Request-Method": "PUT"}


def preflights(client: Client, path: str, times: int) -> list[int]:
    return [client.options(path, headers=PREFLIGHT).status_code for _ in range(times)]


@pytest.mark.parametrize("path", ["/plain/", "/drf/"])
def test_a_preflight_is_not_charged(
    client: Client, tight: Tier, valkey_client: redis.Redis, path: str
) -> None:
    assert 429 not in preflights(client, path, 4)
    assert used(valkey_client) == {}


def spell_small(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Write methods in small letters, which views of a class answer to as well."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.method = (request.method or "").lower()
        return get_response(request)

    return middleware


def test_a_preflight_is_one_in_any_spelling(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    chain = [*settings.MIDDLEWARE, "tests.test_middleware.spell_small"]
    with override_settings(MIDDLEWARE=chain):
        assert 429 not in preflights(client, "/plain/", 4)
    assert used(valkey_client) == {}


def test_a_preflight_that_finds_nothing_is_charged(client: Client, tight: Tier) -> None:
    assert preflights(client, "/nothing/", 3) == [404, 404, 429]


def test_a_preflight_that_finds_nothing_is_charged_to_rules(client: Client) -> None:
    make_rule("area", 2, path="/nothing/**", identify_by="ip")
    assert preflights(client, "/nothing/", 3) == [404, 404, 429]


closed: list[int] = []


def closing(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Note which responses are closed."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response._resource_closers.append(lambda: closed.append(response.status_code))
        return response

    return middleware


def test_a_response_that_a_refusal_replaces_is_closed(client: Client, tight: Tier) -> None:
    closed.clear()
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, f"{__name__}.closing"]):
        assert [client.get("/nothing/").status_code for _ in range(3)] == [404, 404, 429]
    assert closed == [404, 404, 404]


def test_a_preflight_is_charged_to_a_rule_that_names_options(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    make_rule("plain", 1, methods="OPTIONS")
    assert preflights(client, "/plain/", 2) == [200, 429]
    assert used(valkey_client) == {ANYBODY: [1]}


@pytest.mark.parametrize("told", [(), *((header,) for header in PREFLIGHT)], ids=str)
def test_options_that_asks_for_no_permission_is_a_request_like_any_other(
    client: Client, tight: Tier, told: tuple[str, ...]
) -> None:
    headers = {header: PREFLIGHT[header] for header in told}
    answers = [client.options("/plain/", headers=headers).status_code for _ in range(3)]
    assert answers == [200, 200, 429]


@pytest.mark.parametrize(
    "credential",
    ["Authorization", "Cookie", "X-API-Key", "X-Key", "Auth-Token", "X-Password", "X-Session-Id"],
)
def test_what_presents_credentials_is_no_preflight(
    client: Client, tight: Tier, credential: str
) -> None:
    headers = {**PREFLIGHT, credential: "Basic YWRtaW46NQ=="}
    answers = [client.options("/plain/", headers=headers).status_code for _ in range(3)]
    assert answers == [200, 200, 429]


def test_who_guesses_keys_by_preflights_is_charged_and_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_tier("anonymous")
    make_rule("guesses", 2, path="/plain/")
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}

    def key_of(request: HttpRequest) -> str | None:
        return "7" if request.headers.get("X-Key") == "right" else None

    monkeypatch.setattr("tests.site.key_from_header", key_of)
    with override_settings(RATELIMIT_TIERS={"API_KEY_RESOLVER": "tests.site.key_from_header"}):
        answers = [
            client.options("/plain/", headers=preflight | {"X-Key": key}).status_code
            for key in ("a", "b", "c", "right")
        ]
    assert answers == [200, 200, 429, 429]


def key_of_query(request: HttpRequest) -> str | None:
    """Take what a query names for a key: the setting API_KEY_RESOLVER."""
    return "7" if "right" in request.GET.values() else None


KEY_OF_QUERY = {"API_KEY_RESOLVER": f"{__name__}.key_of_query"}


@pytest.mark.parametrize("name", ["key", "api_key", "apiKey", "X-Auth-Token", "a=1&ap%69-ke%79"])
@override_settings(RATELIMIT_TIERS=KEY_OF_QUERY)
def test_who_guesses_keys_of_the_query_by_preflights_is_charged_and_refused(
    client: Client, name: str
) -> None:
    limit_tier("anonymous")
    make_rule("guesses", 2, path="/plain/")
    guesses = [f"/plain/?{name}={key}" for key in ("a", "b", "c", "right")]
    answers = [client.options(guess, headers=PREFLIGHT).status_code for guess in guesses]
    assert answers == [200, 200, 429, 429]


@pytest.mark.parametrize(
    "query",
    ["", "page=2", "page_token=a", "keyword=a", "author=a", "sort_key=a", "q=key", "monkey=a"],
)
@override_settings(RATELIMIT_TIERS=KEY_OF_QUERY)
def test_a_preflight_with_a_query_that_has_no_key_is_not_charged(
    client: Client, tight: Tier, query: str
) -> None:
    assert preflights(client, f"/plain/?{query}", 4) == [200] * 4


@override_settings(RATELIMIT_TIERS={})
def test_where_no_keys_are_verified_a_preflight_may_have_any_query(
    client: Client, tight: Tier
) -> None:
    assert preflights(client, "/plain/?api_key=a", 4) == [200] * 4


def test_a_preflight_whose_key_a_resolver_turns_away_is_charged(
    client: Client, tight: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn_away(_request: HttpRequest) -> None:
        raise PermissionDenied

    monkeypatch.setattr("tests.site.key_from_header", turn_away)
    with override_settings(RATELIMIT_TIERS={"API_KEY_RESOLVER": "tests.site.key_from_header"}):
        assert preflights(client, "/plain/?k=a", 3) == [403, 403, 429]


def test_no_preflight_has_a_client_that_is_somebody(client: Client, anna: User) -> None:
    limit_tier("anonymous")
    make_rule("guesses", 2, path="/drf-named/")
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    names = ["x", "y", "z", "anna"]
    answers = [
        client.options("/drf-named/", headers=preflight | {"X-Name": name}).status_code
        for name in names
    ]
    assert answers == [403, 403, 429, 429]


def test_an_exempt_rule_wins_over_every_other(
    client: Client, tight: Tier, valkey_client: redis.Redis
) -> None:
    make_rule("tight", 1, path="/plain/")
    make_rule("exempt", path="/plain/**", exempt=True)
    assert statuses(client, "/plain/", 4) == [200] * 4
    assert used(valkey_client) == {}


def test_an_exempt_rule_in_shadow_mode_exempts_nobody(client: Client, tight: Tier) -> None:
    make_rule("exempt", path="/plain/", exempt=True, mode="shadow")
    assert statuses(client, "/plain/", 3) == [200, 200, 429]


def test_a_rule_applies_beside_the_tier(client: Client, valkey_client: redis.Redis) -> None:
    limit_tier("anonymous", 9)
    make_rule("plain", 2)
    assert statuses(client, "/plain/", 3) == [200, 200, 429]
    assert used(valkey_client) == {ANYBODY: [2, 2]}


@pytest.mark.parametrize("identify_by", ["ip", "everyone", "user_or_ip", "api_key"])
def test_a_rule_that_replaces_the_tier_is_the_only_limit(
    client: Client, tight: Tier, valkey_client: redis.Redis, identify_by: str
) -> None:
    make_rule("plain", 3, tier_policies="replace", identify_by=identify_by)
    assert statuses(client, "/plain/", 4) == [200, 200, 200, 429]
    assert list(used(valkey_client).values()) == [[3]]


def test_a_rule_replaces_the_tier_only_for_those_whom_it_counts(
    client: Client, tight: Tier
) -> None:
    make_rule("plain", 9, tier_policies="replace", identify_by="user")
    assert statuses(client, "/plain/", 3) == [200, 200, 429]


def test_a_rule_in_shadow_mode_does_not_replace_the_tier(client: Client, tight: Tier) -> None:
    make_rule("plain", 9, tier_policies="replace", mode="shadow")
    assert statuses(client, "/plain/", 3) == [200, 200, 429]


def test_shadow_mode_refuses_nobody_and_tells_nothing(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1, mode="shadow")
    for _ in range(3):
        response = client.get("/plain/")
        assert response.status_code == 200
        assert not {*FIELDS, "RateLimit-Policy", "Retry-After"} & set(response.headers)


def test_what_shadow_mode_would_refuse_is_counted_apart(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1, mode="shadow")
    statuses(client, "/plain/", 3)
    records = configured_store().records
    counts = [item for minute in records.minutes() for item in records.counts(minute).items()]
    assert [(key.mode, key.policy, key.subject) for key, _ in counts] == [
        ("shadow", "plain-31622400s", ANYBODY)
    ]
    assert sum(count for _, count in counts) == 2


def test_a_rule_that_is_off_does_nothing(client: Client, valkey_client: redis.Redis) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1, mode="off")
    assert statuses(client, "/plain/", 3) == [200] * 3
    assert used(valkey_client) == {}


@pytest.mark.parametrize(
    ("starts", "ends", "is_active"),
    [(-1, 1, True), (None, 1, True), (-1, None, True), (1, 2, False), (-2, -1, False)],
)
def test_a_rule_is_in_force_from_its_start_until_its_end(
    client: Client, starts: int | None, ends: int | None, is_active: bool
) -> None:
    limit_tier("anonymous")
    now = timezone.now()
    make_rule(
        "plain",
        1,
        starts_at=None if starts is None else now + timedelta(hours=starts),
        ends_at=None if ends is None else now + timedelta(hours=ends),
    )
    assert statuses(client, "/plain/", 2) == [200, 429 if is_active else 200]


def test_a_rule_can_have_limits_of_its_own_for_single_tiers(client: Client, anna: User) -> None:
    limit_tier("anonymous")
    free = limit_tier("free")
    rule = make_rule("plain", 1)
    RulePolicy.objects.create(rule=rule, tier=free, requests=3, period=86_400)
    assert statuses(client, "/plain/", 2) == [200, 429]
    client.force_login(anna)
    assert statuses(client, "/plain/", 4) == [200, 200, 200, 429]


def test_a_rule_by_user_does_not_concern_anonymous_clients(client: Client, anna: User) -> None:
    limit_tier("anonymous")
    limit_tier("free")
    make_rule("plain", 1, identify_by="user")
    assert statuses(client, "/plain/", 2) == [200, 200]
    client.force_login(anna)
    assert statuses(client, "/plain/", 2) == [200, 429]


def test_a_rule_by_address_counts_users_of_one_address_together(
    client: Client, anna: User, valkey_client: redis.Redis
) -> None:
    make_rule("plain", 2)
    assert client.get("/plain/").status_code == 200
    client.force_login(anna)
    assert statuses(client, "/plain/", 2) == [200, 429]


def test_a_rule_by_route_name_or_dotted_path_is_charged_before_the_view(
    client: Client, valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous")
    make_rule("by view", 2, view_name="tests.site.plain")
    answers = [client.get(path).status_code for path in ("/plain/", "/plain/204/", "/plain/")]
    assert answers == [200, 204, 429]
    assert site.RUNS["plain"] == 2


def test_the_cost_of_a_rule_is_what_each_request_takes(
    client: Client, valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous")
    make_rule("plain", 5, cost=2)
    assert statuses(client, "/plain/", 3) == [200, 200, 429]
    assert used(valkey_client) == {ANYBODY: [4]}


@pytest.mark.parametrize(("status", "held"), [(401, {ANYBODY: [2]}), (200, {})])
@pytest.mark.parametrize("view", ["plain", "async", "drf", "marked"])
def test_a_rule_for_failures_gives_back_what_succeeded(
    client: Client,
    valkey_client: redis.Redis,
    view: str,
    status: int,
    held: dict[str, list[int]],
) -> None:
    limit_tier("anonymous")
    make_rule("fail", 2, path=f"/{view}/**", count="failed")
    answers = statuses(client, f"/{view}/{status}/", 4)
    assert answers == ([401, 401, 429, 429] if status == 401 else [200] * 4)
    assert used(valkey_client) == held


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_given_back_is_what_was_charged_then(
    kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rule("plain", 2, count="failed")
    times: list[int | None] = []

    def refund(*_: Any, charged_at: int | None = None) -> None:
        times.append(charged_at)

    async def arefund(*charges: Any, charged_at: int | None = None) -> None:
        refund(*charges, charged_at=charged_at)

    monkeypatch.setattr(configured_store(), "refund", refund)
    monkeypatch.setattr(configured_store(), "arefund", arefund)
    before, get = time.time_ns() // 1000, kind().get
    (async_to_sync(get) if kind is AsyncClient else get)("/plain/")
    (charged_at,) = times
    assert charged_at is not None
    assert before <= charged_at <= time.time_ns() // 1000


def test_wrong_passwords_at_the_rest_frameworks_own_token_view_count_as_failed(
    client: Client,
) -> None:
    limit_tier("anonymous")
    by_name = {"identify_by": "field", "request_field": "username"}
    make_rule("token", 2, path="/token/", count="failed", **by_name)
    guess = {"username": "anna", "password": "wrong"}
    assert [client.post("/token/", guess).status_code for _ in range(3)] == [400, 400, 429]


def test_a_rule_for_failures_tells_its_numbers_only_of_what_failed(
    is_installed: bool, client: Client
) -> None:
    limit_tier("anonymous", 9)
    make_rule("fail", 2, path="/drf/**", count="failed")
    right, wrong = client.get("/drf/200/"), client.get("/drf/401/")
    assert [right.headers[name] for name in FIELDS[:2]] == ["9", "8"]
    assert "fail" not in right.headers["RateLimit"]
    assert [wrong.headers[name] for name in FIELDS[:2]] == ["2", "1"]


def test_disabled_limits_do_nothing(client: Client, valkey_client: redis.Redis) -> None:
    limit_tier("anonymous", 1)
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        for path in ("/plain/", "/async/", "/drf/", "/marked/", "/nothing/"):
            response = [client.get(path) for _ in range(2)][-1]
            assert response.status_code in {200, 404}
            assert not set(FIELDS) & set(response.headers)
    assert valkey_client.dbsize() == 0


def test_an_unlimited_tier_has_no_limits_but_those_of_rules(client: Client, tight: Tier) -> None:
    Tier.objects.filter(slug="anonymous").update(unlimited=True)
    make_rule("async", 1)
    assert statuses(client, "/plain/", 4) == [200] * 4
    assert statuses(client, "/async/", 2) == [200, 429]


@pytest.mark.parametrize("identify_by", ["ip", "user", "user_or_ip", "everyone"])
@pytest.mark.parametrize("other_tier", [False, True])
def test_a_limit_for_every_tier_holds_for_an_unlimited_one_whomever_the_rule_counts(
    client: Client, anna: User, identify_by: str, other_tier: bool
) -> None:
    rule = make_rule("plain", 1, identify_by=identify_by)
    if other_tier:
        row = {"tier": Tier.objects.get(slug="pro"), "period": 60}
        RulePolicy.objects.create(rule=rule, requests=9, **row)
    TierAssignment.objects.create(user=anna, tier=Tier.objects.get(slug="internal"))
    client.force_login(anna)
    assert statuses(client, "/plain/", 2) == [200, 429]


def test_a_row_that_no_form_accepts_leaves_the_other_rules_in_force(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    limit_tier("anonymous")
    make_rule("bad", 1, path="/good")
    make_rule("plain", 1)
    EndpointRule.objects.filter(name="bad").update(path="no slash/**/x")
    assert statuses(client, "/plain/", 2) == [200, 429]
    assert "endpoint rule 'bad' is not in force" in caplog.text


def test_networks_that_no_form_accepts_exempt_nobody(
    client: Client, tight: Tier, anna: User, caplog: pytest.LogCaptureFixture
) -> None:
    account = ServiceAccount(name="bad", owner="o", reason="r", user=anna, networks="10.0.0.0/8")
    account.save()
    table = ServiceAccount._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET networks = 'everywhere'")  # noqa: S608
    client.force_login(anna)
    limit_tier("free", 1)
    assert statuses(client, "/plain/", 2) == [200, 429]
    assert "service account 'bad' is not in force" in caplog.text
