"""The store that the settings name, one for each process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import SETTING, conf
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords
from django_ratelimit_tiers.store.protocol import Protocol

AUTO = "auto"
DJANGO_REDIS = "django_redis."
REDIS_STORE = "django_ratelimit_tiers.store.redis.RedisStore"
CLUSTER_STORE = "django_ratelimit_tiers.store.cluster.RedisClusterStore"


def uses_django_redis(alias: str) -> bool:
    """Return whether a cache alias is served by django-redis, or by a class derived from its."""
    backend = str(settings.CACHES.get(alias, {}).get("BACKEND", ""))
    if backend.startswith(DJANGO_REDIS):
        return True
    try:
        bases = getattr(import_string(backend), "__mro__", ())
    except ImportError:
        return False
    return any(base.__module__.startswith(DJANGO_REDIS) for base in bases)


@cache
def configured_store() -> Store:
    """Return the store of the settings `STORE`, `STORE_OPTIONS` and `CACHE_ALIAS`."""
    with _making:  # threads that ask first at once must not count in two memories
        return _new_store()


_making = Lock()


@cache
def _new_store() -> Store:
    if conf.STORE == AUTO and not uses_django_redis(conf.CACHE_ALIAS):
        return MemoryStore(records=MemoryRecords(**_bounds()))
    if conf.STORE == AUTO:
        return _made(REDIS_STORE, {"cache_alias": conf.CACHE_ALIAS})
    return _made(conf.STORE, conf.STORE_OPTIONS)


def _made(path: str, options: Mapping[str, Any]) -> Store:
    """Return a store; one of this package's own on a server knows the other settings, too."""
    own: dict[str, Any] = {}
    if path in (REDIS_STORE, CLUSTER_STORE):
        protocol = Protocol(conf.KEY_PREFIX, **_bounds())
        own = {"timeout": conf.STORE_TIMEOUT, "protocol": protocol}
    store: Store = import_string(path)(**own | {**options})
    return store


def _bounds() -> dict[str, int]:
    """Return what bounds the memory that refusals take."""
    names = ("cardinality", "sample", "count_ttl")
    return {name: conf.EVENTS[name.upper()] for name in names}


@receiver(setting_changed)
def _forget_store(*, setting: str, **_: Any) -> None:
    if setting in (SETTING, "CACHES") and configured_store.cache_info().currsize:
        store = configured_store()
        for made in (configured_store, _new_store):
            made.cache_clear()
        store.close()
