"""Views of every kind, and the routes to them: a site for the tests of the adapters."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import Library, engines
from django.template.response import TemplateResponse
from django.test import Client
from django.urls import path
from django.utils.decorators import method_decorator, sync_and_async_middleware
from django.utils.functional import SimpleLazyObject
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authentication import BaseAuthentication
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.decorators import action, api_view, throttle_classes
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.decorators import ratelimit, ratelimit_exempt
from django_ratelimit_tiers.throttling import TierThrottle

RUNS: Counter[str] = Counter()
"""How often each view has run."""

register = Library()
register.simple_tag(lambda: User.objects.count(), name="count_users")


def plain(request: HttpRequest, status: int = 200) -> JsonResponse:
    RUNS["plain"] += 1
    return JsonResponse({"method": request.method}, status=status)


async def asynchronous(request: HttpRequest, status: int = 200) -> JsonResponse:
    RUNS["async"] += 1
    return JsonResponse({"method": request.method}, status=status)


async def endless(request: HttpRequest) -> HttpResponse:
    RUNS["endless"] += 1
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


def broken(request: HttpRequest) -> HttpResponse:
    RUNS["broken"] += 1
    raise RuntimeError("this view is broken")


def who(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": request.user.get_username()})


async def alazy_who(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": await sync_to_async(lambda: request.user.get_username())()})


async def awho(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"user": (await request.auser()).get_username()})


def body(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"length": len(request.body), "post": dict(request.POST)})


@ratelimit(cost=3)
def dear(request: HttpRequest) -> JsonResponse:
    return plain(request)


@ratelimit(cost=3)
async def adear(request: HttpRequest) -> JsonResponse:
    return await asynchronous(request)


@ratelimit()
def marked(request: HttpRequest, status: int = 200) -> JsonResponse:
    return plain(request, status)


@ratelimit()
async def amarked(request: HttpRequest, status: int = 200) -> JsonResponse:
    return await asynchronous(request, status)


@method_decorator(ratelimit(cost=3), name="dispatch")
class DearClass(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return plain(request)


@method_decorator(ratelimit(cost=3), name="dispatch")
class DearAsyncClass(View):
    async def get(self, request: HttpRequest) -> JsonResponse:
        return await asynchronous(request)


@method_decorator([ratelimit(cost=3), csrf_exempt], name="dispatch")
class DearUnprotectedAsyncClass(View):
    async def get(self, request: HttpRequest) -> JsonResponse:
        return await asynchronous(request)


class Raised:
    """What the next view raises."""

    error: Exception = RuntimeError("this view is broken")


@ratelimit()
def raising(request: HttpRequest) -> HttpResponse:
    raise Raised.error


@ratelimit()
async def araising(request: HttpRequest) -> HttpResponse:
    raise Raised.error


@ratelimit_exempt
def free(request: HttpRequest) -> JsonResponse:
    return plain(request)


@ratelimit_exempt
async def afree(request: HttpRequest) -> JsonResponse:
    return await asynchronous(request)


class DearToRead(View):
    @method_decorator(ratelimit(cost=3))
    def get(self, request: HttpRequest) -> JsonResponse:
        return plain(request)


class FreeToRead(View):
    @method_decorator(ratelimit_exempt)
    def get(self, request: HttpRequest) -> JsonResponse:
        return plain(request)

    def put(self, request: HttpRequest) -> JsonResponse:
        return plain(request)


class Throttled(APIView):
    throttle_classes = [TierThrottle]

    def get(self, request: Request, status: int = 200) -> Response:
        RUNS["drf"] += 1
        return Response({"user": request.user.get_username()}, status=status)

    post = delete = get


class StreamParser(BaseParser):
    """Reads JSON as a stream, as parsers of other packages do, and those of DRF before 3.18."""

    media_type = "application/json"

    def parse(self, stream: Any, *_: Any) -> Any:
        return json.loads(stream.read())


class NamesSomebody(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return "username" in request.data


class ThrottledByName(Throttled):
    parser_classes = [StreamParser]
    permission_classes = [NamesSomebody]


class ThrottledByProperty(Throttled):
    @property
    def throttle_classes(self) -> list[type[BaseThrottle]]:  # type: ignore[override]
        return [TierThrottle]


class ThrottledByMethod(Throttled):
    throttle_classes = None  # type: ignore[assignment]

    def get_throttles(self) -> list[BaseThrottle]:
        return [TierThrottle()]


class RaisingThrottled(Throttled):
    def get(self, request: Request, status: int = 200) -> Response:
        raise Raised.error


class AnsweringNothing(Throttled):
    def get(self, request: Request, status: int = 200) -> Response:
        return None  # type: ignore[return-value]


class ThrottledToRead(Throttled):
    def get_throttles(self) -> list[BaseThrottle]:
        return super().get_throttles() if self.request.method == "GET" else []


@method_decorator(ratelimit(cost=3), name="dispatch")
class DearThrottled(Throttled):
    pass


class Private(Throttled):
    permission_classes = [IsAuthenticated]


class Unthrottled(APIView):
    def get(self, request: Request) -> Response:
        RUNS["drf"] += 1
        return Response({"user": request.user.get_username()})


def answer_all_is_well(error: Exception, context: dict[str, Any]) -> Response:
    """Answer every error with 200, as sites do whose clients read a code in the body."""
    return Response({"code": getattr(error, "status_code", 500)})


class NameInHeader(BaseAuthentication):
    """Take the word of a header for a user, where a site would look for a token of its own."""

    def authenticate(self, request: Request) -> tuple[User, None]:
        try:
            return User.objects.get(username=request.headers.get("X-Name")), None
        except User.DoesNotExist:
            raise AuthenticationFailed from None


class NamedInHeader(Throttled):
    authentication_classes = [NameInHeader]


class FreeToList(ViewSet):
    throttle_classes = [TierThrottle]

    @method_decorator(ratelimit_exempt)
    def list(self, request: Request) -> Response:
        return Response([])

    def update(self, request: Request) -> Response:
        return Response([])


class Things(ViewSet):
    throttle_classes = [TierThrottle]

    def list(self, request: Request, **kwargs: Any) -> Response:
        return Response([])

    @action(detail=False, throttle_classes=[])
    def unthrottled(self, request: Request) -> Response:
        return Response([])


@api_view(["GET"])
@throttle_classes([TierThrottle])
def function(request: Request) -> Response:
    return Response({"user": request.user.get_username()})


@api_view(["GET"])
@throttle_classes([TierThrottle])
@ratelimit(cost=3)
def dear_function(request: Request) -> Response:
    return Response({})


@api_view(["GET"])
@throttle_classes([])
@ratelimit(cost=3)
def dear_unthrottled_function(request: Request) -> Response:
    return Response({})


@api_view(["POST"])
@throttle_classes([])
@ratelimit()
def marked_function(request: Request) -> Response:
    return Response({"user": request.data["username"]})


@api_view(["GET"])
@ratelimit_exempt
def free_function(request: Request) -> Response:
    return Response({})


class OtherThrottle(BaseThrottle):
    def allow_request(self, request: Request, view: APIView) -> bool:
        return True


def teapot(request: HttpRequest, decision: Decision) -> HttpResponse:
    """Refuse in a way of its own: the setting RESPONSE."""
    return HttpResponse(f"no, {len(decision.refusing)}", status=418)


def busy(request: HttpRequest, decision: Decision) -> HttpResponse:
    """Refuse with a page that is yet to be rendered, and then asks the database."""
    page = engines["django"].from_string("{{ users.count }} users")
    return TemplateResponse(request, page, {"users": User.objects}, status=429)


def census(request: HttpRequest, decision: Decision) -> HttpResponse:
    """Refuse with what only the database knows."""
    return HttpResponse(f"{User.objects.count()} users", status=429)


async def acensus(request: HttpRequest, decision: Decision) -> HttpResponse:
    """Do what `census` does, on an event loop."""
    return HttpResponse(f"{await User.objects.acount()} users", status=429)


def tier_from_header(request: HttpRequest) -> str | None:
    """Name the tier that a header names: the setting TIER_RESOLVER."""
    return request.headers.get("X-Tier")


async def atier_from_header(request: HttpRequest) -> str | None:
    """Do what `tier_from_header` does, on an event loop."""
    return tier_from_header(request)


def key_from_header(request: HttpRequest) -> str | None:
    """Take the word of a header for the key: the setting API_KEY_RESOLVER."""
    return request.headers.get("X-Key")


async def akey_from_header(request: HttpRequest) -> str | None:
    """Do what `key_from_header` does, on an event loop."""
    return key_from_header(request)


def is_verified(user: Any) -> bool:
    """Take an e-mail address for a verification: the setting VERIFIED_TEST."""
    return bool(user.email)


async def ais_verified(user: Any) -> bool:
    """Do what `is_verified` does, on an event loop."""
    return is_verified(user)


@sync_and_async_middleware
def user_from_header(get_response: Any) -> Any:
    """Log in whom a header names, without any session, when somebody asks for the user."""

    def name_user(request: HttpRequest) -> None:
        named = User.objects.filter(username=request.headers.get("X-User"))
        request.user = SimpleLazyObject(lambda: named.first() or AnonymousUser())

    def middleware(request: HttpRequest) -> HttpResponse:
        name_user(request)
        return get_response(request)

    async def amiddleware(request: HttpRequest) -> HttpResponse:
        name_user(request)
        return await get_response(request)

    return amiddleware if iscoroutinefunction(get_response) else middleware


@sync_and_async_middleware
def dictionary_session(get_response: Any) -> Any:
    """Put a dictionary where views look for a session, as sites without sessions do."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.session = {}
        return get_response(request)

    async def amiddleware(request: HttpRequest) -> HttpResponse:
        request.session = {}
        return await get_response(request)

    return amiddleware if iscoroutinefunction(get_response) else middleware


