"""What each kind of alert rule looks at in one run: candidates, and a verdict for any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Set
from itertools import dropwhile
from statistics import median
from typing import ClassVar

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db.models import F, Max

from django_ratelimit_tiers.core.alarms import SPIKE_PACE, SUBJECT_PACE, Pace
from django_ratelimit_tiers.core.alerts import Sensitivity
from django_ratelimit_tiers.core.consumption import (
    DRIP_HOURS,
    JUST_UNDER,
    HourUsage,
    SubjectUsage,
    slow_drip,
)
from django_ratelimit_tiers.core.series import HOUR_MINUTES
from django_ratelimit_tiers.core.sightings import (
    NetworkSubjects,
    SubjectNetworks,
    account_farming,
    ip_rotation,
)
from django_ratelimit_tiers.core.spikes import spike
from django_ratelimit_tiers.core.verdicts import MINUTE, Verdict
from django_ratelimit_tiers.core.words import distinct
from django_ratelimit_tiers.events.batches import batches
from django_ratelimit_tiers.events.series import AGAIN, SHOWN, SeriesReader, top
from django_ratelimit_tiers.events.times import hour_of, hour_start, moment
from django_ratelimit_tiers.models import Alert, AlertRule, UsageCount, user_key
from django_ratelimit_tiers.querysets import primary
from django_ratelimit_tiers.store.records import HOUR, SEEN_SECONDS, SEEN_TTL, Records

FACTORS = {Sensitivity.LOW: 2.0, Sensitivity.NORMAL: 1.0, Sensitivity.HIGH: 0.5}
"""How many times its usual number makes a subject or address abnormal, by sensitivity."""


def cause_of(rule: AlertRule, name: str) -> str:
    """Return what an alert is called that a rule raises of a series, subject or network."""
    return f"{rule.name}: {distinct(name)}" if name else rule.name


class Watch(ABC):
    """One rule's look at what was counted up to a minute."""

    pace: ClassVar[Pace] = SUBJECT_PACE

    @property
    @abstractmethod
    def candidates(self) -> Set[str]:
        """What may be abnormal now: series, subjects or networks."""

    @abstractmethod
    def look_up(self, names: Collection[str]) -> None:
        """Ask the database at once for what it has to tell of all that is going to be judged."""

    @abstractmethod
    def verdicts(self, name: str, judged: int | None) -> Iterator[Verdict]:
        """Judge one of them, or one that was abnormal before; the oldest minute first.

        `judged` is the last minute judged of one that was abnormal before, None of another.
        """

    @abstractmethod
    def detail(self, name: str, start: int, end: int) -> dict[str, list[str]]:
        """Return what staff wants to know of the minutes from `start` to `end`."""


class SpikeWatch(Watch):
    """Minutes with far more refusals than usual."""

    pace = SPIKE_PACE

    def __init__(self, rule: AlertRule, minute: int, records: Records) -> None:
        self._rule = rule
        self._span = range(minute - AGAIN + 1, minute + 1)
        self._reader = SeriesReader(rule, minute)

    @property
    def candidates(self) -> Set[str]:
        return {
            series
            for series, minutes in self._reader.minutes.items()
            if any(minutes.get(m, 0) >= self._rule.minimum_volume for m in self._span)
        }

    def look_up(self, names: Collection[str]) -> None:
        """Ask nothing: only series that may be abnormal are read in full, one by one."""

    def verdicts(self, name: str, judged: int | None) -> Iterator[Verdict]:
        history = self._reader.history(name)
        sensitivity = Sensitivity(self._rule.sensitivity)
        for minute in self._unjudged(name, judged):
            yield spike(history, minute, sensitivity, self._rule.minimum_volume)

    def _unjudged(self, name: str, judged: int | None) -> Iterator[int]:
        """Return the minutes to judge, of an ordinary series from the first that may be a spike."""
        if judged is not None:
            return (minute for minute in self._span if minute > judged)
        counts, least = self._reader.minutes.get(name, {}), self._rule.minimum_volume
        return dropwhile(lambda minute: counts.get(minute, 0) < least, self._span)

    def detail(self, name: str, start: int, end: int) -> dict[str, list[str]]:
        return top(self._rule, name, start, end)


class SightingWatch(Watch):
    """What the rotation of addresses and the farming of accounts have in common."""

    def __init__(self, rule: AlertRule, minute: int, records: Records) -> None:
        self._rule = rule
        self._minute = minute
        now = (minute + 1) * MINUTE
        self._now = self._grouped(records, now - HOUR - SEEN_SECONDS, now)
        self._earlier = [
            self._grouped(records, end - HOUR, end)
            for end in range(now - HOUR - SEEN_SECONDS, now - SEEN_TTL, -HOUR)
        ]
        self._peaks: dict[str, float] = {}

    def look_up(self, names: Collection[str]) -> None:
        """Ask how many people were told of before."""
        alerts = primary(Alert).filter(rule=self._rule, kind=self._rule.kind)
        for causes in batches(cause_of(self._rule, name) for name in names):
            told = alerts.filter(cause__in=causes).values_list("cause")
            self._peaks.update(told.annotate(most=Max("peak")).order_by())

    @property
    def most(self) -> int:
        """From how many on it is abnormal."""
        return max(2, int(self._rule.minimum_volume * FACTORS[Sensitivity(self._rule.sensitivity)]))

    def detail(self, name: str, start: int, end: int) -> dict[str, list[str]]:
        return {"seen": sorted(self._now.get(name, ()))[: 4 * SHOWN]}

    def usual(self, name: str) -> float:
        """Return how many an ordinary hour has, or how many people were told of before.

        Sightings are kept for hours only: an office would be news every morning.
        """
        peak = self._peaks.get(cause_of(self._rule, name), 0)
        return max(peak, median([len(hour.get(name, ())) for hour in self._earlier] or [0]))

    def _grouped(self, records: Records, start: int, end: int) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for sighting in records.sightings(start, end):
            name, other = self._names(sighting.subject, sighting.network)
            found[name].add(other)
        return found

    def _names(self, subject: str, network: str) -> tuple[str, str]:
        """Return whom this watch is about, and what is counted of it."""
        raise NotImplementedError


