"""Plain Django views, sync and async."""

from __future__ import annotations

import json
import os
from typing import Any

from django.contrib.auth import authenticate, login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from django_ratelimit_tiers.decorators import ratelimit_exempt


@ratelimit_exempt
@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """Tell load balancers that this process answers, and which one it is."""
    return JsonResponse({"status": "ok", "process": os.getpid()})


@csrf_exempt  # clients without cookies log in here, too
@require_POST
@sensitive_post_parameters("password")
def login_view(request: HttpRequest) -> JsonResponse:
    """Log a user in who sends `username` and `password`, as JSON or as a form."""
    credentials = _credentials(request)
    if credentials is None:
        return JsonResponse({"error": "malformed"}, status=400)
    user = authenticate(request, **credentials)
    if user is None:
        return JsonResponse({"error": "invalid_credentials"}, status=401)
    login(request, user)
    return JsonResponse({"user": user.get_username()})


def plain(request: HttpRequest) -> JsonResponse:
    """Answer every method with what arrived."""
    return JsonResponse({"view": "plain", "method": request.method, "path": request.path_info})


async def asynchronous(request: HttpRequest) -> JsonResponse:
    """Answer on the event loop; knows its user."""
    user = await request.auser()
    return JsonResponse({"view": "asynchronous", "user": user.get_username()})


def file(request: HttpRequest, rest: str) -> JsonResponse:
    """Name the file that the path asks for, whatever the path looks like."""
    return JsonResponse({"view": "file", "rest": rest})


def report(request: HttpRequest, section: str, name: str) -> JsonResponse:
    """Name the report that was asked for; its route ignores the section's case."""
    return JsonResponse({"view": "report", "section": section, "name": name})


def item(request: HttpRequest, number: int | str) -> JsonResponse:
    """Name the item that was asked for, however its number was written."""
    return JsonResponse({"view": "item", "number": int(number)})


def about(request: HttpRequest) -> HttpResponse:
    """Greet in the language of the path's prefix."""
    return HttpResponse(gettext("Yes"), content_type="text/plain; charset=utf-8")


def _credentials(request: HttpRequest) -> dict[str, str] | None:
    fields: Any = request.POST
    if request.content_type == "application/json":
        try:
            fields = json.loads(request.body)
        except (ValueError, RecursionError):
            return None
    match fields:
        case {"username": str(username), "password": str(password)}:
            return {"username": username, "password": password}
        case _:
            return None
