"""A whole request through Django's handler: what each limiter adds to the same view."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import LIMITERS, LOCKED, PEER_RULES, RULES
from tests.benchmarks.reports import Goal, Table
from tests.benchmarks.rounds import Burst, Timing, calls
from tests.benchmarks.site import (
    EXHAUSTED,
    USERS,
    Respond,
    address_limits,
    create_peer_rules,
    handler,
)

FLOORS = {LIMITERS["none"].name: "floor", LIMITERS["rest"].name: "rest-floor"}

PEER_OF_MANY = "django-smart-ratelimit middleware, tier + 1 rule of 1,000"


def measure(bench: Bench) -> None:
    """Add the tables of added times and of refusals, and what they should be."""
    with address_limits():
        users = bench.choose(100, USERS)
        responds = {name: handler(limiter, users) for name, limiter in LIMITERS.items()}
        timings = bench.race({name: calls(respond) for name, respond in responds.items()}, burst=20)
        queries = {name: _queries(respond) for name, respond in responds.items()}
        _report(bench, timings, queries)
        _measure_equal_rules(bench, responds)
        _measure_refusals(bench, responds["tiers"], responds["none"])


def _report(bench: Bench, timings: dict[str, Timing], queries: dict[str, int]) -> None:
    bench.report.tables.append(
        Table(
            "Whole request",
            "`BaseHandler.get_response` with a signed-in user: a thousand routes, each with a "
            "rule of its own; tiers and rules are rows, for the nearest peer too. What a limiter "
            "adds is taken against the same view without one, and `x F` against a limiter that "
            "does nothing but F. A rule before authentication takes a round trip of its own.",
            ("", "median us", "p99 us", "added us", "added x F", "SQL"),
            [_row(name, timings, queries[name]) for name in LIMITERS],
        )
    )
    peer = timings["smart"].added(timings["none"])
    ours = timings["tiers"].added(timings["none"])
    bench.report.goals += [
        Goal("middleware, added time", _ratio("tiers", timings), most=0.9, unit=" F"),
        Goal("throttle alone, added time", _ratio("rest-tiers", timings), most=0.9, unit=" F"),
        Goal("SQL queries of a warm request", queries["tiers"], most=0),
        Goal("nearest peer's added time, 10 rules", peer / ours, least=15, unit=" x"),
    ]


def _row(name: str, timings: dict[str, Timing], queries: int) -> tuple[str | float, ...]:
    limiter, timing = LIMITERS[name], timings[name]
    base = _base(name, timings)
    if base is timing:
        return limiter.name, timing.microseconds, timing.p99, 0.0, 0.0, queries
    return (
        limiter.name,
        timing.microseconds,
        timing.p99,
        timing.added(base),
        _ratio(name, timings),
        queries,
    )


def _ratio(name: str, timings: dict[str, Timing]) -> float:
    floor = timings[FLOORS[LIMITERS[name].beside]]
    return timings[name].ratio(floor, _base(name, timings))


def _base(name: str, timings: dict[str, Timing]) -> Timing:
    beside = LIMITERS[name].beside
    return next(timings[other] for other, limiter in LIMITERS.items() if limiter.name == beside)


def _queries(respond: Respond) -> int:
    with CaptureQueriesContext(connection) as captured:
        respond(1)
    return len(captured)


def _measure_equal_rules(bench: Bench, responds: dict[str, Respond]) -> None:
    """Compare with the nearest peer once it has as many rules."""
    create_peer_rules(range(RULES))
    names = {"none": LIMITERS["none"].name, "tiers": LIMITERS["tiers"].name, "smart": PEER_OF_MANY}
    timings = bench.race({name: calls(responds[name]) for name in names}, burst=2)
    create_peer_rules(PEER_RULES)
    none = timings["none"]
    bench.report.tables.append(
        Table(
            "Whole request, a thousand rules each",
            "The same where the nearest peer has a rule for each of the paths, too; two requests "
            "at a time, so that each finds the caches as the others left them.",
            ("", "median us", "p99 us", "added us"),
            [
                (names[name], timing.microseconds, timing.p99, timing.added(none))
                for name, timing in timings.items()
            ],
        )
    )
    times = timings["smart"].added(none) / timings["tiers"].added(none)
    name = "nearest peer's added time, 1,000 rules"
    bench.report.goals.append(Goal(name, times, least=15, unit=" x"))


def _measure_refusals(bench: Bench, allowed: Respond, none: Respond) -> None:
    timings = bench.race(
        {
            "allowed": calls(allowed),
            "refused, by the user's tier": _refused(lambda _: allowed(0, EXHAUSTED)),
            "refused, by address before authentication": _refused(
                lambda number: allowed(number, path=LOCKED)
            ),
            "no limiter": calls(none),
        }
    )
    base = timings["allowed"]
    bench.report.tables.append(
        Table(
            "Refused request",
            "The same request of a client whose tier is used up, and one of an address that has "
            "asked for the login too often, beside one that is let in; each with the time of "
            "Django's handler.",
            ("", "median us", "p99 us", "x allowed"),
            [(name, t.microseconds, t.p99, t.ratio(base)) for name, t in timings.items()],
        )
    )
    bench.report.goals += [
        Goal(f"request {name}", timing.ratio(base), most=0.35, unit=" x allowed")
        for name, timing in timings.items()
        if name.startswith("refused")
    ]


def _refused(respond: Respond) -> Burst:
    """Return bursts of requests that must be refused, once the first one was let in."""

    def refused(number: int) -> None:
        if respond(number).status_code != 429:
            raise RuntimeError("a client without any requests left was let in")

    respond(0)
    return calls(refused)
