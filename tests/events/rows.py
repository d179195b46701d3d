"""Refusals in the store, as old as a test wants them, and what the database has of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from django.db.models import Sum
from django.test import Client

from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.refusals import RefusalKey
from django_ratelimit_tiers.events.aggregation import LOCK
from django_ratelimit_tiers.models import ThrottleCount
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.redis import RedisStore

LONG_AGO = 1_700_000_040 // 60 * 60
"""A minute that is over."""

CLIENTS, REFUSALS = 10, 3
"""Whom `refuse` refuses in each minute, and how often."""

LATEST = int(time.time()) - 3600
"""All that `refuse` makes older than this is over."""

OLD = (LATEST - 15 * 3600) // 60 * 60
"""The first of its minutes, which the store has not yet given up."""


def key(subject: str = "user:1", policy: str = "free-minute", **parts: str) -> RefusalKey:
    """Return a key; what is not told is the same every time."""
    parts = {"mode": "enforce", "tier": "free", "endpoint": "GET api", **parts}
    return RefusalKey(Mode(parts["mode"]), policy, parts["tier"], parts["endpoint"], subject)


def fill_minute(minute: int, counts: Mapping[RefusalKey, int]) -> None:
    """Count refusals in a minute as the scripts would have."""
    store = configured_store()
    assert isinstance(store, RedisStore)
    base = store.protocol.counts_key
    for k, count in counts.items():
        field = "\0".join(k._replace(subject=store.protocol.counters_key(k.subject)))
        store.command("HINCRBY", f"{base}:{minute}", field, count)
    store.command("ZADD", f"{base}:minutes", minute, minute)


def age_refusals(to_minute: int, since: int) -> None:
    """Make the refusals of every minute since then as old as told."""
    store = configured_store()
    assert isinstance(store, RedisStore)
    moved: dict[RefusalKey, int] = {}
    for minute in store.records.minutes():
        if minute < since:
            continue
        for k, count in store.records.counts(minute).items():
            moved[k] = moved.get(k, 0) + count
        store.records.forget_minute(minute)
    if moved:
        fill_minute(to_minute, moved)


def refuse(client: Client, minutes: Sequence[int], clients: int = CLIENTS) -> int:
    """Refuse clients in minutes that are over now; returns how many 429s they received.

    The tier of anonymous clients has one request for each of them.
    """
    received = 0
    for minute in minutes:
        for number in range(clients):
            address = f"10.0.{minute}.{number}"
            answers = [client.get("/plain/", REMOTE_ADDR=address) for _ in range(REFUSALS + 1)]
            received += sum(answer.status_code == 429 for answer in answers)
        age_refusals(OLD + 60 * minute, since=LATEST)
    return received


def counted() -> int:
    """Return how many refusals the database has."""
    return ThrottleCount.objects.aggregate(total=Sum("count"))["total"] or 0


def expire_locks() -> None:
    """Let the lock of a holder that died expire."""
    store = configured_store()
    assert isinstance(store, RedisStore)
    store.command("DEL", f"{store.protocol.counts_key}:lock:{LOCK}")
