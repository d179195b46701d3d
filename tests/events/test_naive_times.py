"""Sites without time zones (USE_TZ off): history is written, rolled up, judged and told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events
from django_ratelimit_tiers.events.detection import detect_anomalies
from django_ratelimit_tiers.events.retention import prune_history
from django_ratelimit_tiers.models import AlertRule, ServiceAccount, ThrottleCount, ThrottleEvent
from django_ratelimit_tiers.policy.explanations import explain
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import LONG_AGO, fill_minute, key
from tests.policies import limit_tier

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_time_zones(settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    settings.USE_TZ = False


def test_a_minute_is_written_in_local_time() -> None:
    fill_minute(LONG_AGO, {key(): 3})
    assert aggregate_throttle_events() == 3
    row = ThrottleCount.objects.get()
    assert (row.minute, row.count) == (datetime(2023, 11, 15, 7, 14), 3)  # noqa: DTZ001
    assert row.minute.timestamp() == LONG_AGO


def test_a_sampled_refusal_is_written_and_explained(client: Client) -> None:
    limit_tier("anonymous", 1)
    assert [client.get("/plain/").status_code for _ in range(2)] == [200, 429]
    limiter().teller.tell()
    aggregate_throttle_events()
    event = ThrottleEvent.objects.get()
    assert abs(event.at - timezone.now()) < timedelta(minutes=2)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:}"
    assert any(now in line for line in explain(event))


def test_usage_of_an_account_is_written() -> None:
    named = {"name": "a", "owner": "o", "reason": "r"}
    account = ServiceAccount.objects.create(networks="192.0.2.0/24", **named)
    configured_store().records.add(Tally({f"account:{account.pk}": Usage(1, 0)}))
    aggregate_throttle_events()
    account.refresh_from_db()
    assert abs(account.last_used_at - timezone.now()) < timedelta(minutes=2)


def test_old_counts_are_rolled_up() -> None:
    for minute in (0, 60):
        fill_minute(LONG_AGO // 3600 * 3600 + minute, {key(): 3})
    aggregate_throttle_events()
    prune_history(now=datetime.fromtimestamp(LONG_AGO + 10 * 86_400))  # noqa: DTZ006
    row = ThrottleCount.objects.get()
    assert (row.resolution, row.count) == ("hour", 6)
    assert row.minute.timestamp() == LONG_AGO // 3600 * 3600


def test_a_spike_is_found_and_told_in_universal_time() -> None:
    AlertRule.objects.all().delete()
    AlertRule.objects.create(name="Spikes", kind="spike", emails="ops@example.com")
    for minute in range(60):
        fill_minute(LONG_AGO - 60 * minute, {key(): 5 if minute else 1000})
    aggregate_throttle_events(now=LONG_AGO + 66)
    assert detect_anomalies(now=LONG_AGO + 66) == 1
    assert "Since 2023-11-14 22:14 UTC." in mail.outbox[0].body


def test_the_hour_after_the_clocks_went_forward_is_rolled_up(settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Paris"
    for hour in (0, 1):  # of the day in UTC that began at 1:00 in Paris and ended at 2:00
        ThrottleCount.objects.create(
            minute=datetime(2026, 3, 30, hour),  # noqa: DTZ001
            resolution="hour",
            policy="p",
            subject="user:1",
            count=3,
        )
    prune_history(now=datetime(2026, 5, 10, 12))  # noqa: DTZ001
    [day] = ThrottleCount.objects.all()
    assert (day.resolution, day.count) == ("day", 6)
