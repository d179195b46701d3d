"""How long history is kept: in detail for days, by hour for a month, by day until it is pruned."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import router, transaction
from django.db.models import Min, Sum

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.alerts import AlertState, Resolution
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.refusals import RefusalKey
from django_ratelimit_tiers.events.aggregation import COUNT_KEY, count_rows, upsert
from django_ratelimit_tiers.events.times import moment
from django_ratelimit_tiers.models import (
    Alert,
    SeriesHour,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.querysets import primary
from django_ratelimit_tiers.store.configured import configured_store

MINUTES_KEPT = timedelta(days=2)
"""How long counts are kept by minute, at least; older ones are kept by hour."""

HOURS_KEPT = timedelta(days=30)
"""How long counts are kept by hour, at least; older ones are kept by day."""

SERIES_KEPT = timedelta(days=16)
"""How long the hours that detectors compare with are kept."""

MOST_SUBJECTS = 10_000
"""Of so many subjects counts are rolled up at once: one day may have millions of addresses."""

LOCK, LOCK_SECONDS = "prune", 600

LENGTHS = {Resolution.HOUR: timedelta(hours=1), Resolution.DAY: timedelta(days=1)}


def prune_history(*, now: datetime | None = None) -> int:
    """Delete what is older than RETENTION_DAYS and roll old counts up; returns rows deleted.

    Policy revisions are kept: they are few, and the only record of who edited what. By the store's
    clock unless told: minutes that a worker rolls up too early would be lost. Returns 0 when
    another process is at it.
    """
    records = configured_store().records
    with records.lock(LOCK, LOCK_SECONDS) as lease:
        if lease is None:
            return 0
        now = moment(records.now()) if now is None else now
        deleted = _delete_old(now - timedelta(days=conf.EVENTS["RETENTION_DAYS"]), now)
        waiting = timedelta(seconds=conf.EVENTS["COUNT_TTL"], days=1)
        roll_up(Resolution.MINUTE, Resolution.HOUR, now - max(MINUTES_KEPT, waiting))
        roll_up(Resolution.HOUR, Resolution.DAY, now - max(HOURS_KEPT, 2 * waiting))
        return deleted


def roll_up(finer: Resolution, coarser: Resolution, before: datetime) -> int:
    """Replace the finer counts of each hour or day that ended before then.

    One transaction sums up, writes and deletes those of MOST_SUBJECTS at most in one hour or day:
    an interrupted run leaves nothing half done, and two at once leave what one does. Returns the
    number of transactions.
    """
    length, done = LENGTHS[coarser], 0
    of_finer = primary(ThrottleCount).filter(resolution=finer.value)
    while True:
        first = of_finer.aggregate(first=Min("minute"))["first"]
        if first is None or _end(first, length) > before:
            return done
        _roll_up_some(finer, coarser, _start(first, length), _end(first, length))
        done += 1


def _roll_up_some(finer: Resolution, coarser: Resolution, start: datetime, end: datetime) -> None:
    rows = primary(ThrottleCount).filter(resolution=finer.value, minute__gte=start, minute__lt=end)
    names = ("mode", "policy", "tier", "endpoint", "subject")
    with transaction.atomic(using=router.db_for_write(ThrottleCount)):
        subjects = rows.order_by("subject").values_list("subject", flat=True).distinct()
        some = list(subjects[:MOST_SUBJECTS])
        if not some:  # another process was faster
            return
        rows = rows.filter(subject__lte=some[-1])
        totals = [
            (RefusalKey(Mode(row["mode"]), *(row[name] for name in names[1:])), row["total"])
            for row in rows.values(*names).annotate(total=Sum("count")).order_by()
        ]
        upsert(ThrottleCount, count_rows(totals, start, coarser), COUNT_KEY, ["count"])
        rows.delete()


def _delete_old(before: datetime, now: datetime) -> int:
    return sum(
        rows.delete()[0]
        for rows in (
            ThrottleCount.objects.filter(minute__lt=before),
            ThrottleEvent.objects.filter(at__lt=before),
            UsageCount.objects.filter(hour__lt=before),
            SeriesHour.objects.filter(hour__lt=now - SERIES_KEPT),
            Alert.objects.filter(state=AlertState.CLOSED.value, closed_at__lt=before),
        )
    )


def _start(at: datetime, length: timedelta) -> datetime:
    """Return the start of the hour or day in UTC."""
    return moment(_number(at, length) * int(length.total_seconds()))


def _end(at: datetime, length: timedelta) -> datetime:
    """Return the end of the hour or day in UTC: never before it has lasted for its length.

    By naive times it lasts longer, or shorter, when clocks are put forward or back.
    """
    after = moment((_number(at, length) + 1) * int(length.total_seconds()))
    return max(_start(at, length) + length, after)


def _number(at: datetime, length: timedelta) -> int:
    return int(at.timestamp()) // int(length.total_seconds())
