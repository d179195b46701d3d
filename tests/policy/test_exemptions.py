"""An exempt rule wins over every other rule, whichever way it names the view."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_ratelimit_tiers.models import EndpointRule, Tier
from testproject import views
from tests.site import statuses

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def everything_is_limited(redis_url: str) -> None:
    Tier.objects.get(slug="anonymous").policies.all().delete()
    rule = EndpointRule.objects.create(name="all", path="/**", identify_by="everyone")
    rule.policies.create(requests=1, period=3600)


@pytest.mark.parametrize("named", [{"path": "/plain/"}, {"view_name": "plain"}])
def test_an_exempt_rule_wins_before_authentication(client: Client, named: dict[str, str]) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, **named)
    assert statuses(client, "/plain/", 2) == [200, 200]


def test_other_views_are_limited_still(client: Client) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, view_name="plain")
    assert statuses(client, "/api/files/x", 2) == [200, 429]


def test_what_resolves_to_nothing_is_limited_still(client: Client) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, view_name="plain")
    assert statuses(client, "/nowhere/", 2) == [404, 429]


def test_an_exempt_path_covers_the_other_spellings_of_its_view(client: Client) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, path="/api/items/7/")
    assert statuses(client, "/api/items/007/", 2) == [200, 200]


ELSEWHERE = ModuleType("elsewhere")
ELSEWHERE.urlpatterns = [  # type: ignore[attr-defined]
    path("plain/", views.item, {"number": 7}),
    path("api/files/x", views.plain, name="plain"),
]


def choose_routes(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Choose the routes of a request by a header, as others do by its host."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if "X-Elsewhere" in request.headers:
            request.urlconf = ELSEWHERE  # type: ignore[attr-defined]
        return get_response(request)

    return middleware


@pytest.mark.parametrize(
    ("asked", "expected"), [("/plain/", [200, 429]), ("/api/files/x", [200, 200])]
)
def test_the_routes_that_middleware_chooses_tell_which_view_is_exempt(
    client: Client, asked: str, expected: list[int]
) -> None:
    EndpointRule.objects.create(name="exempt", exempt=True, view_name="plain")
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, f"{__name__}.choose_routes"]):
        headers = {"X-Elsewhere": "1"}
        assert [client.get(asked, headers=headers).status_code for _ in range(2)] == expected
