"""What a replay has shown, as plain text for staff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from django_ratelimit_tiers.core.policies import MICROSECONDS
from django_ratelimit_tiers.core.replays import Limit, Replay
from django_ratelimit_tiers.core.words import shown, universal
from django_ratelimit_tiers.models.words import policy_words
from django_ratelimit_tiers.policy.conditions import coverage_findings
from django_ratelimit_tiers.policy.replays import Comparison

LONGEST_LIST = 10
"""How many limits, clients or endpoints are listed."""


def report(comparison: Comparison) -> Iterator[str]:
    """Yield the lines that tell what the policy refuses, and what the one does that is tried."""
    today, tried = comparison.today, comparison.tried
    yield (
        f"{_times(today.requests, 'request')} from {_times(len(today.clients), 'client')}, "
        f"{_moment(today.first)} to {_moment(today.last)}."
    )
    yield from _totals(today, tried)
    told = tried or today
    enforced = [limit for limit in told.limits if limit.policy.is_enforced]
    shadow = [limit for limit in told.limits if not limit.policy.is_enforced]
    yield from _limits("Limits that refuse", told, enforced)
    yield from _limits("Limits in shadow mode that would refuse", told, shadow)
    yield from _clients(told)
    yield from _endpoints(told)
    for finding in coverage_findings():
        yield from ("", f"Note: {finding.text}")
    if today.late:
        yield from ("", _late_words(today.late))
    if comparison.by_field:
        names = ", ".join(map(shown, comparison.by_field))
        yield from ("", f"Left out, as no log has the request field that they count by: {names}.")
    if comparison.replacing:
        names = ", ".join(map(shown, comparison.replacing))
        yield f"Limits of tiers were charged where these replace them on the site: {names}."


def _totals(today: Replay, tried: Replay | None) -> Iterator[str]:
    replays = [today] if tried is None else [today, tried]
    if tried is not None:
        yield from ("", f"{'':18}{'as it is':>12}{'as tried':>12}")
    else:
        yield ""
    rows = (
        ("refused requests", [replay.refused for replay in replays]),
        ("refused clients", [len(replay.refused_clients) for replay in replays]),
        ("exempt requests", [replay.exempt for replay in replays]),
    )
    for name, numbers in rows:
        yield f"{name:18}" + "".join(f"{number:12,}" for number in numbers)
    if tried is not None:
        newly = tried.refused_clients - today.refused_clients
        no_more = today.refused_clients - tried.refused_clients
        yield f"{_times(len(newly), 'client')} newly refused, {len(no_more):,} no longer."


def _limits(title: str, replay: Replay, limits: Sequence[Limit]) -> Iterator[str]:
    if not limits:
        return
    yield from ("", f"{title}:", f"{'refused':>9}{'clients':>9}  limit")
    counts = {limit: replay.limits[limit].total() for limit in limits}
    for limit in sorted(counts, key=lambda limit: (-counts[limit], limit.policy.name)):
        yield f"{counts[limit]:9,}{len(replay.limits[limit]):9,}  {_limit_words(limit)}"


def _clients(replay: Replay) -> Iterator[str]:
    refused = sorted(replay.refused_clients, key=lambda name: (-replay.clients[name].refused, name))
    if not refused:
        return
    yield from (
        "",
        "Clients refused most:",
        f"{'refused':>9}{'requests':>10}  client, first refused at",
    )
    for name in refused[:LONGEST_LIST]:
        count = replay.clients[name]
        since = _moment(count.first_refused)
        yield f"{count.refused:9,}{count.requests:10,}  {shown(name)}, {since}"
    yield from _more(refused, indent=21)


def _endpoints(replay: Replay) -> Iterator[str]:
    if not replay.endpoints:
        return
    yield from ("", "Endpoints refused most:", f"{'refused':>9}  endpoint")
    ranked = sorted(replay.endpoints, key=lambda name: (-replay.endpoints[name], name))
    for name in ranked[:LONGEST_LIST]:
        yield f"{replay.endpoints[name]:9,}  {shown(name)}"
    yield from _more(ranked, indent=11)


def _more(listed: Sequence[str], indent: int) -> Iterator[str]:
    if len(listed) > LONGEST_LIST:
        yield f"{'':{indent}}and {len(listed) - LONGEST_LIST:,} more"


def _limit_words(limit: Limit) -> str:
    policy = limit.policy
    owner = f"rule “{shown(limit.rule)}”" if limit.rule else f"tier “{limit.tier}”"
    words = policy_words(policy)
    return f"{policy.name}: {words} ({owner})"


def _late_words(number: int) -> str:
    was = "was made more than a minute" if number == 1 else "were made more than a minute"
    return (
        f"{_times(number, 'request')} {was} before one that precedes it in the log, and counted as "
        "if made with that one: sort the log by time, the oldest first."
    )


def _times(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _moment(at: int | None) -> str:
    return universal(datetime.fromtimestamp((at or 0) // MICROSECONDS, UTC))
