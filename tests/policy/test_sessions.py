"""Asking who the client is leaves no trace: responses vary on what their own views look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings

from tests.policies import ANYBODY, limit_tier, used

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

Get = Callable[..., HttpResponse]

AUTHENTICATED_BY_HEADER = [
    "django_ratelimit_tiers.middleware.RateLimitMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tests.site.user_from_header",
]


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", email="anna@example.org")


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest) -> Get:
    """Get a path with these cookies, in one of the colours."""

    def send(path: str, cookie: str | None = None, **headers: str) -> HttpResponse:
        client: Any = Client() if request.param == "sync" else AsyncClient()
        if cookie is not None:
            client.cookies[settings.SESSION_COOKIE_NAME] = cookie
        call = client.get if request.param == "sync" else async_to_sync(client.get)
        return call(path, headers={name.replace("_", "-"): headers[name] for name in headers})

    return send


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def traces(response: HttpResponse) -> tuple[Any, ...]:
    return response.headers.get("Vary"), sorted(response.cookies), response.content


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/marked/", "/amarked/", "/nothing/"])
@override_settings(SESSION_ENGINE="tests.raising_sessions")
def test_a_request_without_a_session_loads_no_session(get: Get, path: str) -> None:
    response = get(path)
    assert response.status_code in {200, 404}
    assert "Cookie" not in response.headers.get("Vary", "")


@pytest.mark.parametrize("path", ["/who/", "/awho/", "/plain/", "/async/"])
def test_a_response_varies_on_the_cookie_when_its_view_looks_at_the_user(
    get: Get, anna: User, path: str
) -> None:
    response = get(path, session_of(anna))
    assert ("Cookie" in response.headers.get("Vary", "")) == ("who" in path)


PATHS = ["/plain/", "/async/", "/who/", "/awho/", "/alazy-who/", "/drf/", "/marked/", "/nothing/"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("state", ["none", "valid", "empty", "gone", "garbage"])
def test_cookies_and_their_traces_are_as_without_limits(
    get: Get, anna: User, path: str, state: str
) -> None:
    cookies = {"none": None, "valid": session_of(anna), "empty": "", "gone": "g" * 32}
    cookie = cookies.get(state, "\x00;\xff")
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        expected = traces(get(path, cookie))
    assert traces(get(path, cookie)) == expected


def test_the_user_of_a_session_is_charged_as_that_user(
    get: Get, anna: User, valkey_client: redis.Redis
) -> None:
    limit_tier("free", 5)
    limit_tier("anonymous", 5)
    for path in ("/plain/", "/async/", "/who/", "/awho/", "/drf/"):
        get(path, session_of(anna))
    assert used(valkey_client) == {f"user:{anna.pk}": [5]}


@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file", "signed_cookies"])
@pytest.mark.parametrize("path", ["/plain/", "/async/"])
def test_the_user_of_a_session_of_any_kind_is_charged(
    get: Get, anna: User, valkey_client: redis.Redis, engine: str, path: str, tmp_path: Path
) -> None:
    limit_tier("free", 5)
    with override_settings(
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}", SESSION_FILE_PATH=str(tmp_path)
    ):
        response = get(path, session_of(anna))
    assert "Cookie" not in response.headers.get("Vary", "")
    assert used(valkey_client) == {f"user:{anna.pk}": [1]}


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/who/", "/awho/", "/drf/"])
def test_the_user_of_a_session_that_no_cookie_names_is_charged(
    get: Get, anna: User, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("free", 5)
    of_django = "django.contrib.sessions.middleware.SessionMiddleware"
    replaced = {of_django: "tests.site.SessionsByHeader"}
    with override_settings(MIDDLEWARE=[replaced.get(name, name) for name in settings.MIDDLEWARE]):
        get(path, X_Session=session_of(anna))
    assert used(valkey_client) == {f"user:{anna.pk}": [1]}


def test_a_session_whose_key_has_to_be_renewed_is_saved_and_varies(get: Get, anna: User) -> None:
    with override_settings(SECRET_KEY="the old one"):
        cookie = session_of(anna)
        key = SessionStore(cookie).session_key
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["the old one"]):
        response = get("/plain/", key)
        renewed = response.cookies[settings.SESSION_COOKIE_NAME].value
        assert SessionStore(renewed)[SESSION_KEY] == str(anna.pk)
    assert renewed != key
    assert "Cookie" in response.headers["Vary"]


@override_settings(MIDDLEWARE=AUTHENTICATED_BY_HEADER)
@pytest.mark.parametrize("path", ["/plain/", "/async/", "/who/", "/alazy-who/"])
@pytest.mark.parametrize("cookie", [None, "g" * 32])
def test_a_user_whom_other_code_has_found_is_charged_and_leaves_no_trace(
    get: Get, anna: User, valkey_client: redis.Redis, path: str, cookie: str | None
) -> None:
    limit_tier("free", 5)
    limit_tier("anonymous", 5)
    response = get(path, cookie, X_User="anna")
    assert response.status_code == 200
    assert "Cookie" not in response.headers.get("Vary", "")
    assert used(valkey_client) == {f"user:{anna.pk}": [1]}
    get(path, cookie)
    assert used(valkey_client)[ANYBODY] == [1]


@override_settings(
    MIDDLEWARE=[
        "django_ratelimit_tiers.middleware.RateLimitMiddleware",
        "tests.site.dictionary_session",
        "tests.site.user_from_header",
    ]
)
@pytest.mark.parametrize("path", ["/plain/", "/async/", "/who/", "/alazy-who/"])
def test_a_user_is_charged_where_a_dictionary_takes_the_place_of_the_session(
    get: Get, anna: User, valkey_client: redis.Redis, path: str
) -> None:
    limit_tier("free", 5)
    assert get(path, X_User="anna").status_code == 200
    assert used(valkey_client) == {f"user:{anna.pk}": [1]}
