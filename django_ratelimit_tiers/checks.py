"""System checks: a wrong setting is an error with a hint, found at start and never in a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from inspect import signature
from traceback import walk_tb
from typing import Any

import django
from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import DEFAULTS, SETTING, is_derived, own_middleware
from django_ratelimit_tiers.shapes import EVENT_SHAPES, SHAPES, Shapes
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.configured import (
    AUTO,
    CLUSTER_STORE,
    REDIS_STORE,
    uses_django_redis,
)
from django_ratelimit_tiers.store.locations import check_database

CLIENTS = ("redis", "django_redis", "hiredis")
EXTRA = "Install django-ratelimit-tiers[redis]: it brings the clients that the store needs."

ADDRESS = "An address is written like redis://user:password@10.0.0.5:6379/0."
STORES = f"Name {AUTO!r}, {REDIS_STORE!r}, {CLUSTER_STORE!r} or a store of your own."

ARGUMENTS = {
    "TIER_RESOLVER": ("request",),
    "API_KEY_RESOLVER": ("request",),
    "VERIFIED_TEST": ("user",),
    "RESPONSE": ("request", "decision"),
}
"""What the functions that the settings name are called with."""

LATE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
)
"""Middleware that comes after the limits."""

LATE_NAME = re.compile("session|auth(?!or)", re.IGNORECASE)
"""How others are called that do the same: the name of the class, not the path to it."""


@checks.register(checks.Tags.security)
def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Return everything that is wrong with `settings.RATELIMIT_TIERS`."""
    values = getattr(settings, SETTING, {})
    if not isinstance(values, dict):
        hint = "Write it like RATELIMIT_TIERS = {'STORE_TIMEOUT': 0.1}."
        return [checks.Error(f"{SETTING} must be a dict.", hint=hint, id="ratelimit_tiers.E001")]
    problems = list(_shape_problems(SETTING, values, SHAPES))
    events = values.get("EVENTS", {})
    if isinstance(events, dict):
        problems += _shape_problems(f"{SETTING}['EVENTS']", events, EVENT_SHAPES)
    problems = problems or list(_path_problems(values))
    problems = problems or list(_options_problems(values))
    return problems or [*_store_problems(values), *_header_problems(values), *_order_problems()]


def _shape_problems(
    where: str, values: Mapping[str, Any], shapes: Shapes
) -> Iterator[checks.CheckMessage]:
    for key, value in values.items():
        if key not in shapes:
            hint = _meant(key, shapes) + "The keys are: " + ", ".join(shapes) + "."
            yield checks.Error(
                f"{where} has an unknown key {key!r}.", hint=hint, id="ratelimit_tiers.E002"
            )
            continue
        is_right, wanted = shapes[key]
        if not is_right(value):
            yield checks.Error(
                f"{where}[{key!r}] is wrong.",
                hint=f"Make it {wanted}.",
                id="ratelimit_tiers.E003",
            )


