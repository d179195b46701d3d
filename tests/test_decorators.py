"""The decorators mark views for the middleware, and limit them by themselves without it."""

from __future__ import annotations

import asyncio

import pytest
import redis
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.views import View
from rest_framework.authtoken.models import Token
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.exceptions import APIException, AuthenticationFailed, NotFound

from django_ratelimit_tiers.decorators import ratelimit
from django_ratelimit_tiers.models import PolicyRevision, TierPolicy
from django_ratelimit_tiers.policy import snapshots
from tests import site
from tests.policies import ANYBODY, limit_tier, make_rule, used
from tests.site import statuses

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]


@pytest.mark.parametrize("path", ["/marked/", "/amarked/"])
def test_a_marked_view_is_limited_charged_once_and_told(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 2)
    site.RUNS.clear()
    allowed, _, refused = (client.get(path) for _ in range(3))
    assert (allowed.status_code, refused.status_code) == (200, 429)
    assert allowed.headers["X-RateLimit-Remaining"] == "1"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"] == "rate_limit_exceeded"
    assert used(valkey_client) == {ANYBODY: [2]}
    assert site.RUNS.total() == 2


DEAR_DRF = ["/dear-drf/", "/dear-drf-dispatch/", "/dear-drf-function/"]
DEAR_ASYNC_CLASSES = ["/dear-async-class/", "/dear-unprotected-async-class/"]
DEAR_CLASSES = ["/dear-class/", "/dear-to-read/", *DEAR_ASYNC_CLASSES]
DEAR_PLAIN = ["/dear/", "/adear/", "/dear-partial/", "/dear-decorated-partial/", *DEAR_CLASSES]
DEAR = [*DEAR_PLAIN, *DEAR_DRF, "/dear-drf-unthrottled-function/"]


@pytest.mark.parametrize("path", DEAR)
def test_a_dear_view_takes_its_cost(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 7)
    assert statuses(client, path, 3) == [200, 200, 429]
    assert used(valkey_client) == {ANYBODY: [6]}


def test_a_view_that_is_called_without_a_url_takes_its_cost(valkey_client: redis.Redis) -> None:
    limit_tier("anonymous", 7)
    site.dear(RequestFactory().get("/"))
    assert used(valkey_client) == {ANYBODY: [3]}


def test_a_cost_above_the_limit_never_passes(is_installed: bool, client: Client) -> None:
    limit_tier("anonymous", 2)
    refused = client.get("/dear/")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "31622400"


