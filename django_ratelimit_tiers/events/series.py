"""The series that alert rules watch, read from the counts of refusals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.db.models import Aggregate, Count, F, Min, QuerySet, Sum

from django_ratelimit_tiers.core.alerts import Grouping, Resolution
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.series import HOUR, History, Hour, rolled_up
from django_ratelimit_tiers.core.spikes import DAYS
from django_ratelimit_tiers.core.verdicts import MINUTE
from django_ratelimit_tiers.events.aggregation import moment, upsert
from django_ratelimit_tiers.models import (
    AlertRule,
    PolicyRevision,
    SeriesHour,
    ThrottleCount,
    ThrottleEvent,
)

RECENT_HOURS = 3
"""How many hours before this one are read by minute every time."""

MOST_HOURS = 47
"""How far back hours are made up when detection has not run: as long as minutes are kept."""

SHOWN = 5
"""How many names an alert lists of each kind."""

Minutes = Mapping[str, Mapping[int, int]]


class SeriesReader:
    """The series of one spike rule up to a minute; minutes and hours are counted since the epoch.

    Reading also writes the hours that have become complete, so that their peaks outlive the
    minutes they were made of.
    """

    def __init__(self, rule: AlertRule, minute: int) -> None:
        self._rule = rule
        self._minute = minute
        self._since = recording_since(minute)
        self._start = self._first_hour() * HOUR
        self.minutes: Minutes = self._read_minutes()
        self._recent = {
            series: rolled_up(counts, since=self._start, until=minute // HOUR * HOUR)
            for series, counts in self.minutes.items()
        }
        self._write_hours()

    def history(self, series: str) -> History:
        """Return what is known of one series."""
        stored = self._rule.hours.filter(
            series=series, hour__gte=moment((self._minute // HOUR - 24 * DAYS - 2) * 3600)
        )
        hours = {
            int(row.hour.timestamp()) // 3600: Hour(total=row.total, peak=row.peak)
            for row in stored
        }
        hours |= self._recent.get(series, {})
        return History(since=self._since, minutes=self.minutes.get(series, {}), hours=hours)

    def _first_hour(self) -> int:
        """Return the first hour that is read: those that were never written are among them."""
        this_hour = self._minute // HOUR
        latest = self._rule.hours.order_by("-hour").values_list("hour", flat=True).first()
        unwritten = int(latest.timestamp()) // 3600 if latest else 0
        return min(this_hour - RECENT_HOURS, max(unwritten, this_hour - MOST_HOURS))

    def _read_minutes(self) -> Minutes:
        rows = refusals(self._rule).filter(
            minute__gte=moment(self._start * MINUTE), minute__lte=moment(self._minute * MINUTE)
        )
        field = series_field(self._rule)
        names = ["minute", field] if field else ["minute"]
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for row in rows.values(*names).annotate(total=Sum("count")).order_by():
            series = row[field] if field else ""
            found[series][int(row["minute"].timestamp()) // MINUTE] = row["total"]
        return found

    def _write_hours(self) -> None:
        rows = [
            SeriesHour(
                rule=self._rule,
                series=series,
                hour=moment(hour * 3600),
                total=found.total,
                peak=found.peak or 0,
            )
            for series, hours in self._recent.items()
            for hour, found in hours.items()
            if found.total
        ]
        if rows and (self._minute % HOUR < RECENT_HOURS or not self._rule.hours.exists()):
            upsert(SeriesHour, rows, ("rule_id", "series", "hour"), ["total", "peak"])


def recording_since(minute: int) -> int:
    """Return the minute in which recording began: with the first refusal or edit of the policy."""
    first_count = ThrottleCount.objects.aggregate(first=Min("minute"))["first"]
    first_edit = PolicyRevision.objects.aggregate(first=Min("created_at"))["first"]
    known = [int(first.timestamp()) // MINUTE for first in (first_count, first_edit) if first]
    return min(known, default=minute)


def refusals(rule: AlertRule) -> QuerySet[ThrottleCount]:
    """Return the counts by minute that a rule is about; shadow refusals are none."""
    return _about(rule, ThrottleCount.objects.filter(resolution=Resolution.MINUTE.value))


def series_field(rule: AlertRule) -> str | None:
    """Return the field that tells the series of a rule apart, None when it watches a total."""
    return None if rule.grouping == Grouping.TOTAL else str(rule.grouping)


def top(rule: AlertRule, series: str, start: int, end: int) -> dict[str, list[str]]:
    """Return who and what was refused most in the minutes from `start` to `end` of a series.

    Addresses are known of the refusals that were sampled.
    """
    field = series_field(rule)
    only = {field: series} if field else {}
    since, until = moment(start * MINUTE), moment((end + 1) * MINUTE)
    counts = refusals(rule).filter(minute__gte=since, minute__lt=until, **only)
    sample = _about(rule, ThrottleEvent.objects.filter(at__gte=since, at__lt=until, **only))
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
