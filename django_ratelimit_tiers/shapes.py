"""What each setting may be: a test of the value, and words for what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from django_ratelimit_tiers.core.addresses import parse_networks
from django_ratelimit_tiers.core.decisions import FailurePolicy
from django_ratelimit_tiers.core.headers import HeaderStyle
from django_ratelimit_tiers.core.webhooks import parse_webhook

Test = Callable[[Any], bool]

Shapes = dict[str, tuple[Test, str]]
"""By key: whether a value is right, and what would be, to follow the words "make it"."""


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
        networks = parse_networks(value)
    except (TypeError, ValueError):
        return False
    # Who trusts everybody lets every client choose its address.
    return _is_text_list(value) and not networks.cover_all


def _is_prefix(value: Any) -> bool:
    is_short = isinstance(value, str) and 0 < len(value) <= 64
    return is_short and value.isprintable() and not set("{}") & set(value)


def _is_header(value: Any) -> bool:
    # Servers drop headers with underscores, so HTTP_X_FORWARDED_FOR would never be found.
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9-]{1,64}", value) is not None


def _is_webhook(value: Any) -> bool:
    if value is None:
        return True
    try:
        parse_webhook(value)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _is_address_list(value: Any) -> bool:
    try:
        for address in value:
            validate_email(address)
    except (TypeError, ValidationError):
        return False
    return _is_text_list(value)


SHAPES: Shapes = {
    "ENABLED": (lambda value: isinstance(value, bool), "True or False"),
    "STORE": (lambda value: isinstance(value, str), '"auto" or the dotted path of a Store'),
    "STORE_OPTIONS": (lambda value: isinstance(value, dict), "a dict of keyword arguments"),
    "CACHE_ALIAS": (lambda value: isinstance(value, str), "an alias of CACHES"),
    "STORE_TIMEOUT": (lambda value: _is_number(value) and 0 < value <= 60, "seconds, such as 0.1"),
    "KEY_PREFIX": (_is_prefix, "a short text without braces"),
    "TRUSTED_PROXIES": (
        _is_proxies,
        'a list of networks such as "10.0.0.0/8", not of all there are, or the number of proxies',
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

EVENT_SHAPES: Shapes = {
    "SAMPLE": (_is_from(0, 10**6), "a number of events up to 1,000,000, 0 for none"),
    "CARDINALITY": (_is_from(1, 10**6), "a number from 1 to 1,000,000"),
    "COUNT_TTL": (_is_from(300, 30 * 86_400), "seconds, from 300 to 2,592,000 (30 days)"),
    "RETENTION_DAYS": (_is_from(1, 36_500), "a number of days from 1 to 36,500"),
    "RECIPIENTS": (_is_address_list, "a list of e-mail addresses"),
    "WEBHOOK": (
        _is_webhook,
        "None or an http or https URL of at most 500 characters, without spaces, user or password",
    ),
    "WEBHOOK_SECRET": (lambda value: isinstance(value, str), "a text"),
    "LOG_PER_SECOND": (_is_from(1, 10**6), "a number from 1 to 1,000,000"),
}
