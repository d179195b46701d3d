"""No spelling of a path, a target or a method leads to a view around the limits on it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import redis
from django.conf import settings as site_settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.routers import DefaultRouter

from django_ratelimit_tiers.models import EndpointRule
from tests.policies import ANYBODY, limit_tier, make_rule, used
from tests.site import Things

LIMIT = 3

SPELLINGS = {
    "item": [
        "/api/items/7/",
        "/api/items/007/",
        "/api/items/0000000007/",
        "/api/orders/7/",
        "/api/orders/٧/",
        "/api/orders/７/",
    ],
    "report": [
        "/api/reports/sales",
        "/api/reports/sales/",
        "/api/REPORTS/sales",
        "/api/reportſ/sales/",
    ],
    "search": ["/api/search/", "/api/find/"],
    "file": ["/api/files/a", "/api/files/../search/", "/api/files//a", "/api/files/./a"],
    "about": ["/en/about/", "/de/about/"],
}
"""Paths that lead to one view each: digits of other alphabets and leading zeros, letters that
fold to others, slashes that may be left out, two routes, dots and slashes that belong to the path,
and prefixes of languages."""


def rule_on(path: str, **fields: object) -> EndpointRule:
    return make_rule("rule", LIMIT, path=path, **fields)


def override_method(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Take the word of a header for the method, as some sites let clients that only know POST."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.method = request.headers["X-HTTP-Method-Override"]
        return get_response(request)

    return middleware


class OverrideMethodAtTheView:
    """Take the word of a form for the method, once the view is known: as django-method-override."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_: object) -> None:
        request.method = request.POST.get("_method", request.method)


