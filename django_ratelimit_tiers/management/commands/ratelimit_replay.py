"""`manage.py ratelimit_replay <log>...`: whom the policy would have refused, by access logs."""

from __future__ import annotations

import heapq
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError

from django_ratelimit_tiers.core.accesslogs import (
    READ_ERRORS,
    LoggedRequest,
    LogReader,
    log_lines,
)
from django_ratelimit_tiers.management.failures import told_in_words
from django_ratelimit_tiers.models import EndpointRule
from django_ratelimit_tiers.policy.replays import Comparison, ReplayFailed
from django_ratelimit_tiers.policy.reports import report
from django_ratelimit_tiers.policy.trials import Trial, TriedLimit

STANDARD_INPUT = "-"


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
            "--enforce-tier",
            action="append",
            default=[],
            metavar="SLUG",
            help="the slug of a tier in shadow mode, to try as if it were enforced",
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
        enforce_tier: Sequence[str],
        limit: Sequence[tuple[str, TriedLimit]],
        **options: Any,
    ) -> None:
        """Replay the logs with and without the changes, and print what comes of it."""
        reader = LogReader()
        requests = heapq.merge(*(_read(reader, log) for log in logs), key=lambda logged: logged.at)
        try:
            with told_in_words():
                trial = Trial(rule_ids(enforce), frozenset(enforce_tier), limits=dict(limit))
                comparison = Comparison(trial)
                comparison.decide(requests)
        except (ValueError, ReplayFailed) as error:
            raise CommandError(str(error)) from error
        if not comparison.today.clients:
            raise CommandError(f"The logs tell of no request. {reader.unread_words}")
        self.stdout.write("\n".join(report(comparison)))  # at once, for whoever reads only its head
        if reader.unread:
            self.stderr.write(reader.unread_words)


def tried_limit(text: str) -> tuple[str, TriedLimit]:
    """Return the name and the numbers of a limit that is tried."""
    try:
        return TriedLimit.parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def rule_ids(names: Sequence[str]) -> frozenset[int]:
    """Return the ids of rules; raises CommandError for a name that none has."""
    rules = dict(EndpointRule.objects.filter(name__in=names).values_list("name", "pk"))
    for name in names:
        if name not in rules:
            raise CommandError(f"No endpoint rule has the name {name!r}.")
    return frozenset(rules.values())


def _read(reader: LogReader, name: str) -> Iterator[LoggedRequest]:
    """Yield the requests of a file; they are nearly in the order of their times."""
    try:
        with _opened(name) as file:
            yield from reader.read(log_lines(file, name), name)
    except READ_ERRORS as error:
        raise CommandError(f"{name} cannot be read: {error}") from error


def _opened(name: str) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if name == STANDARD_INPUT else open(name, "rb")
