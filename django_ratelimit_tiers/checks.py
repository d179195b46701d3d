"""System checks: a wrong setting is an error with a hint, found at start and never in a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import DEFAULTS, EVENT_DEFAULTS, MIDDLEWARE, SETTING
from django_ratelimit_tiers.core.addresses import parse_networks
from django_ratelimit_tiers.core.decisions import FailurePolicy
from django_ratelimit_tiers.core.headers import HeaderStyle
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.configured import AUTO, REDIS_STORE, uses_django_redis

Test = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_from(least: int, most: int) -> Test:
    return lambda value: _is_count(value) and least <= value <= most


def _is_path(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _is_proxies(value: Any) -> bool:
    if _is_count(value):
        return True
    try:
        parse_networks(value)
    except (TypeError, ValueError):
        return False
    return _is_text_list(value)


def _is_prefix(value: Any) -> bool:
    is_short = isinstance(value, str) and 0 < len(value) <= 64
    return is_short and value.isprintable() and not set("{}") & set(value)


def _is_header(value: Any) -> bool:
    # Servers drop headers with underscores, so HTTP_X_FORWARDED_FOR would never be found.
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9-]{1,64}", value) is not None


def _is_url(value: Any) -> bool:
    if value is None:
        return True
    try:  # Django's validator would refuse the one-word hosts of internal chat servers
        url = urlsplit(value)
        is_anonymous = url.username is None and url.password is None  # they would not be sent
        return url.scheme in ("http", "https") and bool(url.hostname) and is_anonymous
    except (AttributeError, TypeError, ValueError):
        return False


def _is_address_list(value: Any) -> bool:
    try:
        for address in value:
            validate_email(address)
    except (TypeError, ValidationError):
        return False
    return _is_text_list(value)


SHAPES: dict[str, tuple[Test, str]] = {
    "ENABLED": (lambda value: isinstance(value, bool), "True or False"),
    "STORE": (lambda value: isinstance(value, str), '"auto" or the dotted path of a Store'),
    "STORE_OPTIONS": (lambda value: isinstance(value, dict), "a dict of keyword arguments"),
    "CACHE_ALIAS": (lambda value: isinstance(value, str), "an alias of CACHES"),
    "STORE_TIMEOUT": (lambda value: _is_number(value) and 0 < value <= 60, "seconds, such as 0.1"),
    "KEY_PREFIX": (_is_prefix, "a short text without braces"),
    "TRUSTED_PROXIES": (
        _is_proxies,
        'a list of networks such as "10.0.0.0/8", or how many proxies stand before the site',
    ),
    "CLIENT_IP_HEADER": (_is_header, 'the name of a header as it is sent, as "X-Forwarded-For"'),
    "IPV6_PREFIX": (_is_from(1, 128), "a number from 1 to 128"),
    "TIER_RESOLVER": (_is_path, "None or a dotted path"),
    "API_KEY_RESOLVER": (_is_path, "None or a dotted path"),
    "VERIFIED_TEST": (_is_path, "None or a dotted path"),
    "FAILED_STATUSES": (
        lambda value: isinstance(value, list | tuple) and all(map(_is_from(100, 599), value)),
        "a list of HTTP statuses",
    ),
    "ON_STORE_FAILURE": (
        lambda value: value in list(FailurePolicy),
        "one of " + ", ".join(f'"{policy}"' for policy in FailurePolicy),
    ),
    "WORKERS": (
        lambda value: value is None or (_is_count(value) and value > 0),
        "None or how many processes serve the site, over all machines",
    ),
    "REFUSAL_MEMORY": (
        lambda value: _is_number(value) and 0 <= value <= 1,
        "seconds from 0 to 1; 0 turns it off",
    ),
    "HEADERS": (
        lambda value: _is_text_list(value) and set(value) <= set(HeaderStyle),
        "a list of " + ", ".join(f'"{style}"' for style in HeaderStyle) + ", or empty",
    ),
    "RESPONSE": (_is_path, "None or a dotted path"),
    "EVENTS": (lambda value: isinstance(value, dict), "a dict"),
}

EVENT_SHAPES: dict[str, tuple[Test, str]] = {
    "SAMPLE": (_is_from(0, 10**6), "a number of events up to 1,000,000, 0 for none"),
    "CARDINALITY": (_is_from(1, 10**6), "a number from 1 to 1,000,000"),
    "COUNT_TTL": (_is_from(300, 30 * 86_400), "seconds, from 300 to 2,592,000 (30 days)"),
    "RETENTION_DAYS": (_is_from(1, 36_500), "a number of days from 1 to 36,500"),
    "RECIPIENTS": (_is_address_list, "a list of e-mail addresses"),
    "WEBHOOK": (_is_url, "None or an http or https URL without a user and password"),
    "WEBHOOK_SECRET": (lambda value: isinstance(value, str), "a text"),
    "LOG_PER_SECOND": (_is_from(1, 10**6), "a number from 1 to 1,000,000"),
}

CLIENTS = ("redis", "django_redis", "hiredis")
EXTRA = "Install django-ratelimit-tiers[redis]: it brings the clients that the store needs."

PATHS = ("TIER_RESOLVER", "API_KEY_RESOLVER", "VERIFIED_TEST", "RESPONSE")


@checks.register(checks.Tags.security)
def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Return everything that is wrong with `settings.RATELIMIT_TIERS`."""
    values = getattr(settings, SETTING, {})
    if not isinstance(values, dict):
        hint = "Write it like RATELIMIT_TIERS = {'STORE_TIMEOUT': 0.1}."
        return [checks.Error(f"{SETTING} must be a dict.", hint=hint, id="ratelimit_tiers.E001")]
    problems = list(_shape_problems(SETTING, values, SHAPES, DEFAULTS))
    events = values.get("EVENTS", {})
    if isinstance(events, dict):
        problems += _shape_problems(f"{SETTING}['EVENTS']", events, EVENT_SHAPES, EVENT_DEFAULTS)
    problems = problems or list(_path_problems(values))
    problems = problems or list(_options_problems(values))
    return problems or [*_store_problems(values), *_order_problems()]