class SessionsByHeader(SessionMiddleware):
    """Take the key of a session from a header, as for clients that keep no cookies."""

    def process_request(self, request: HttpRequest) -> None:
        request.session = self.SessionStore(request.headers.get("X-Session"))


class Described:
    """Whom the next middleware takes for the user."""

    user: Any = None


def described_user(get_response: Any) -> Any:
    """Log in whom a test describes, as a token does for sites without a session."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.user = Described.user
        return get_response(request)

    return middleware


def no_user(get_response: Any) -> Any:
    """Say that there is no user, as some authentication does."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.user = None
        return get_response(request)

    return middleware


def early_account(get_response: Any) -> Any:
    """Put a foreign object in `request.ratelimit` on the way in."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.ratelimit = object()  # type: ignore[attr-defined]
        return get_response(request)

    return middleware


def late_account(get_response: Any) -> Any:
    """Do it on the way out, as a decorator of django-smart-ratelimit does around a view."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        request.ratelimit = object()  # type: ignore[attr-defined]
        return response

    return middleware


def login(request: HttpRequest) -> JsonResponse:
    right = json.loads(request.body).get("password") == "right"
    return JsonResponse({}, status=200 if right else 401)


urlpatterns = [
    path("plain/", plain),
    path("plain/<int:status>/", plain),
    path("async/", asynchronous),
    path("async/<int:status>/", asynchronous),
    path("endless/", endless),
    path("endless-marked/", ratelimit()(endless)),
    path("broken/", broken),
    path("who/", who),
    path("awho/", awho),
    path("alazy-who/", alazy_who),
    path("body/", body),
    path("login/", login),
    path("token/", obtain_auth_token),
    path("export/a/", asynchronous, name="export"),
    path("export-b/", Throttled.as_view(), name="export"),
    path("dear/", dear),
    path("adear/", adear),
    path("marked/", marked),
    path("marked/<int:status>/", marked),
    path("amarked/", amarked),
    path("amarked/<int:status>/", amarked),
    path("dear-class/", DearClass.as_view()),
    path("dear-async-class/", DearAsyncClass.as_view()),
    path("dear-unprotected-async-class/", DearUnprotectedAsyncClass.as_view()),
    path("dear-partial/", partial(dear)),
    path("free-partial/", partial(free)),
    path("dear-decorated-partial/", never_cache(partial(dear))),
    path("free-decorated-partial/", never_cache(partial(free))),
    path("raising/", raising),
    path("araising/", araising),
    path("dear-drf/", ratelimit(cost=3)(Throttled.as_view())),
    path("dear-drf-dispatch/", DearThrottled.as_view()),
    path("free/", free),
    path("afree/", afree),
    path("free-drf/", ratelimit_exempt(Private.as_view())),
    path("dear-to-read/", DearToRead.as_view()),
    path("free-to-read/", FreeToRead.as_view()),
    path("free-to-list/", FreeToList.as_view({"get": "list", "put": "update"})),
    path("free-plain/", ratelimit_exempt(plain)),
    path("free-async/", ratelimit_exempt(asynchronous)),
    path("drf/", Throttled.as_view()),
    path("drf/<int:status>/", Throttled.as_view()),
    path("drf-partial/", partial(Throttled.as_view(), status=200)),
    path("drf-decorated-partial/", never_cache(partial(Throttled.as_view(), status=200))),
    path("drf-to-read/", ThrottledToRead.as_view()),
    path("drf-to-read/<int:status>/", ThrottledToRead.as_view()),
    path("drf-by-name/", ThrottledByName.as_view()),
    path("drf-by-property/", ThrottledByProperty.as_view()),
    path("drf-by-method/", ThrottledByMethod.as_view()),
    path("drf-raising/", RaisingThrottled.as_view()),
    path("drf-answering-nothing/", AnsweringNothing.as_view()),
    path("drf-private/", Private.as_view()),
    path("dear-drf-private/", ratelimit(cost=3)(Private.as_view())),
    path("drf-named/", NamedInHeader.as_view()),
    path("drf-function/", function),
    path("dear-drf-function/", dear_function),
    path("dear-drf-unthrottled-function/", dear_unthrottled_function),
    path("marked-drf-function/", marked_function),
    path("free-drf-function/", free_function),
    path("drf-option/", Unthrottled.as_view(throttle_classes=[OtherThrottle, TierThrottle])),
    path("drf-unthrottled/", Unthrottled.as_view()),
    path("things/", Things.as_view({"get": "list"})),
    path("things/unthrottled/", Things.as_view({"get": "unthrottled"}, throttle_classes=[])),
]


def statuses(client: Client, route: str, times: int, **options: Any) -> list[int]:
    """Return how so many requests to a view are answered."""
    return [client.get(route, **options).status_code for _ in range(times)]
