"""The settings of this package: one dict, `settings.RATELIMIT_TIERS`, every key with a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from django_ratelimit_tiers.core.decisions import FailurePolicy

SETTING = "RATELIMIT_TIERS"

MIDDLEWARE = "django_ratelimit_tiers.middleware.RateLimitMiddleware"
"""What a project that limits all its views has in `MIDDLEWARE`."""

EVENT_DEFAULTS: dict[str, Any] = {
    "SAMPLE": 1000,
    "CARDINALITY": 2000,
    "COUNT_TTL": 86_400,
    "RETENTION_DAYS": 90,
    "RECIPIENTS": [],
    "WEBHOOK": None,
    "WEBHOOK_SECRET": "",
    "LOG_PER_SECOND": 10,
}

DEFAULTS: dict[str, Any] = {
    "ENABLED": True,
    "STORE": "auto",
    "STORE_OPTIONS": {},
    "CACHE_ALIAS": "default",
    "STORE_TIMEOUT": 0.1,
    "KEY_PREFIX": "rlt",
    "TRUSTED_PROXIES": [],
    "CLIENT_IP_HEADER": "X-Forwarded-For",
    "IPV6_PREFIX": 64,
    "TIER_RESOLVER": None,
    "API_KEY_RESOLVER": None,
    "VERIFIED_TEST": None,
    "FAILED_STATUSES": [400, 401, 403, 404, 422, 429],
    "ON_STORE_FAILURE": "open",
    "WORKERS": None,
    "REFUSAL_MEMORY": 0.1,
    "HEADERS": ["x-ratelimit", "ratelimit-draft-11"],
    "RESPONSE": None,
    "EVENTS": EVENT_DEFAULTS,
}


def _written(key: str) -> Any:
    """Return the value that a project has written for a key, or its default."""
    return getattr(settings, SETTING, {}).get(key, DEFAULTS[key])


class Settings:
    """Typed access to the settings; each is read once, and again when settings are overridden.

    Lists come as tuples, by which things can be remembered.
    """

    def __getattr__(self, key: str) -> Any:
        if key not in DEFAULTS:
            raise AttributeError(key)
        value = _written(key)
        if isinstance(value, list):
            value = tuple(value)
        self.__dict__[key] = value  # where Python looks first the next time
        return value

    def forget(self) -> None:
        """Read every setting anew when it is asked for."""
        self.__dict__.clear()

    ENABLED: bool
    STORE: str
    STORE_OPTIONS: Mapping[str, Any]
    CACHE_ALIAS: str
    STORE_TIMEOUT: float
    KEY_PREFIX: str
    TRUSTED_PROXIES: Sequence[str] | int
    CLIENT_IP_HEADER: str
    IPV6_PREFIX: int
    TIER_RESOLVER: str | None
    API_KEY_RESOLVER: str | None
    VERIFIED_TEST: str | None
    FAILED_STATUSES: Sequence[int]
    WORKERS: int | None
    REFUSAL_MEMORY: float
    HEADERS: Sequence[str]
    RESPONSE: str | None

    @cached_property
    def ON_STORE_FAILURE(self) -> FailurePolicy:  # noqa: N802 - named like its setting
        return FailurePolicy(_written("ON_STORE_FAILURE"))

    @cached_property
    def has_resolvers(self) -> bool:
        """Whether the site itself has a say in the key or the tier of a client."""
        told = (self.API_KEY_RESOLVER, self.TIER_RESOLVER, self.VERIFIED_TEST)
        return any(path is not None for path in told)

    @cached_property
    def EVENTS(self) -> Mapping[str, Any]:  # noqa: N802 - named like its setting
        """The event settings, each key with its default."""
        return {**EVENT_DEFAULTS, **_written("EVENTS")}


conf = Settings()


def is_derived(path: str, *classes: str) -> bool:
    """Return whether a dotted path names one of these classes, or one derived from it.

    A function does not, nor what cannot be imported, of which Django itself will tell.
    """
    if path in classes:
        return True
    try:
        found = import_string(path)
    except Exception:  # whatever the named module raises
        return False
    return isinstance(found, type) and issubclass(found, tuple(map(import_string, classes)))


def own_middleware() -> list[int]:
    """Return the places in `MIDDLEWARE` of this package's, or of a class derived from it."""
    return [n for n, path in enumerate(settings.MIDDLEWARE) if is_derived(path, MIDDLEWARE)]


@receiver(setting_changed)
def _forget_settings(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        conf.forget()
