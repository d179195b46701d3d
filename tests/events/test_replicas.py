"""Sites that read from replicas: the tasks read what they judge and roll up where it is written."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.utils import timezone

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events
from django_ratelimit_tiers.events.detection import detect_anomalies
from django_ratelimit_tiers.events.retention import prune_history
from django_ratelimit_tiers.events.times import moment
from django_ratelimit_tiers.models import (
    Alert,
    AlertNotice,
    AlertRule,
    PolicyRevision,
    ThrottleCount,
    UsageCount,
)
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import LONG_AGO, fill_minute, key
from tests.replicas import unreachable_replica

pytestmark = pytest.mark.django_db


def test_an_alert_opens_is_told_and_closes_though_no_replica_answers() -> None:
    AlertRule.objects.exclude(name="Spike of all refusals").delete()
    AlertRule.objects.update(emails="staff@example.com")
    PolicyRevision.objects.update(created_at=moment(LONG_AGO - 3 * 3600))
    with unreachable_replica():
        fill_minute(LONG_AGO, {key(): 100})
        assert aggregate_throttle_events(now=LONG_AGO + 65) == 100
        assert detect_anomalies(now=LONG_AGO + 65) == 1
        assert detect_anomalies(now=LONG_AGO + 65 + 11 * 60) == 1
    assert Alert.objects.get().state == "closed"
    assert [message.subject for message in mail.outbox] == [
        "Alert: Spike of all refusals",
        "Alert over: Spike of all refusals",
    ]


def test_each_rule_is_judged_though_no_replica_answers(caplog: pytest.LogCaptureFixture) -> None:
    AlertRule.objects.update(is_active=True, minimum_volume=2)
    hour, users = LONG_AGO // 3600 * 3600, [f"user:{n}" for n in range(3)]
    for number in range(7):
        UsageCount.objects.create(
            hour=moment(hour - number * 3600), subject="user:1", allowed=90, hourly_limit=100
        )
    sightings = {(user, f"10.0.0.{n}") for user in users for n in range(3)}
    records = configured_store().records
    now = records.now()
    quotas = [DayQuota("user:1", "free-day", 10, 10, now // 60 + 600)]
    records.add(Tally({"user:1": Usage(1, 0)}, sightings, quotas))
    User.objects.create_user("anna")
    with unreachable_replica():
        detect_anomalies(now=now + 3600)
        AlertRule.objects.update(is_active=False)
        detect_anomalies(now=now + 3600)
    assert "could not be judged" not in caplog.text
    kinds = set(Alert.objects.filter(state="closed").values_list("kind", flat=True))
    assert kinds == {"ip_rotation", "account_farming", "slow_drip", "near_limit"}
    assert not AlertNotice.objects.exists()


def test_old_counts_are_rolled_up_though_no_replica_answers() -> None:
    for minute in range(2):
        at = timezone.now() - timedelta(days=10, minutes=minute)
        ThrottleCount.objects.create(minute=at, policy="p", subject="user:1", count=5)
    with unreachable_replica():
        prune_history()
    rows = ThrottleCount.objects.all()
    assert {row.resolution for row in rows} == {"hour"}
    assert sum(row.count for row in rows) == 10
