"""The work behind the scenes as Celery tasks, run by `beat_schedule()`.

Each may be delivered twice, run twice at once or be killed: what it does again changes nothing.
"""

from __future__ import annotations

from celery import shared_task

from django_ratelimit_tiers.events import aggregation, detection, retention
from django_ratelimit_tiers.schedules import beat_schedule

__all__ = ["aggregate_throttle_events", "beat_schedule", "detect_anomalies", "prune_history"]

SOFT_LIMIT, LIMIT = 240, 300
"""Seconds until a run is ended; the next one goes on where it stopped."""


@shared_task(ignore_result=True, soft_time_limit=SOFT_LIMIT, time_limit=LIMIT)
def aggregate_throttle_events() -> None:
    """Write the refusals of closed minutes to the database."""
    aggregation.aggregate_throttle_events()


@shared_task(ignore_result=True, soft_time_limit=SOFT_LIMIT, time_limit=LIMIT)
def detect_anomalies() -> None:
    """Open, extend and close alerts, and tell people of them."""
    detection.detect_anomalies()


@shared_task(ignore_result=True, soft_time_limit=1500, time_limit=1800)
def prune_history() -> None:
    """Roll old counts up and delete what is older than its retention."""
    retention.prune_history()
