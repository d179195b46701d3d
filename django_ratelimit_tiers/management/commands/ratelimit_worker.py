"""`manage.py ratelimit_worker`: what the Celery tasks do, for those without Celery."""

from __future__ import annotations

import logging
import signal
import time
from argparse import ArgumentParser
from collections.abc import Callable
from threading import Event
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, close_old_connections

from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events
from django_ratelimit_tiers.events.detection import detect_anomalies
from django_ratelimit_tiers.events.retention import prune_history
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.configured import configured_store

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60

OFFSET_SECONDS = 6
"""How long after a full minute each round begins, so that the minute before it is closed."""

PRUNE_EVERY = 86_400

Job = Callable[[], Any]


class Command(BaseCommand):
    """Runs the jobs once a minute until it is told to stop, or once."""

    help = (
        "Writes refusals to the database, raises alerts and prunes history: once a minute until "
        "SIGTERM or SIGINT, or with --once a single time, as for cron."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="run every job once, then end")

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        """Run the jobs; with --once a failure is the command's own."""
        if not configured_store().shared:
            raise CommandError(
                "Refusals are counted in the memory of each process, where no other can read them: "
                "serve CACHES with django-redis, see RATELIMIT_TIERS['STORE']."
            )
        if once:
            failed = [job.__name__ for job in jobs(prunes=True) if not _run(job)]
            if failed:
                raise CommandError(f"These jobs failed: {', '.join(failed)}.")
            return
        self._run_until_told()

    def _run_until_told(self) -> None:
        stop = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        next_prune = 0.0
        while not stop.is_set():
            for job in jobs(prunes=time.monotonic() >= next_prune):
                if not stop.is_set():
                    close_old_connections()  # what one job has lost would fail the next, too
                    if _run(job) and job is prune_history:
                        next_prune = time.monotonic() + PRUNE_EVERY
            stop.wait(EVERY_SECONDS - (time.time() - OFFSET_SECONDS) % EVERY_SECONDS)


def jobs(*, prunes: bool) -> list[Job]:
    """Return what one round does, in order."""
    return [aggregate_throttle_events, detect_anomalies, *([prune_history] if prunes else [])]


def _run(job: Job) -> bool:
    """Run a job; a database or store that fails is logged, and the next round tries again."""
    try:
        job()
    except (StoreUnavailable, Error) as error:
        logger.error("%s failed and will be tried again: %s", job.__name__, error)
        return False
    return True
