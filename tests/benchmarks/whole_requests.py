"""A whole request through Django's handler: what each limiter adds to the same view."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import LIMITERS
from tests.benchmarks.reports import Goal, Table
from tests.benchmarks.rounds import Timing, calls
from tests.benchmarks.site import EXHAUSTED, Respond, handler

FLOORS = {LIMITERS["none"].name: "floor", LIMITERS["rest"].name: "rest-floor"}


def measure(bench: Bench) -> None:
    """Add the table of added times, and the goals of the middleware and of the throttle."""
    responds = {name: handler(limiter) for name, limiter in LIMITERS.items()}
    timings = bench.race({name: calls(respond) for name, respond in responds.items()}, burst=20)
    queries = {name: _queries(respond) for name, respond in responds.items()}
    bench.report.tables.append(
        Table(
            "Whole request",
            "`BaseHandler.get_response` with a signed-in user: a thousand routes, each with a "
            "rule of its own; tiers and rules are rows, for the nearest peer too. What a limiter "
            "adds is taken against the same view without one, and `x F` against a limiter that "
            "does nothing but F.",
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
        Goal("nearest peer's added time", peer / ours, least=15, unit=" x"),
    ]
    _measure_refusals(bench, responds)


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


def _measure_refusals(bench: Bench, responds: dict[str, Respond]) -> None:
    allowed, none = responds["tiers"], responds["none"]

    def refused(_number: int) -> None:
        if allowed(0, EXHAUSTED).status_code != 429:
            raise RuntimeError("the exhausted user was let in")

    allowed(0, EXHAUSTED)
    allowed(0, EXHAUSTED)
    timings = bench.race({"allowed": calls(allowed), "refused": calls(refused), "": calls(none)})
    ratio = timings["refused"].ratio(timings["allowed"])
    bench.report.tables.append(
        Table(
            "Refused request",
            "The same request of a client whose tier is used up, beside one that is let in, each "
            "with the time of Django's handler.",
            ("", "median us", "p99 us", "x allowed"),
            [
                (name, timings[name].microseconds, timings[name].p99, timings[name].ratio(base))
                for base in [timings["allowed"]]
                for name in ("allowed", "refused")
            ],
        )
    )
    bench.report.goals.append(Goal("refused request", ratio, most=0.35, unit=" x allowed"))