def _shape_problems(
    where: str,
    values: Mapping[str, Any],
    shapes: Mapping[str, tuple[Test, str]],
    defaults: Mapping[str, Any],
) -> Iterator[checks.CheckMessage]:
    for key, value in values.items():
        if key not in defaults:
            hint = "The keys are: " + ", ".join(defaults) + "."
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


def _path_problems(values: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    keys = [key for key in PATHS if values.get(key) is not None]
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
                continue
            hint = "Name a function or a class."
        yield checks.Error(
            f"{SETTING}[{key!r}] names nothing that can be called: {values[key]!r}.",
            hint=hint,
            id="ratelimit_tiers.E004",
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
        yield _store_error("cannot be made with STORE_OPTIONS", f"Correct STORE_OPTIONS: {error}.")
        return
    if not isinstance(store, Store):
        hint = "Name a subclass of django_ratelimit_tiers.store.base.Store."
        yield _store_error("makes no store", hint)


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


def _order_problems() -> Iterator[checks.CheckMessage]:
    places = [place for place, path in enumerate(settings.MIDDLEWARE) if path == MIDDLEWARE]
    if len(places) > 1:
        yield checks.Error(
            "The rate limit middleware is installed more than once.",
            hint="Keep the first entry in MIDDLEWARE.",
            id="ratelimit_tiers.E006",
        )
    earlier = settings.MIDDLEWARE[: places[0]] if places else []
    late = [path for path in earlier if "sessions" in path or "auth" in path.lower()]
    if late:
        yield checks.Warning(
            f"Sessions or authentication come before the rate limit middleware: {late[0]}.",
            hint=f"Put {MIDDLEWARE} first in MIDDLEWARE, so that guesses are limited before them.",
            id="ratelimit_tiers.W002",
        )
