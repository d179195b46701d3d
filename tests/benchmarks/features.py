"""What each feature costs a whole request, and all of them beside peers with one counter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.test import override_settings
from django.utils import timezone

from django_ratelimit_tiers.models import EndpointRule, ServiceAccount
from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import LIMITERS, RULED
from tests.benchmarks.reports import Cell, Goal, Table
from tests.benchmarks.rounds import Timing, calls
from tests.benchmarks.site import MANY, handler

CONTENDERS = ("none", "floor", "tiers")
ONE_COUNTER = ("decorator", "smart-decorator", "smart-static")
EVERYTHING = "all of these at once"

FEW = 20
"""Users, each of whom asks once in a burst: after the first one, nobody has to be looked up."""


def tier_of(_request: HttpRequest) -> str:
    """Name everybody's tier: the setting TIER_RESOLVER."""
    return "bench"


def key_of(request: HttpRequest) -> str | None:
    """Take the user's number for a key that was verified: the setting API_KEY_RESOLVER."""
    return request.META.get("HTTP_X_USER")


@dataclass(frozen=True, slots=True)
class Feature:
    """What a site makes use of: settings, and rows that `create` makes."""

    name: str
    settings: dict[str, Any]
    create: Callable[[], Sequence[Any]] = tuple


def _rule(name: str, path: str, *limits: int, **fields: Any) -> EndpointRule:
    rule = EndpointRule.objects.create(name=name, path=path, **fields)
    for requests in limits:
        rule.policies.create(requests=requests, period=3_600)
    return rule


def _accounts() -> Sequence[ServiceAccount]:
    texts = {"owner": "operations", "reason": "to be measured"}
    by_key = ServiceAccount(name="by key", **texts)
    by_key.new_key()
    by_key.save()
    networks = "192.0.2.0/24 2001:db8::/32"
    return [by_key, ServiceAccount.objects.create(name="by network", networks=networks, **texts)]


def _rules() -> Sequence[EndpointRule]:
    ends_at = timezone.now() + timedelta(days=1)
    return [
        _rule("exempt", "/health/", exempt=True),
        _rule("for a time", RULED, MANY, ends_at=ends_at),
        _rule("in shadow mode", RULED, MANY, mode="shadow"),
    ]


FEATURES = (
    Feature("nothing else", {}),
    Feature("an API key that the site verifies", {"API_KEY_RESOLVER": f"{__name__}.key_of"}),
    Feature("a tier that the site names", {"TIER_RESOLVER": f"{__name__}.tier_of"}),
    Feature("trusted proxies", {"TRUSTED_PROXIES": ["127.0.0.0/8", "10.0.0.0/8"]}),
    Feature("service accounts, by key and by network", {}, _accounts),
    Feature("rules that exempt, are for a time, in shadow mode", {}, _rules),
)


def measure(bench: Bench) -> None:
    """Add the table of features, and how all of them compare with one counter."""
    forwarded = {"HTTP_X_FORWARDED_FOR": "203.0.113.9, 10.0.0.1"}
    names = (*CONTENDERS, *ONE_COUNTER)
    bursts = {name: calls(handler(LIMITERS[name], FEW, **forwarded)) for name in names}
    rows: list[tuple[Cell, ...]] = []
    for feature in FEATURES:
        with in_use(feature):
            timings = bench.race({name: bursts[name] for name in CONTENDERS}, burst=FEW)
        rows.append(_row(feature.name, "tiers", timings))
    with in_use(*FEATURES):
        timings = bench.race(bursts, burst=FEW)
    rows.append(_row(EVERYTHING, "tiers", timings))
    rows += [_row(LIMITERS[name].name, name, timings) for name in ONE_COUNTER]
    bench.report.tables.append(
        Table(
            "Features",
            "The same whole request with a tier of two limits and one rule of a thousand, where a "
            "site makes use of more; below it what peers add that know one limit and nothing else. "
            "Each feature takes turns with the floor and with no limiter, the last four lines with "
            "each other, too.",
            ("", "median us", "p99 us", "added us", "added x F"),
            rows,
        )
    )
    added = {name: timings[name].added(timings["none"]) for name in names}
    cheapest = min(added[name] for name in ONE_COUNTER)
    goal = "added time with every feature, beside the cheapest peer with one counter"
    bench.report.goals.append(Goal(goal, added["tiers"] / cheapest, most=1, unit=" x"))


@contextmanager
def in_use(*features: Feature) -> Iterator[None]:
    """Make use of features."""
    settings = {key: value for feature in features for key, value in feature.settings.items()}
    rows = [row for feature in features for row in feature.create()]
    with override_settings(RATELIMIT_TIERS=settings):
        yield
    for row in rows:
        row.delete()


def _row(title: str, name: str, timings: dict[str, Timing]) -> tuple[Cell, ...]:
    timing, none, floor = timings[name], timings["none"], timings["floor"]
    added, ratio = timing.added(none), timing.ratio(floor, none)
    return title, timing.microseconds, timing.p99, added, ratio
