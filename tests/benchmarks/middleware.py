"""What stands beside the limiters: a user for every request, and the floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware

from tests.benchmarks.floor import AsyncFloor, BareFloor, Floor


def user(number: str) -> User:
    """Return the user of a number, from 0: a new instance each time, as authentication makes."""
    return User.from_db("default", ("id", "username", "is_active"), (int(number) + 1, number, True))


@sync_and_async_middleware
def sign_in(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Give the request the user that a header names."""
    if iscoroutinefunction(get_response):

        async def signed_in(request: HttpRequest) -> Any:
            request.user = user(request.META.get("HTTP_X_USER", "0"))
            return await get_response(request)

        return signed_in

    def signed_in(request: HttpRequest) -> Any:
        request.user = user(request.META.get("HTTP_X_USER", "0"))
        return get_response(request)

    return signed_in


@sync_and_async_middleware
def floor(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Count the request as little as one can."""
    least = Floor(settings.REDIS_URL)
    if iscoroutinefunction(get_response):
        aleast = AsyncFloor(settings.REDIS_URL)

        async def counted(request: HttpRequest) -> Any:
            await aleast.hit(request.META.get("HTTP_X_USER", "0"))
            return await get_response(request)

        return counted

    def counted(request: HttpRequest) -> Any:
        least.hit(request.META.get("HTTP_X_USER", "0"))
        return get_response(request)

    return counted


def bare_floor(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Count the request without a client library."""
    least = BareFloor(settings.REDIS_URL)

    def counted(request: HttpRequest) -> Any:
        least.hit(request.META.get("HTTP_X_USER", "0"))
        return get_response(request)

    return counted