def _meant(key: Any, shapes: Shapes) -> str:
    """Return a sentence about what was probably meant by a key that is unknown, or nothing."""
    name = str(key).upper()
    for where, others in ((f"{SETTING}['EVENTS']", EVENT_SHAPES), (SETTING, SHAPES)):
        if name in others and others is not shapes:
            return f"{name} belongs in {where}. "
    close = get_close_matches(name, shapes, n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _path_problems(values: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    keys = [key for key in ARGUMENTS if values.get(key) is not None]
    if values.get("STORE", AUTO) != AUTO:
        keys.append("STORE")
    for key in keys:
        try:
            found = import_string(values[key])
        except ModuleNotFoundError as error:
            is_extra = error.name in CLIENTS
            hint = EXTRA if is_extra else f"Correct the dotted path: {error}."
        except Exception as error:  # whatever the named module raises
            hint = f"Correct the dotted path: {error}."
        else:
            if callable(found):
                yield from _argument_problems(key, found)
                continue
            hint = "Name a function or a class."
        yield checks.Error(
            f"{SETTING}[{key!r}] names nothing that can be called: {values[key]!r}.",
            hint=f"{hint} {STORES}" if key == "STORE" else hint,
            id="ratelimit_tiers.E004",
        )


def _argument_problems(key: str, function: Any) -> Iterator[checks.CheckMessage]:
    if (arguments := ARGUMENTS.get(key)) is None:
        return
    try:
        signature(function, follow_wrapped=False).bind(*arguments)  # its decorators may add some
    except ValueError:  # it is not known of everything what it takes
        return
    except TypeError as error:
        names = ", ".join(arguments)
        yield checks.Error(
            f"{SETTING}[{key!r}] cannot be called with ({names}): {error}.",
            hint=f"Write it like def {key.lower()}({names}).",
            id="ratelimit_tiers.E008",
        )


def _options_problems(values: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    path, options = values.get("STORE", AUTO), values.get("STORE_OPTIONS", {})
    if path == AUTO:
        if options:
            hint = "Name the store that takes them in STORE, or leave them out."
            yield _store_error("is 'auto', which takes no STORE_OPTIONS", hint)
        return
    try:
        store = import_string(path)(**options)
    except Exception as error:
        hint = f"Correct STORE_OPTIONS: {_reason(error)}."
        yield _store_error("cannot be made with STORE_OPTIONS", hint)
        return
    is_right, wanted = SHAPES["STORE_TIMEOUT"]
    if not is_right(options.get("timeout", DEFAULTS["STORE_TIMEOUT"])):
        hint = f"Correct STORE_OPTIONS: make 'timeout' {wanted}."
        yield _store_error("cannot be made with STORE_OPTIONS", hint)
    if not isinstance(store, Store):
        hint = "Name a subclass of django_ratelimit_tiers.store.base.Store."
        yield _store_error("makes no store", hint)


def _reason(error: Exception) -> str:
    """Return why a store cannot be made; what reading a URL raises can be part of a password."""
    if str(error).startswith("Port could not be cast"):
        return "its port is no number. In a password write %2F for /, %3F for ? and %23 for #"
    functions = (frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__))
    if isinstance(error, ValueError) and "urlsplit" in functions:
        return "it is no URL. In a password write %5B for [, %5D for ], and only ASCII"
    return str(error) or type(error).__name__


def _store_error(problem: str, hint: str) -> checks.Error:
    return checks.Error(f"{SETTING}['STORE'] {problem}.", hint=hint, id="ratelimit_tiers.E004")


def _store_problems(values: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    if values.get("STORE", AUTO) != AUTO:
        return
    alias = values.get("CACHE_ALIAS", DEFAULTS["CACHE_ALIAS"])
    if alias not in settings.CACHES:
        hint = "Add it to CACHES, or name one of: " + ", ".join(settings.CACHES) + "."
        yield checks.Error(
            f"{SETTING}['CACHE_ALIAS'] names no cache: {alias!r}.",
            hint=hint,
            id="ratelimit_tiers.E005",
        )
    elif not uses_django_redis(alias):
        yield checks.Warning(
            "Rate limits are counted in the memory of each process.",
            hint=f"Serve the cache {alias!r} with django_redis.cache.RedisCache (not with Django's "
            f"own RedisCache), or make STORE {REDIS_STORE!r} and STORE_OPTIONS "
            "{'url': 'redis://...'}, so that all processes count together.",
            id="ratelimit_tiers.W001",
        )
    elif values.get("ENABLED", True):  # limits may be off where there is no server, as in a build
        yield from _server_problems(alias)


def _server_problems(alias: str) -> Iterator[checks.CheckMessage]:
    """Yield why counters cannot be kept where a cache is; nothing is sent there."""
    location: Any = settings.CACHES[alias].get("LOCATION") or ""
    try:
        import_string(REDIS_STORE)(cache_alias=alias)
        for url in location.split(",") if isinstance(location, str) else location:
            check_database(url)
        return
    except ModuleNotFoundError as error:
        hint = EXTRA if error.name in CLIENTS else f"Correct it: {error}."
    except NotImplementedError:  # as django-redis says of its client for several servers
        hint = "Its client has no server of its own: name another cache in CACHE_ALIAS."
    except Exception as error:  # whatever the cache or its client library raises
        hint = f"Correct it: {_reason(error)}. {ADDRESS}"
    yield checks.Error(
        f"CACHES[{alias!r}] names no server that counters can be kept on.",
        hint=hint,
        id="ratelimit_tiers.E007",
    )


def _header_problems(values: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    if values.get("CLIENT_IP_HEADER") and not values.get("TRUSTED_PROXIES"):
        yield checks.Warning(
            f"{SETTING}['CLIENT_IP_HEADER'] is never read: no proxy is trusted.",
            hint="Name the networks of your proxies in TRUSTED_PROXIES, or leave the header out.",
            id="ratelimit_tiers.W003",
        )
    if values.get("TRUSTED_PROXIES") and _takes_underscores(django.VERSION):
        yield checks.Warning(
            "On an ASGI server this Django takes the header X_Forwarded_For of a client for the "
            "X-Forwarded-For of a proxy: clients may choose their addresses.",
            hint="Upgrade Django: 5.2.13, 6.0.4 and later leave out names with underscores.",
            id="ratelimit_tiers.W004",
        )


def _takes_underscores(version: tuple[Any, ...]) -> bool:
    """Return whether an ASGI request of this Django has X_Forwarded_For as X-Forwarded-For."""
    return version < (5, 2, 13) or (6, 0) <= version < (6, 0, 4)


def _order_problems() -> Iterator[checks.CheckMessage]:
    places = own_middleware()
    if len(places) > 1:
        yield checks.Error(
            "The rate limit middleware is installed more than once.",
            hint="Keep the first entry in MIDDLEWARE.",
            id="ratelimit_tiers.E006",
        )
    earlier = settings.MIDDLEWARE[: places[0]] if places else []
    late = [path for path in earlier if _is_late(path)]
    if late:
        mine = settings.MIDDLEWARE[places[0]]
        yield checks.Warning(
            f"Sessions or authentication come before the rate limit middleware: {late[0]}.",
            hint=f"Put {mine} first in MIDDLEWARE, so that guesses are limited before them.",
            id="ratelimit_tiers.W002",
        )


def _is_late(path: str) -> bool:
    return LATE_NAME.search(path.rpartition(".")[2]) is not None or is_derived(path, *LATE)