@pytest.mark.parametrize("path", ["/marked/", "/amarked/"])
def test_a_user_of_a_session_is_charged_as_that_user(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    anna = User.objects.create_user("anna")
    client.force_login(anna)
    client.get(path)
    assert list(used(valkey_client)) == [f"user:{anna.pk}"]


@pytest.mark.parametrize("path", DEAR_DRF)
def test_a_user_whom_the_view_authenticates_is_charged_as_that_user(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    anna = User.objects.create_user("anna")
    token = Token.objects.create(user=anna)
    assert client.get(path, headers={"Authorization": f"Token {token}"}).status_code == 200
    assert list(used(valkey_client)) == [f"user:{anna.pk}"]


@pytest.mark.parametrize("path", ["/marked/", "/amarked/"])
def test_rules_apply_to_a_marked_view_and_none_is_charged_twice(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 9)
    make_rule("by path", 8, path=path)
    make_rule("by view", 7, view_name=f"tests.site.{path[1:-1]}")
    assert statuses(client, path, 2) == [200, 200]
    assert used(valkey_client) == {ANYBODY: [2, 2, 2]}


@pytest.mark.parametrize(("status", "answers"), [(403, [403, 429]), (200, [200, 200])])
@pytest.mark.parametrize("view", ["marked", "amarked"])
def test_a_rule_for_failures_gives_back_what_succeeded(
    is_installed: bool, client: Client, view: str, status: int, answers: list[int]
) -> None:
    make_rule("failures", 1, path=f"/{view}/**", count="failed")
    assert statuses(client, f"/{view}/{status}/", 2) == answers


@pytest.mark.parametrize(
    ("error", "answers"),
    [
        (Http404(), [404, 429]),
        (PermissionDenied(), [403, 429]),
        (BadRequest(), [400, 429]),
        (MultiPartParserError(), [400, 429]),
        (RuntimeError("this view is broken"), [500, 500]),
    ],
)
@pytest.mark.parametrize("view", ["raising", "araising"])
def test_a_rule_for_failures_counts_what_a_view_raises_by_its_status(
    is_installed: bool,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    view: str,
    error: Exception,
    answers: list[int],
) -> None:
    monkeypatch.setattr(site.Raised, "error", error)
    make_rule("failures", 1, path=f"/{view}/", count="failed")
    client.raise_request_exception = False
    with override_settings(RATELIMIT_TIERS={"FAILED_STATUSES": [400, 403, 404]}):
        assert statuses(client, f"/{view}/", 2) == answers


@pytest.mark.parametrize("error", [AuthenticationFailed(), NotFound()])
def test_a_rule_for_failures_counts_what_is_raised_below_api_view(
    rf: RequestFactory, error: APIException
) -> None:
    @api_view(["POST"])
    @throttle_classes([])
    @ratelimit()
    def guess(request: object) -> HttpResponse:
        raise error

    make_rule("failures", 1, path="/guess/", count="failed")
    with override_settings(RATELIMIT_TIERS={"FAILED_STATUSES": [401, 403, 404]}):
        answers = [guess(rf.post("/guess/")).status_code for _ in range(2)]
    assert answers[0] in (401, 403, 404)
    assert answers[1] == 429


@pytest.mark.parametrize("parameters", ["", "; charset=utf-8"])
def test_a_rule_by_a_field_reads_forms_below_api_view(
    is_installed: bool, client: Client, parameters: str
) -> None:
    limit_tier("anonymous")
    counting = {"identify_by": "field", "request_field": "username"}
    make_rule("by-name", 2, path="/marked-drf-function/", **counting)
    kind = "application/x-www-form-urlencoded" + parameters
    statuses = [
        client.generic(
            "POST", "/marked-drf-function/", "username=bob", kind, REMOTE_ADDR=f"192.0.2.{n}"
        ).status_code
        for n in range(3)
    ]
    assert statuses == [200, 200, 429]


def test_a_request_whose_client_goes_away_counts_as_failed(
    is_installed: bool, valkey_client: redis.Redis
) -> None:
    site.RUNS.clear()
    make_rule("endless-marked", 5, count="failed", tier_policies="replace")

    async def go_away() -> None:
        request = asyncio.create_task(AsyncClient().get("/endless-marked/"))
        while not site.RUNS["endless"]:
            await asyncio.sleep(0.01)
        request.cancel()  # as Django does when its server tells that the client has gone
        with pytest.raises(asyncio.CancelledError):
            await request

    async_to_sync(go_away)()
    assert used(valkey_client) == {ANYBODY: [1]}


@pytest.mark.parametrize(
    "path", ["/free/", "/afree/", "/free-partial/", "/free-decorated-partial/"]
)
def test_an_exempt_view_is_left_alone(
    is_installed: bool, client: Client, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("anonymous", 1)
    assert statuses(client, path, 3) == [200] * 3
    assert used(valkey_client) == {}


def test_disabled_limits_do_nothing(
    is_installed: bool, client: Client, valkey_client: redis.Redis
) -> None:
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        for path in ("/marked/", "/amarked/"):
            assert "X-RateLimit-Limit" not in client.get(path).headers
    assert valkey_client.dbsize() == 0


@pytest.mark.parametrize("cost", [0, -1, 10**10])
def test_a_cost_that_no_limit_can_hold_is_refused_where_it_is_written(cost: int) -> None:
    with pytest.raises(ValueError, match=r"ratelimit: cost must be from 1 to 1,000,000,000"):
        ratelimit(cost=cost)


def test_a_method_is_refused_where_it_is_decorated() -> None:
    """It would fail on every request, since `self` is no request."""
    with pytest.raises(
        TypeError, match=r"Page\.get is a method.*method_decorator\(ratelimit\(cost=5"
    ):

        class Page(View):
            @ratelimit(cost=5)
            def get(self, request: HttpRequest) -> HttpResponse:
                return HttpResponse()


def test_a_cost_may_be_given_without_its_name() -> None:
    assert ratelimit(5)(site.plain).ratelimit_cost == 5  # type: ignore[attr-defined]


def test_a_decorator_without_parentheses_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"as in @ratelimit\(cost=5\)"):
        ratelimit(site.plain)  # type: ignore[arg-type]


def test_a_marked_view_keeps_its_name_and_words() -> None:
    assert site.dear.__name__ == "dear"
    assert site.adear.__name__ == "adear"


def test_an_edit_that_nobody_was_told_of_is_found(
    is_installed: bool, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_tier("anonymous", 10)
    assert client.get("/marked/").headers["X-RateLimit-Limit"] == "10"
    QuerySet(TierPolicy).filter(tier__slug="anonymous").update(requests=20)
    PolicyRevision.objects.create(model="a", reason="an edit that nobody was told of")
    assert client.get("/marked/").headers["X-RateLimit-Limit"] == "10"
    monkeypatch.setattr(snapshots, "DATABASE_LOOK_SECONDS", 0)
    assert client.get("/marked/").headers["X-RateLimit-Limit"] == "20"
