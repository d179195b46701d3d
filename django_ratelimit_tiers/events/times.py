"""Minutes and hours, numbered from the Unix epoch, as times in the database."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone

from django_ratelimit_tiers.store.records import HOUR, MINUTE


def moment(seconds: float) -> datetime:
    """Return epoch seconds as a time, of the kind that this site's database takes."""
    at = datetime.fromtimestamp(seconds, UTC)
    return at if settings.USE_TZ else timezone.make_naive(at, timezone.get_default_timezone())


def minute_of(at: datetime) -> int:
    """Return the minute that a time is in."""
    return int(at.timestamp()) // MINUTE


def minute_start(minute: int) -> datetime:
    """Return the time at which a minute begins."""
    return moment(minute * MINUTE)


def hour_of(at: datetime) -> int:
    """Return the hour that a time is in."""
    return int(at.timestamp()) // HOUR


def hour_start(hour: int) -> datetime:
    """Return the time at which an hour begins."""
    return moment(hour * HOUR)
