"""The series that alert rules watch, read from the counts of refusals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db import router, transaction
from django.db.models import Aggregate, Count, F, Min, QuerySet, Sum

from django_ratelimit_tiers.core.alerts import Grouping, Resolution
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.series import EMPTY_HOUR, HOUR_MINUTES, History, Hour, rolled_up
from django_ratelimit_tiers.core.spikes import DAYS, RECENT
from django_ratelimit_tiers.events.aggregation import upsert
from django_ratelimit_tiers.events.times import hour_of, hour_start, minute_of, minute_start
from django_ratelimit_tiers.models import (
    AlertRule,
    PolicyRevision,
    SeriesHour,
    ThrottleCount,
    ThrottleEvent,
)
from django_ratelimit_tiers.querysets import primary

AGAIN = 60
"""Minutes judged in every run: earlier runs may have been missed, and to judge again is no harm."""

RECENT_HOURS = -(-(AGAIN + RECENT) // HOUR_MINUTES)
"""How many hours before this one are read by minute every time."""

MOST_HOURS = 47
"""How far back hours are made up of minutes: these are kept for two days at least."""

OLDEST_HOURS = 24 * DAYS + 2
"""How far back the hours go that a minute is compared with."""

SHOWN = 5
"""How many names an alert lists of each kind."""

SERIES_FIELDS = ("grouping", "policy", "endpoint", "tier")
"""What of a rule tells which series it watches."""

Minutes = Mapping[str, Mapping[int, int]]
Hours = dict[tuple[str, int], Hour]


class SeriesReader:
    """The series of one spike rule up to a minute; minutes and hours are counted since the epoch.

    Reading also writes the hours that have become complete, so that their peaks outlive the
    minutes they were made of. Older hours that no run has written, because the rule is new or was
    switched off, are made up of the counts by hour, and their means stand in for their peaks.
    """

    def __init__(self, rule: AlertRule, minute: int) -> None:
        self._rule = rule
        self._minute = minute
        self._this_hour = minute // HOUR_MINUTES
        self._since = recording_since(minute)
        self._unwritten = self._first_unwritten()
        made_up = max(self._unwritten, self._this_hour - MOST_HOURS)
        self._start = min(made_up, self._this_hour - RECENT_HOURS)
        self.minutes: Minutes = self._read_minutes()
        self._recent = {
            series: rolled_up(
                counts, since=self._start * HOUR_MINUTES, until=self._this_hour * HOUR_MINUTES
            )
            for series, counts in self.minutes.items()
        }
        if self._unwritten < self._this_hour:
            self._write_hours()

    def history(self, series: str) -> History:
        """Return what is known of one series."""
        oldest = hour_start(self._this_hour - OLDEST_HOURS)
        stored = primary(SeriesHour).filter(rule=self._rule, series=series, hour__gte=oldest)
        hours = {hour_of(row.hour): Hour(total=row.total, peak=row.peak) for row in stored}
        hours |= self._recent.get(series, {})
        return History(since=self._since, minutes=self.minutes.get(series, {}), hours=hours)

    def _first_unwritten(self) -> int:
        """Return the hour after the latest one that was written."""
        hours = primary(SeriesHour).filter(rule=self._rule).order_by("-hour")
        latest = hours.values_list("hour", flat=True).first()
        oldest = self._this_hour - OLDEST_HOURS
        return max(oldest, hour_of(latest) + 1) if latest else oldest

    def _read_minutes(self) -> Minutes:
        until = minute_start(self._minute)
        rows = refusals(self._rule).filter(minute__lte=until)
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for series, at, total in self._sums(rows, self._start):
            found[series][minute_of(at)] = total
        return found

    def _read_older_hours(self) -> Hours:
        lengths = (Resolution.MINUTE.value, Resolution.HOUR.value)
        rows = _about(self._rule, primary(ThrottleCount).filter(resolution__in=lengths))
        until = hour_start(self._start)
        totals: Counter[tuple[str, int]] = Counter()
        for series, at, total in self._sums(rows.filter(minute__lt=until), self._unwritten):
            totals[series, hour_of(at)] += total
        return {
            key: Hour(total=total, peak=-(-total // HOUR_MINUTES)) for key, total in totals.items()
        }

    def _sums(
        self, rows: QuerySet[ThrottleCount], hour: int
    ) -> Iterator[tuple[str, datetime, int]]:
        """Yield series, time and sum of the counts from the beginning of an hour on."""
        field = series_field(self._rule)
        names = ["minute", field] if field else ["minute"]
        rows = rows.filter(minute__gte=hour_start(hour))
        for row in rows.values(*names).annotate(total=Sum("count")).order_by():
            yield row[field] if field else "", row["minute"], row["total"]

    def _write_hours(self) -> None:
        hours = self._read_older_hours() if self._unwritten < self._start else {}
        for series, recent in self._recent.items():
            written = {(series, hour): found for hour, found in recent.items() if found.total}
            hours |= {key: found for key, found in written.items() if key[1] >= self._unwritten}
        # One of the last hour in any case: by it the next run sees that all of them are written.
        hours.setdefault(("", self._this_hour - 1), EMPTY_HOUR)
        rows = [
            SeriesHour(
                rule=self._rule,
                series=series,
                hour=hour_start(hour),
                total=found.total,
                peak=found.peak or 0,
            )
            for (series, hour), found in hours.items()
        ]
        with transaction.atomic(using=router.db_for_write(SeriesHour)):
            upsert(SeriesHour, rows, ("rule_id", "series", "hour"), ["total", "peak"])


def recording_since(minute: int) -> int:
    """Return the minute in which recording began: with the first refusal or edit of the policy.

    The index of counts begins with their resolution: without it all of them would be read.
    """
    counts = [primary(ThrottleCount).filter(resolution=each.value) for each in Resolution]
    firsts = [rows.aggregate(first=Min("minute"))["first"] for rows in counts]
    firsts.append(primary(PolicyRevision).aggregate(first=Min("created_at"))["first"])
    known = [minute_of(first) for first in firsts if first]
    return min(known, default=minute)


def refusals(rule: AlertRule) -> QuerySet[ThrottleCount]:
    """Return the counts by minute that a rule is about; shadow refusals are none."""
    return _about(rule, primary(ThrottleCount).filter(resolution=Resolution.MINUTE.value))


def forget_hours(rule: AlertRule, using: str) -> None:
    """Delete the hours of a rule whose series are other ones than those in the database."""
    new = {name: getattr(rule, name) for name in SERIES_FIELDS}
    if AlertRule.objects.using(using).filter(pk=rule.pk).values(*SERIES_FIELDS).first() != new:
        SeriesHour.objects.using(using).filter(rule=rule.pk).delete()


def series_field(rule: AlertRule) -> str | None:
    """Return the field that tells the series of a rule apart, None when it watches a total."""
    return None if rule.grouping == Grouping.TOTAL else str(rule.grouping)


def top(rule: AlertRule, series: str, start: int, end: int) -> dict[str, list[str]]:
    """Return who and what was refused most in the minutes from `start` to `end` of a series.

    Addresses are known of the refusals that were sampled.
    """
    field = series_field(rule)
    only = {field: series} if field else {}
    since, until = minute_start(start), minute_start(end + 1)
    counts = refusals(rule).filter(minute__gte=since, minute__lt=until, **only)
    sample = _about(rule, primary(ThrottleEvent).filter(at__gte=since, at__lt=until, **only))
    return {
        "top subjects": _most(counts.values(name=F("subject")), Sum("count")),
        "top endpoints": _most(counts.values(name=F("endpoint")), Sum("count")),
        "top policies": _most(counts.values(name=F("policy")), Sum("count")),
        "top addresses of the sample": _most(sample.values(name=F("address")), Count("pk")),
    }


def _about(rule: AlertRule, rows: QuerySet[Any]) -> QuerySet[Any]:
    only = {"policy": rule.policy, "endpoint": rule.endpoint, "tier": rule.tier}
    chosen = {name: value for name, value in only.items() if value}
    return rows.filter(mode=Mode.ENFORCE.value, **chosen)


def _most(rows: Any, measure: Aggregate) -> list[str]:
    """Return the first names by a measure, with what they measure."""
    found = rows.annotate(total=measure).order_by("-total", "name")[:SHOWN]
    return [f"{row['name'] or '-'} ({row['total']})" for row in found]
