"""The throttle limits views of the REST framework, with the middleware installed and without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousOperation
from django.http.multipartparser import MultiPartParserError
from django.test import Client, override_settings
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import APIException
from rest_framework.response import Response

from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.models import Tier
from tests import site
from tests.policies import ANYBODY, limit_tier, make_rule, used
from tests.site import statuses

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def token(anna: User) -> dict[str, str]:
    return {"Authorization": f"Token {Token.objects.create(user=anna).key}"}


@pytest.fixture(autouse=True)
def _counted_runs() -> None:
    site.RUNS.clear()


@pytest.mark.parametrize("path", ["/drf/", "/drf-function/", "/drf-option/", "/things/"])
def test_a_view_is_limited_and_charged_once(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 2)
    assert statuses(client, path, 4) == [200, 200, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("path", ["/drf-by-property/", "/drf-by-method/"])
def test_a_view_whose_class_does_not_tell_its_throttles_is_limited_and_charged_once(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 2)
    assert statuses(client, path, 4) == [200, 200, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("path", ["/drf/", "/drf-partial/", "/drf-decorated-partial/"])
def test_a_user_whom_the_view_authenticates_is_charged_as_that_user(
    is_installed: bool,
    client: Client,
    valkey_client: redis.Redis,
    anna: User,
    token: dict[str, str],
    path: str,
) -> None:
    limit_tier("free", 2)
    assert statuses(client, path, 3, headers=token) == [200, 200, 429]
    assert used(valkey_client) == {f"user:{anna.pk}": [2]}
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("pk", [[7], {"id": 7}], ids=str)
def test_a_user_whom_a_token_names_by_a_list_or_a_dict_is_one_client(
    is_installed: bool,
    client: Client,
    valkey_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    pk: object,
) -> None:
    limit_tier("free", 2)
    user = SimpleNamespace(pk=pk, is_authenticated=True, get_username=lambda: "anna")
    monkeypatch.setattr(site.NameInHeader, "authenticate", lambda *_: (user, None))
    assert statuses(client, "/drf-named/", 4) == [200, 200, 429, 429]
    assert used(valkey_client) == {f"user:{key_digest(str(pk))}": [2]}


def test_a_user_of_a_session_is_charged_as_that_user(
    is_installed: bool, client: Client, valkey_client: redis.Redis, anna: User
) -> None:
    limit_tier("free", 2)
    client.force_login(anna)
    assert statuses(client, "/drf/", 3) == [200, 200, 429]
    assert used(valkey_client) == {f"user:{anna.pk}": [2]}


def test_allowed_and_refused_responses_tell_the_limit(is_installed: bool, client: Client) -> None:
    limit_tier("anonymous", 1)
    allowed, refused = client.get("/drf/"), client.get("/drf/")
    for response, remaining in ((allowed, "0"), (refused, "0")):
        assert response.headers["X-RateLimit-Limit"] == "1"
        assert response.headers["X-RateLimit-Remaining"] == remaining
        assert response.headers["RateLimit-Policy"] == '"anonymous-31622400s";q=1;w=31622400'
        assert response.headers["RateLimit"].startswith('"anonymous-31622400s";r=0;t=')
    assert "Retry-After" not in allowed.headers
    assert "Cache-Control" not in allowed.headers
    assert refused.headers["Cache-Control"] == "no-store"
    wait = int(refused.headers["Retry-After"])
    assert wait >= 1
    assert refused.json() == {
        "error": "rate_limit_exceeded",
        "message": f"Too many requests. Try again in {wait} seconds.",
        "retry_after": wait,
    }


def test_the_view_of_a_refused_request_never_runs(is_installed: bool, client: Client) -> None:
    limit_tier("anonymous", 1)
    statuses(client, "/drf/", 4)
    assert site.RUNS["drf"] == 1


def test_django_does_not_log_a_refusal(
    is_installed: bool, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    limit_tier("anonymous", 1)
    assert statuses(client, "/drf/", 2) == [200, 429]
    assert "django.request" not in {record.name for record in caplog.records}


def test_rules_by_address_and_by_view_apply_and_none_is_charged_twice(
    is_installed: bool, client: Client, valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous", 9)
    make_rule("drf", 8)
    make_rule("by view", 7, view_name="tests.site.Throttled")
    make_rule("by user or address", 6, path="/drf/", identify_by="user_or_ip")
    assert statuses(client, "/drf/", 2) == [200, 200]
    assert used(valkey_client) == {ANYBODY: [2, 2, 2, 2]}


def test_a_field_counts_though_a_permission_has_read_the_body_as_a_stream(
    is_installed: bool, client: Client
) -> None:
    limit_tier("anonymous")
    counting = {"identify_by": "field", "request_field": "username"}
    rule = make_rule("by-name", 2, path="/drf-by-name/", **counting)
    rule.policies.update(tier=Tier.objects.get(slug="anonymous"))  # so it waits for the client
    bob, addresses = {"username": "bob"}, [f"192.0.2.{n}" for n in range(3)]
    answers = [
        client.post("/drf-by-name/", bob, content_type="application/json", REMOTE_ADDR=address)
        for address in addresses
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_a_refusal_charges_no_limit_at_all(
    is_installed: bool, client: Client, valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous", 2)
    make_rule("drf", 9)
    assert statuses(client, "/drf/", 5) == [200, 200, 429, 429, 429]
    assert used(valkey_client) == {ANYBODY: [2, 2]}


@pytest.mark.parametrize(("status", "answers"), [(404, [404, 429]), (200, [200, 200])])
def test_a_rule_for_failures_gives_back_what_succeeded(
    is_installed: bool, client: Client, status: int, answers: list[int]
) -> None:
    make_rule("failures", 1, path=f"/drf/{status}/", count="failed")
    assert statuses(client, f"/drf/{status}/", 2) == answers


def test_a_rule_for_failures_gives_back_what_a_view_that_answers_nothing_took(
    is_installed: bool, client: Client
) -> None:
    client.raise_request_exception = False
    make_rule("failures", 1, path="/drf-answering-nothing/", count="failed")
    assert statuses(client, "/drf-answering-nothing/", 3) == [500] * 3


@pytest.mark.parametrize(
    ("error", "answers"),
    [
        (RuntimeError(), [500] * 3),
        (SuspiciousOperation(), [400, 429, 429]),
        (MultiPartParserError(), [400, 429, 429]),
    ],
)
def test_a_rule_for_failures_counts_what_a_view_raises_by_its_status(
    is_installed: bool,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    answers: list[int],
) -> None:
    monkeypatch.setattr(site.Raised, "error", error)
    client.raise_request_exception = False
    make_rule("failures", 1, path="/drf-raising/", count="failed")
    with override_settings(RATELIMIT_TIERS={"FAILED_STATUSES": [400]}):
        assert statuses(client, "/drf-raising/", 3) == answers


def test_a_marked_view_costs_what_it_is_marked_with(
    is_installed: bool,
    client: Client,
    valkey_client: redis.Redis,
    anna: User,
    token: dict[str, str],
) -> None:
    limit_tier("free", 7)
    assert statuses(client, "/dear-drf/", 3, headers=token) == [200, 200, 429]
    assert used(valkey_client) == {f"user:{anna.pk}": [6]}


def test_an_exempt_view_is_not_charged(
    is_installed: bool, client: Client, valkey_client: redis.Redis, token: dict[str, str]
) -> None:
    limit_tier("free", 1)
    assert statuses(client, "/free-drf/", 3, headers=token) == [200] * 3
    assert statuses(client, "/free-drf-function/", 3, headers=token) == [200] * 3
    assert used(valkey_client) == {}


def test_a_disabled_throttle_lets_everything_pass(
    is_installed: bool, client: Client, valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous", 1)
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        assert statuses(client, "/drf/", 3) == [200] * 3
    assert valkey_client.dbsize() == 0


def detailed(error: Exception, context: dict[str, Any]) -> Response:
    """Answer as packages for standardized errors do: the setting EXCEPTION_HANDLER."""
    assert isinstance(error, APIException)
    details = {"codes": error.get_codes(), "full": error.get_full_details()}
    return Response(details, status=error.status_code)


def test_a_refusal_has_the_details_that_other_handlers_ask_for(
    is_installed: bool, client: Client, settings: Any
) -> None:
    limit_tier("anonymous", 1)
    handler = f"{__name__}.detailed"
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "EXCEPTION_HANDLER": handler}
    assert client.get("/drf/").status_code == 200
    response = client.get("/drf/")
    assert response.status_code == 429
    names = {"error", "message", "retry_after"}
    assert response.json()["codes"] == dict.fromkeys(names, "throttled")
    assert isinstance(response.json()["full"]["retry_after"]["message"], int)


def test_a_refusal_that_is_not_disclosed_tells_no_number(
    is_installed: bool, client: Client
) -> None:
    limit_tier("anonymous", 9)
    make_rule("drf", 1, disclose=False)
    client.get("/drf/")
    refused = client.get("/drf/")
    assert refused.json() == {
        "error": "rate_limit_exceeded",
        "message": "Too many requests. Try again later.",
    }
    told = {name for name in refused.headers if "ratelimit" in name.lower()}
    assert told <= {"X-RateLimit-Decision"}
    assert int(refused.headers["Retry-After"]) >= 1