@pytest.mark.django_db
class TestSpellings:
    @pytest.mark.parametrize("view", list(SPELLINGS))
    @pytest.mark.parametrize("first", [0, 1])
    def test_all_spellings_share_a_rule_by_path(
        self, client: Client, view: str, first: int
    ) -> None:
        limit_tier("anonymous")
        spellings = SPELLINGS[view]
        rule_on(spellings[first])
        statuses = [client.get(path).status_code for path in spellings * LIMIT]
        assert statuses[:LIMIT] == [200] * LIMIT
        assert set(statuses[LIMIT:]) == {429}

    @pytest.mark.parametrize("view", list(SPELLINGS))
    def test_all_spellings_share_one_counter_by_route(self, client: Client, view: str) -> None:
        limit_tier("anonymous")
        make_rule("rule", LIMIT, path="/**", scope="route")
        statuses = [client.get(path).status_code for path in SPELLINGS[view] * LIMIT]
        assert statuses[:LIMIT] == [200] * LIMIT
        assert set(statuses[LIMIT:]) == {429}

    def test_two_routes_have_a_counter_each(self, client: Client) -> None:
        limit_tier("anonymous")
        make_rule("rule", 1, path="/**", scope="route")
        paths = ("/api/items/1/", "/api/items/2/", "/api/files/x", "/api/files/y")
        assert [client.get(path).status_code for path in paths] == [200, 429, 200, 429]

    def test_a_format_suffix_is_the_same_endpoint(self, client: Client) -> None:
        client.force_login(User.objects.create_user("ada"))
        rule_on("/api/notes/")
        paths = ["/api/notes/", "/api/notes.json", "/api/notes/", "/api/notes.json"]
        assert [client.get(path).status_code for path in paths] == [200, 200, 200, 429]

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("scope", ["rule", "route"])
    def test_a_format_suffix_stays_the_same_endpoint_after_a_request_and_an_edit(
        self, client: Client, scope: str
    ) -> None:
        limit_tier("anonymous")
        router = DefaultRouter()
        router.register("things", Things, basename="thing")
        with override_settings(ROOT_URLCONF=tuple(router.urls)):
            rule_on("/things/" if scope == "rule" else "/**", scope=scope)
            answers = [client.get("/things/")]
            make_rule("other", LIMIT)
            paths = ["/things.json", "/things/", "/things.json"]
            answers += [client.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * LIMIT + [429]

    @pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Method-Override"])
    def test_a_header_that_names_another_method_changes_nothing(
        self, client: Client, header: str
    ) -> None:
        rule_on("/plain/", methods="POST")
        responses = [client.post("/plain/", headers={header: "GET"}) for _ in range(LIMIT + 1)]
        assert [response.status_code for response in responses] == [200] * LIMIT + [429]

    @pytest.mark.parametrize("method", ["DELETE", "delete", "Delete"])
    @pytest.mark.parametrize("exempt", [None, "POST"])
    def test_a_method_that_middleware_puts_in_place_of_another_is_limited(
        self, client: Client, exempt: str | None, method: str, valkey_client: redis.Redis
    ) -> None:
        limit_tier("anonymous")
        rule_on("/plain/", methods="DELETE")
        make_rule("early", LIMIT * 2, path="/plain/")
        if exempt:
            make_rule("exempt", path="/plain/", methods=exempt, exempt=True)
        overriding = [*site_settings.MIDDLEWARE, f"{__name__}.override_method"]
        with override_settings(MIDDLEWARE=overriding):
            headers = {"X-HTTP-Method-Override": method}
            responses = [client.post("/plain/", headers=headers) for _ in range(LIMIT + 1)]
        assert responses[0].json()["method"] == method
        assert [response.status_code for response in responses] == [200] * LIMIT + [429]
        assert used(valkey_client) == {ANYBODY: [LIMIT, LIMIT]}

    @pytest.mark.parametrize(("path", "place"), [("/plain/", 0), ("/drf/", 0), ("/drf/", 99)])
    def test_a_method_that_is_replaced_only_at_the_view_is_limited(
        self, client: Client, valkey_client: redis.Redis, path: str, place: int
    ) -> None:
        limit_tier("anonymous")
        rule_on(path, methods="DELETE")
        middleware = list(site_settings.MIDDLEWARE)
        middleware.insert(place, f"{__name__}.OverrideMethodAtTheView")
        with override_settings(MIDDLEWARE=middleware, ROOT_URLCONF="tests.site"):
            answers = [client.post(path, {"_method": "DELETE"}) for _ in range(LIMIT + 1)]
        assert [answer.status_code for answer in answers] == [200] * LIMIT + [429]
        assert used(valkey_client) == {ANYBODY: [LIMIT]}

    def test_a_scanner_that_finds_nothing_is_limited(self, client: Client) -> None:
        limit_tier("anonymous", LIMIT)
        statuses = [client.get(f"/nothing/{n}").status_code for n in range(LIMIT + 1)]
        assert statuses == [404] * LIMIT + [429]

    def test_redirects_are_limited(self, client: Client) -> None:
        limit_tier("anonymous", LIMIT)
        statuses = [client.get("/plain").status_code for _ in range(LIMIT + 1)]
        assert statuses == [301] * LIMIT + [429]


TARGETS = [
    b"/api/items/7/",
    b"/api/items/%37/",
    b"/api/items/%30%37/",
    b"/%61pi/items/7/",
    b"/api%2Fitems%2F7/",
    b"http://elsewhere.example/api/items/7/",
    b"//api/items/7/",
    b"/api/./items/7/",
    b"/api/files/../items/7/",
    b"/api/items/7/?x=1",
    b"/api/items/7/#x",
    b"/api/items/%D9%A7/",
    b"/api/items/7",
]
"""Request targets of which each server makes what it likes; some lead to the view."""


def answer_to(base: str, target: bytes) -> tuple[int, bytes]:
    """Send a request line as it is; return status and the rest, 0 when there was no answer."""
    host, port = urlsplit(base).hostname, urlsplit(base).port
    with socket.create_connection((host, port), timeout=10) as connection:
        lines = [b"GET " + target + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        with connection.makefile("rb") as answer:
            words, rest = answer.readline().split(), answer.read()
    return int(words[1]) if len(words) > 1 else 0, rest


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_no_target_reaches_a_limited_view_on_a_real_server(
    serve: Callable[..., str], server: str
) -> None:
    limit_tier("anonymous")
    rule_on("/api/items/*/", identify_by="everyone")
    base = serve(server)
    answers = [answer_to(base, target) for target in TARGETS * 2]
    reached = [status for status, rest in answers if b'"view": "item"' in rest]
    assert reached == [200] * LIMIT
    assert answers[len(TARGETS)][0] == 429


@pytest.mark.django_db(transaction=True)
def test_every_request_is_charged_whatever_its_target(
    serve: Callable[..., str], valkey_client: redis.Redis
) -> None:
    limit_tier("anonymous", 1000)
    base = serve("gunicorn")
    answers = [answer_to(base, target) for target in TARGETS]
    reached_django = [status for status, _ in answers if status not in (0, 400)]
    assert used(valkey_client) == {ANYBODY: [len(reached_django)]}


HOSTILE_FIELDS = [
    "HTTP_X_FORWARDED_FOR",
    "HTTP_FORWARDED",
    "HTTP_AUTHORIZATION",
    "HTTP_X_API_KEY",
    "HTTP_COOKIE",
    "HTTP_ACCEPT",
    "HTTP_ORIGIN",
    "CONTENT_TYPE",
    "REMOTE_ADDR",
]

hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.mark.django_db
class TestHostileRequests:
    @given(
        path=hostile,
        method=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
        headers=st.dictionaries(
            st.sampled_from(HOSTILE_FIELDS),
            hostile,
        ),
    )
    @settings(max_examples=150)
    def test_no_request_raises_or_escapes_its_limit(
        self, path: str, method: str, headers: dict[str, str]
    ) -> None:
        rules = EndpointRule.objects.filter(name="all")
        if not rules.exists():
            limit_tier("anonymous")
            make_rule("all", 1, path="/**", identify_by="everyone")
        client = Client(raise_request_exception=True)
        response = client.generic(method, "/" + path, **headers)
        assert response.status_code in {200, 204, 301, 302, 400, 401, 403, 404, 405, 406, 429}
        refused = client.generic(method, "/" + path, **headers)
        preflight = method == "OPTIONS" and "HTTP_ORIGIN" in headers
        assert refused.status_code == 429 or preflight
