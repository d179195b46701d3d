"""The short form of the soak; `python -m tests.soak` is the long one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests.servers import SiteProcess, ValkeyProcess
from tests.soak.soak import Plan, Soak

BEHIND_A_PROXY = {"TRUSTED_PROXIES": ["127.0.0.1/32"], "STORE_TIMEOUT": 0.5}


@pytest.fixture
def lasting_valkey() -> Iterator[ValkeyProcess]:
    """A server that remembers what it answered when it is killed."""
    with ValkeyProcess("appendonly yes") as server:
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}
        with override_settings(CACHES={"default": cache}):
            yield server


def test_nothing_fails_is_lost_or_counted_twice_while_everything_changes(
    database_url: str, lasting_valkey: ValkeyProcess
) -> None:
    plan = Plan(seconds=14, clients=2, addresses=10, kill_every=9, recycle_every=6, dead_for=1)
    env = {"REDIS_URL": lasting_valkey.url, "DATABASE_URL": database_url}
    with SiteProcess("gunicorn", workers=2, env=env, ratelimit=BEHIND_A_PROXY) as site:
        soak = Soak(plan, lasting_valkey, site)
        soak.run()
    report = soak.count()
    assert report.errors == []
    assert report.failures == 0, report.lines()
    assert (report.lost, report.doubled) == (0, 0), report.lines()
    assert report.edits_missed == 0, report.lines()
    assert report.edits_probed > 0
    assert report.kills > 0
    assert report.recycles > 0
    assert (
        report.seen.refused
        <= report.counted_refusals
        <= report.seen.refused + sum(report.seen.unsure.values())
    )
