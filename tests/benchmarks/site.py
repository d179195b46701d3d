"""The site that is measured: its rows, and Django's handler for each limiter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO

from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest
from django.core.management import call_command
from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django_smart_ratelimit.models import RateLimitRule, UserTier, UserTierAssignment
from django_smart_ratelimit.rules import get_rule_engine

from django_ratelimit_tiers.models import EndpointRule, RulePolicy, Tier, TierAssignment
from tests.benchmarks.limiters import AREAS, ASYNC_RULED, LOCKED, LOGIN, PEER_RULES, RULES, Limiter

USERS = 500
EXHAUSTED = USERS
"""The user who comes after them, whose tier lets one request in."""

Respond = Callable[..., HttpResponse]
"""Answers the request of the next user, by a running number, or of a certain one for a path."""

MANY = 1_000_000
"""A limit that no run reaches."""


def create_site() -> None:
    """Migrate, and create the same tiers, rules and users for this app and its nearest peer."""
    call_command("migrate", verbosity=0)
    rows = (User(pk=number + 1, username=str(number)) for number in range(USERS + 1))
    users = User.objects.bulk_create(rows)
    exhausted = users.pop()
    tier, tiny = _tier("bench", MANY, 100 * MANY), _tier("tiny", 1, 1)
    TierAssignment.objects.bulk_create(TierAssignment(user=user, tier=tier) for user in users)
    TierAssignment.objects.create(user=exhausted, tier=tiny)
    create_rules(RULES)
    theirs = UserTier.objects.create(name="bench", rate_multiplier=2.0)
    UserTierAssignment.objects.bulk_create(
        UserTierAssignment(user=user, tier=theirs) for user in users
    )
    create_peer_rules(PEER_RULES)


def create_rules(count: int) -> None:
    """Replace the rules by so many, each with one policy; every fourth one has a wildcard."""
    EndpointRule.objects.all().delete()
    rules = EndpointRule.objects.bulk_create(
        EndpointRule(name=f"rule {n}", path=_path(n) + ("**" if n % 4 == 0 else ""))
        for n in range(count)
    )
    RulePolicy.objects.bulk_create(
        RulePolicy(rule=rule, requests=MANY, period=60) for rule in rules
    )


def create_peer_rules(numbers: Iterable[int]) -> None:
    """Replace the nearest peer's rules by those for the same paths as ours of these numbers."""
    RateLimitRule.objects.all().delete()
    RateLimitRule.objects.bulk_create(
        RateLimitRule(name=f"rule {n}", path_pattern=f"^{_path(n)}", rate=f"{MANY}/m", key="user")
        for n in numbers
    )
    get_rule_engine().invalidate_cache()


@contextmanager
def address_limits() -> Iterator[None]:
    """Count addresses at LOGIN and, where they may come once a day, at LOCKED."""
    rules = []
    for path, requests in ((LOGIN, MANY), (LOCKED, 1)):
        rules.append(EndpointRule.objects.create(name=path, path=path, identify_by="ip"))
        rules[-1].policies.create(requests=requests, period=86_400)
    yield
    for rule in rules:
        rule.delete()


def handler(config: Limiter, users: int = USERS, **meta: str) -> Respond:
    """Return a function that answers the request of a numbered user through Django's handler.

    So many users take turns. `meta` are header fields of each request, named as WSGI does.
    """
    base = _handler(config, is_async=False)
    environ = RequestFactory().get(config.path, **meta).environ

    def respond(number: int, user: int | None = None, path: str = config.path) -> HttpResponse:
        user = number % users if user is None else user
        return base.get_response(
            WSGIRequest({**environ, "HTTP_X_USER": str(user), "PATH_INFO": path})
        )

    for number in range(users):  # every user is known to everybody then
        response = respond(number)
        if response.status_code != 200:
            raise RuntimeError(f"{config.name}: status {response.status_code}, not 200")
    return respond


def ahandler(config: Limiter) -> Callable[[int], Awaitable[HttpResponse]]:
    """Return the asynchronous twin of `handler`."""
    base = _handler(config, is_async=True)
    scope = AsyncRequestFactory().get(ASYNC_RULED).scope

    async def respond(number: int) -> HttpResponse:
        headers = [*scope["headers"], (b"x-user", str(number % USERS).encode())]
        return await base.get_response_async(ASGIRequest({**scope, "headers": headers}, BytesIO()))

    return respond


def _handler(config: Limiter, *, is_async: bool) -> BaseHandler:
    with override_settings(MIDDLEWARE=list(config.middleware), **config.settings):
        base = BaseHandler()
        base.load_middleware(is_async=is_async)
    return base


def _tier(slug: str, per_minute: int, per_day: int) -> Tier:
    tier = Tier.objects.create(slug=slug, name=slug, rank=50)
    tier.policies.create(
        requests=per_minute, period=60, algorithm="token_bucket", burst=2 * per_minute
    )
    tier.policies.create(requests=per_day, period=86_400)
    return tier


def _path(number: int) -> str:
    return f"/area{number // AREAS}/thing{number % AREAS}/"
