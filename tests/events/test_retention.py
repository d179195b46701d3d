"""Old detail is rolled up without a refusal lost, and history ends with its retention."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.db.models import QuerySet, Sum
from django.utils import timezone

from django_ratelimit_tiers.core.alerts import Resolution
from django_ratelimit_tiers.events import retention
from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events
from django_ratelimit_tiers.events.retention import SERIES_KEPT, prune_history, roll_up
from django_ratelimit_tiers.models import (
    Alert,
    AlertRule,
    PolicyRevision,
    SeriesHour,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import counted, fill_minute, key

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

RECENT = int(time.time()) - 7200
"""Within an hour that is over, and that the store has not given up."""


def add(at: datetime, count: int, subject: str = "user:1", resolution: str = "minute") -> None:
    ThrottleCount.objects.create(
        minute=at, resolution=resolution, policy="p", subject=subject, count=count
    )


def rows() -> list[tuple[str, datetime, str, int]]:
    return sorted((r.resolution, r.minute, r.subject, r.count) for r in ThrottleCount.objects.all())


def test_the_minutes_of_an_hour_become_its_sum() -> None:
    hour = NOW - timedelta(days=5)
    for minute in (0, 7, 59):
        add(hour + timedelta(minutes=minute), 10)
    add(hour + timedelta(minutes=7), 1, "user:2")
    assert roll_up(Resolution.MINUTE, Resolution.HOUR, NOW) == 1
    assert rows() == [("hour", hour, "user:1", 30), ("hour", hour, "user:2", 1)]


def test_the_minutes_of_subjects_that_differ_in_one_character_become_sums_of_their_own() -> None:
    hour = NOW - timedelta(days=5)
    for minute, subject in enumerate(["user:a", "user:A", "user:á", "user:a "]):
        add(hour + timedelta(minutes=minute), 10, subject)
    roll_up(Resolution.MINUTE, Resolution.HOUR, NOW)
    assert [(row[2], row[3]) for row in rows()] == [
        ("user:A", 10),
        ("user:a", 10),
        ("user:a ", 10),
        ("user:á", 10),
    ]


def test_the_minutes_of_many_subjects_become_sums_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "MOST_SUBJECTS", 2)
    hour = NOW - timedelta(days=5)
    subjects = ["ip:192.0.2.1", "user:1", "user:a", "user:A", "user:á"]
    for minute in (0, 59):
        for subject in subjects:
            add(hour + timedelta(minutes=minute), 10, subject)
    assert roll_up(Resolution.MINUTE, Resolution.HOUR, NOW) == 3
    assert rows() == [("hour", hour, subject, 20) for subject in sorted(subjects)]


def test_an_hour_that_is_not_wholly_before_is_left_alone() -> None:
    add(NOW - timedelta(minutes=30), 10)
    assert roll_up(Resolution.MINUTE, Resolution.HOUR, NOW - timedelta(minutes=1)) == 0
    assert ThrottleCount.objects.get().resolution == "minute"
    assert roll_up(Resolution.MINUTE, Resolution.HOUR, NOW) == 1


def test_pruning_keeps_minutes_for_days_hours_for_a_month_and_days_after_that() -> None:
    recent, weeks, months = (NOW - timedelta(days=days) for days in (1, 10, 60))
    for at in (recent, weeks, months):
        add(at, 5)
        add(at + timedelta(minutes=1), 5)
    prune_history(now=NOW)
    midnight = months.replace(hour=0)
    assert rows() == [
        ("day", midnight, "user:1", 10),
        ("hour", weeks, "user:1", 10),
        ("minute", recent, "user:1", 5),
        ("minute", recent + timedelta(minutes=1), "user:1", 5),
    ]


def test_pruning_twice_changes_nothing_and_loses_nothing() -> None:
    for day in range(1, 80):
        add(NOW - timedelta(days=day, minutes=day), day)
    total = ThrottleCount.objects.aggregate(total=Sum("count"))["total"]
    prune_history(now=NOW)
    once = rows()
    prune_history(now=NOW)
    assert rows() == once
    assert sum(row[3] for row in once) == total


def test_history_past_its_retention_is_deleted(settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"RETENTION_DAYS": 30}}
    old, young = NOW - timedelta(days=31), NOW - timedelta(days=1)
    for number, at in enumerate((old, young)):
        add(at, 1)
        ThrottleEvent.objects.create(at=at, decision_id=str(number), method="GET", path="/")
        UsageCount.objects.create(hour=at, subject="user:1")
    revisions = PolicyRevision.objects.count()
    prune_history(now=NOW)
    assert [row.minute for row in ThrottleCount.objects.all()] == [young]
    assert [row.at for row in ThrottleEvent.objects.all()] == [young]
    assert [row.hour for row in UsageCount.objects.all()] == [young]
    assert PolicyRevision.objects.count() == revisions


def test_alerts_past_their_retention_are_deleted_once_they_are_closed(settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"RETENTION_DAYS": 30}}
    old, young = NOW - timedelta(days=31), NOW - timedelta(days=29)
    for cause, closed_at in (("old", old), ("young", young), ("open", None)):
        state = "closed" if closed_at else "open"
        times = {"opened_at": old, "last_seen_at": old, "closed_at": closed_at}
        Alert.objects.create(kind="spike", cause=cause, state=state, **times)
    prune_history(now=NOW)
    assert {alert.cause for alert in Alert.objects.all()} == {"young", "open"}


def test_hours_that_nothing_is_compared_with_any_more_are_deleted() -> None:
    rule = AlertRule.objects.create(name="any spike", kind="spike")
    old, young = (NOW - SERIES_KEPT - timedelta(hours=hours) for hours in (1, 0))
    for hour in (old, young):
        SeriesHour.objects.create(rule=rule, hour=hour)
    prune_history(now=NOW)
    assert [row.hour for row in SeriesHour.objects.all()] == [young]


def test_minutes_that_the_store_may_still_bring_are_not_rolled_up_before(settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"COUNT_TTL": 5 * 86_400}}
    add(NOW - timedelta(days=5), 5)
    add(NOW - timedelta(days=7), 5)
    prune_history(now=NOW)
    assert [row[0] for row in rows()] == ["hour", "minute"]


def test_a_worker_whose_clock_is_days_ahead_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = timezone.now() + timedelta(days=4)
    monkeypatch.setattr(timezone, "now", lambda: ahead)
    for minute in (0, 60):
        fill_minute((RECENT - RECENT % 3600) + minute, {key(): 3})
        aggregate_throttle_events()
        prune_history()
    assert [row[0] for row in rows()] == ["minute", "minute"]
    assert counted() == 6


def test_hours_that_late_minutes_may_still_join_are_not_rolled_up_before(settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"COUNT_TTL": 20 * 86_400}}
    for days in (35, 50):
        add(NOW - timedelta(days=days), 5, resolution="hour")
    prune_history(now=NOW)
    assert [row[0] for row in rows()] == ["day", "hour"]


@pytest.mark.django_db(transaction=True)
def test_minutes_that_cannot_be_deleted_leave_no_sum_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(NOW - timedelta(days=5), 10)
    before = rows()

    def fail(*_: object) -> None:
        raise DatabaseError("the database is gone")

    monkeypatch.setattr(QuerySet, "delete", fail)
    with pytest.raises(DatabaseError):
        roll_up(Resolution.MINUTE, Resolution.HOUR, NOW)
    assert rows() == before


def test_pruning_tells_how_many_rows_it_deleted_and_one_does_it_at_a_time(settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"RETENTION_DAYS": 30}}
    for day in (31, 32):
        add(NOW - timedelta(days=day), 1)
    with configured_store().records.lock(retention.LOCK, 30):
        assert prune_history(now=NOW) == 0
    assert len(rows()) == 2
    assert prune_history(now=NOW) == 2
    assert rows() == []
