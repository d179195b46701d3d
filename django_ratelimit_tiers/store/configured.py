"""The store that the settings name, one for each process."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.conf import settings
from django.dispatch import receiver
from django.test.signals import setting_changed
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import SETTING, conf
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords
from django_ratelimit_tiers.store.protocol import Protocol

AUTO = "auto"
REDIS_STORE = "django_ratelimit_tiers.store.redis.RedisStore"


def uses_django_redis(alias: str) -> bool:
    """Return whether a cache alias is served by django-redis."""
    backend = settings.CACHES.get(alias, {}).get("BACKEND", "")
    return str(backend).startswith("django_redis.")


@cache
def configured_store() -> Store:
    """Return the store of the settings `STORE`, `STORE_OPTIONS` and `CACHE_ALIAS`."""
    if conf.STORE != AUTO:
        store: Store = import_string(conf.STORE)(**conf.STORE_OPTIONS)
        return store
    if not uses_django_redis(conf.CACHE_ALIAS):
        return MemoryStore(records=MemoryRecords(**_bounds()))
    redis_store: Store = import_string(REDIS_STORE)(
        cache_alias=conf.CACHE_ALIAS,
        timeout=conf.STORE_TIMEOUT,
        protocol=Protocol(conf.KEY_PREFIX, **_bounds()),
    )
    return redis_store


def _bounds() -> dict[str, int]:
    """Return what bounds the memory that refusals take."""
    names = ("cardinality", "sample", "count_ttl")
    return {name: conf.EVENTS[name.upper()] for name in names}


@receiver(setting_changed)
def _forget_store(*, setting: str, **_: Any) -> None:
    if setting in (SETTING, "CACHES"):
        configured_store.cache_clear()
