"""The work behind the scenes as Celery tasks; `beat_schedule()` runs all of it.

    app.conf.beat_schedule |= beat_schedule()

Each may be delivered twice, run twice at once or be killed: what it does again changes nothing.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.schedules import crontab

from django_ratelimit_tiers.events import aggregation, detection, retention

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


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries for Celery's `beat_schedule`: every minute, and once in the night.

    A run that could not start before the next one is due is dropped.
    """
    every_minute = {"schedule": crontab(), "options": {"expires": 55}}
    return {
        "ratelimit-aggregate": {"task": aggregate_throttle_events.name, **every_minute},
        "ratelimit-detect": {"task": detect_anomalies.name, **every_minute},
        "ratelimit-prune": {
            "task": prune_history.name,
            "schedule": crontab(hour="3", minute="30"),
            "options": {"expires": 3600},
        },
    }