class RotationWatch(SightingWatch):
    """One user or key from unusually many addresses."""

    @property
    def candidates(self) -> Set[str]:
        return {name for name, networks in self._now.items() if len(networks) >= self.most}

    def verdicts(self, name: str, judged: int | None) -> Iterator[Verdict]:
        networks = frozenset(self._now.get(name, ()))
        yield ip_rotation(
            SubjectNetworks(name, networks, self.usual(name)), self._minute, self.most
        )

    def _names(self, subject: str, network: str) -> tuple[str, str]:
        return subject, network


class FarmingWatch(SightingWatch):
    """Unusually many users or keys, or new ones, from one address."""

    NEW_SHARE = 0.4
    """The share of the abnormal number of subjects that is abnormal if they are new."""

    _young: Set[str] = frozenset()

    def look_up(self, names: Collection[str]) -> None:
        super().look_up(names)
        seen = (self._now.get(name, set()) for name in names)
        many = (subjects for subjects in seen if len(subjects) >= self.most_new)
        self._young = self._new(set().union(*many))

    @property
    def most_new(self) -> int:
        """From how many new ones on it is abnormal."""
        return max(2, int(self.most * self.NEW_SHARE))

    @property
    def candidates(self) -> Set[str]:
        return {name for name, subjects in self._now.items() if len(subjects) >= self.most_new}

    def verdicts(self, name: str, judged: int | None) -> Iterator[Verdict]:
        subjects = frozenset(self._now.get(name, ()))
        new = subjects & self._young if len(subjects) >= self.most_new else frozenset()
        seen = NetworkSubjects(name, subjects, new, self.usual(name))
        yield account_farming(seen, self._minute, self.most, self.most_new)

    def _names(self, subject: str, network: str) -> tuple[str, str]:
        return network, subject

    def _new(self, subjects: Set[str]) -> frozenset[str]:
        """Return the users whose accounts were made in the last hour."""
        users = get_user_model()
        try:
            users._meta.get_field("date_joined")
        except FieldDoesNotExist:
            return frozenset()
        names = [name.removeprefix("user:") for name in subjects if name.startswith("user:")]
        keys = [key for key in map(user_key, names) if key is not None]
        young = users._default_manager.filter(date_joined__gte=moment(self._minute * MINUTE - HOUR))
        found = (young.filter(pk__in=some).values_list("pk", flat=True) for some in batches(keys))
        return frozenset(f"user:{pk}" for pks in found for pk in pks)


class DripWatch(Watch):
    """Subjects that stay just under their limit, evenly, for hours."""

    HOURS: ClassVar = {
        Sensitivity.LOW: 2 * DRIP_HOURS,
        Sensitivity.NORMAL: DRIP_HOURS,
        Sensitivity.HIGH: 4,
    }

    def __init__(self, rule: AlertRule, minute: int, records: Records) -> None:
        self._hours = self.HOURS[Sensitivity(rule.sensitivity)]
        newest = primary(UsageCount).order_by("-hour").values_list("hour", flat=True).first()
        self._newest = hour_of(newest) if newest else 0
        self._limit_least = rule.minimum_volume
        self._span = range(self._newest - self._hours - 3, self._newest + 1)
        self._rows: dict[str, dict[int, UsageCount]] = defaultdict(dict)

    def look_up(self, names: Collection[str]) -> None:
        """Ask for the hours that are judged."""
        hours = primary(UsageCount).filter(hour__gte=hour_start(self._span[0])).order_by()
        for some in batches(names):
            for row in hours.filter(subject__in=some):
                self._rows[row.subject][hour_of(row.hour)] = row

    @property
    def candidates(self) -> Set[str]:
        rows = primary(UsageCount).filter(
            hour=hour_start(self._newest),
            hourly_limit__gte=self._limit_least,
            allowed__gte=F("hourly_limit") * JUST_UNDER,
        )
        return set(rows.values_list("subject", flat=True))

    def verdicts(self, name: str, judged: int | None) -> Iterator[Verdict]:
        found = self._rows.get(name, {})
        limit = found[self._newest].hourly_limit if self._newest in found else 0
        hours = [
            HourUsage(found[hour].allowed, found[hour].refused) if hour in found else None
            for hour in self._span
        ]
        end = (self._newest + 1) * HOUR_MINUTES - 1
        yield slow_drip(SubjectUsage(name, limit, hours), end, self._hours)

    def detail(self, name: str, start: int, end: int) -> dict[str, list[str]]:
        rows = primary(UsageCount).filter(subject=name).order_by("-hour")[: self._hours]
        return {"usage": [f"{row.hour:%H:%M} {row.allowed} of {row.hourly_limit}" for row in rows]}
