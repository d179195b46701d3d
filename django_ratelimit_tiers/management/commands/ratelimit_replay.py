"""`manage.py ratelimit_replay <log>...`: whom the policy would have refused, by access logs."""

from __future__ import annotations

import gzip
import heapq
import re
import sys
import zlib
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from django_ratelimit_tiers.core.accesslogs import LoggedRequest, parse_line
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.rules import IdentifyBy
from django_ratelimit_tiers.core.verdicts import shown
from django_ratelimit_tiers.models import EndpointRule
from django_ratelimit_tiers.policy.replays import Replayer
from django_ratelimit_tiers.policy.reports import report
from django_ratelimit_tiers.policy.trials import Trial, TriedLimit

STANDARD_INPUT = "-"

TRIED = re.compile(r"(?P<name>.+)=(?P<requests>\d{1,10})(?:,(?P<burst>\d{1,10}))?", re.ASCII)


class Command(BaseCommand):
    """Decides the requests of access logs by the policy in the database, and refuses nobody."""

    help = (
        "Decides the requests of access logs (common or combined format, or JSON lines) by the "
        "policy in the database, with changes if you like, and says who would have been refused. "
        "Nothing is charged, counted or changed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("logs", nargs="+", metavar="log", help="files, also with .gz; - for standard input")
        add(
            "--enforce",
            action="append",
            default=[],
            metavar="RULE",
            help="the name of a rule in shadow mode or off, to try as if it were enforced",
        )
        add(
            "--limit",
            action="append",
            default=[],
            metavar="NAME=REQUESTS[,BURST]",
            type=tried_limit,
            help="a limit with other numbers, such as anonymous-minute=20,30",
        )

    def handle(
        self,
        *args: Any,
        logs: Sequence[str],
        enforce: Sequence[str],
        limit: Sequence[tuple[str, TriedLimit]],
        **options: Any,
    ) -> None:
        """Replay the logs with and without the changes, and print what comes of it."""
        by_field = dict(_rules_by_field().values_list("pk", "name"))
        today = Trial(without=frozenset(by_field))
        tried = Trial(_rule_ids(enforce), today.without, dict(limit))
        trials = [today] if tried == today else [today, tried]
        replayers = [_replayer(trial) for trial in trials]
        log = AccessLogs(logs)
        for logged in log.requests():
            for replayer in replayers:
                _decide(replayer, logged)
        if not replayers[0].replay.clients:
            raise CommandError(f"The logs tell of no request. {log.unread_words}")
        for line in report(*(replayer.replay for replayer in replayers)):
            self.stdout.write(line)
        if log.unread:
            self.stderr.write(log.unread_words)
        if by_field:
            names = ", ".join(sorted(by_field.values()))
            self.stderr.write(f"Left out, as no log tells the field that they count by: {names}.")


class AccessLogs:
    """Logs that are read as one, with what could not be read of them.

    Each is in the order of its times, but for requests that end later than others that began after
    them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.unread = 0
        self._names = names
        self._first_unread = ""

    def requests(self) -> Iterator[LoggedRequest]:
        """Yield all requests by their times; raises CommandError for a file that cannot be read."""
        return heapq.merge(*map(self._read, self._names), key=lambda logged: logged.at)

    @property
    def unread_words(self) -> str:
        """How many lines told of no request, and why the first of them did not."""
        if not self.unread:
            return ""
        lines = "1 line tells" if self.unread == 1 else f"{self.unread:,} lines tell"
        return f"{lines} of no request; the first is {self._first_unread}"

    def _read(self, name: str) -> Iterator[LoggedRequest]:
        try:
            with _opened(name) as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield parse_line(line)
                    except ValueError as error:
                        self.unread += 1
                        self._first_unread = (
                            self._first_unread or f"line {number} of {name}: {shown(str(error))}."
                        )
        except (OSError, EOFError, zlib.error) as error:
            raise CommandError(f"{name} cannot be read: {error}") from error


def _opened(name: str) -> AbstractContextManager[IO[str]]:
    if name == STANDARD_INPUT:
        return nullcontext(sys.stdin)
    if name.endswith(".gz"):
        return gzip.open(name, "rt", encoding="utf-8", errors="surrogateescape")
    return open(name, encoding="utf-8", errors="surrogateescape")


def tried_limit(text: str) -> tuple[str, TriedLimit]:
    """Return the name and the numbers of a limit that is tried."""
    match = TRIED.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(
            f"{text!r} is not a limit such as free-minute=30 or pro-minute=60,90"
        )
    burst = match["burst"]
    return match["name"], TriedLimit(int(match["requests"]), None if burst is None else int(burst))


def _rules_by_field() -> QuerySet[EndpointRule]:
    """Return the rules that limit by what no log tells."""
    limiting = EndpointRule.objects.exclude(mode=Mode.OFF).filter(exempt=False)
    return limiting.filter(identify_by=IdentifyBy.FIELD)


def _rule_ids(names: Sequence[str]) -> frozenset[int]:
    rules = dict(EndpointRule.objects.filter(name__in=names).values_list("name", "pk"))
    for name in names:
        if name not in rules:
            raise CommandError(f"No endpoint rule has the name {name!r}.")
    return frozenset(rules.values())


def _replayer(trial: Trial) -> Replayer:
    try:
        replayer = Replayer(trial)
    except ValueError as error:
        raise CommandError(str(error)) from error
    for name in trial.limits:
        if name not in replayer.policy_names:
            known = ", ".join(sorted(replayer.policy_names))
            raise CommandError(f"No limit has the name {name!r}; there are {known}.")
    return replayer


def _decide(replayer: Replayer, logged: LoggedRequest) -> None:
    """Decide one request; what fails then is the site's own code, which may miss the session."""
    try:
        replayer.decide(logged)
    except Exception as error:
        told = f"{logged.method} {shown(logged.path)} of {logged.address}"
        raise CommandError(
            f"{told} cannot be replayed: {error!r}. A log has no headers and no session: log the "
            "tier as JSON if TIER_RESOLVER needs them."
        ) from error
