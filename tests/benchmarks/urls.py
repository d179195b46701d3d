"""A thousand routes of single views, and one view for each peer that limits views."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, include, path
from django_ratelimit.decorators import ratelimit
from django_smart_ratelimit.decorator import rate_limit
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle
from rest_framework.views import APIView

from django_ratelimit_tiers.throttling import TierThrottle
from tests.benchmarks.floor import Floor
from tests.benchmarks.limiters import AREAS


class SignedIn(BaseAuthentication):
    """Takes the user of the Django request."""

    def authenticate(self, request: Request) -> tuple[Any, None]:
        return request._request.user, None


class PerMinute(SimpleRateThrottle):
    rate = "1000000/min"
    scope = "minute"

    def get_cache_key(self, request: Request, _view: Any) -> str:
        return self.cache_format % {"scope": self.scope, "ident": request.user.pk}


class PerDay(PerMinute):
    rate = "100000000/day"
    scope = "day"


class FloorThrottle(BaseThrottle):
    least = Floor(settings.REDIS_URL)

    def allow_request(self, request: Request, _view: Any) -> bool:
        return self.least.hit(str(request.user.pk)) > 0


class Bare(APIView):
    """Answers; the routes give it throttles."""

    authentication_classes = [SignedIn]
    throttle_classes: list[type[BaseThrottle]] = []

    def get(self, _request: Request) -> Response:
        return Response({"ok": True})


def new_view() -> Any:
    """Return a view of its own."""

    def view(_request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"ok")

    return view


def new_async_view() -> Any:
    """Return the same for event loops."""

    async def view(_request: HttpRequest) -> HttpResponse:
        return HttpResponse(b"ok")

    return view


def things() -> list[URLPattern]:
    """Return the routes of one area; the last view is asynchronous."""
    views = [*(new_view() for _ in range(AREAS - 1)), new_async_view()]
    routes = [path(f"thing{number}/", view) for number, view in enumerate(views)]
    routes[7:7] = path("login/", new_view()), path("locked/", new_view())
    return routes


def health(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


def rest(route: str, *throttles: type[BaseThrottle]) -> URLPattern:
    return path(f"rest/{route}/", Bare.as_view(throttle_classes=list(throttles)))


urlpatterns = [
    *(path(f"area{area}/", include(things())) for area in range(AREAS)),
    path("health/", health),
    path(
        "peers/django-ratelimit/",
        ratelimit(group="bench", key="user", rate="1000000/m")(new_view()),
    ),
    path("peers/django-smart-ratelimit/", rate_limit(key="user", rate="1000000/m")(new_view())),
    rest("bare"),
    rest("floor", FloorThrottle),
    rest("tiers", TierThrottle),
    rest("own", PerMinute),
    rest("own-two", PerMinute, PerDay),
]
