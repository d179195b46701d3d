"""The tasks in a real Celery worker on a real broker, and the command for those without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.models import Sum
from kombu import pools

from django_ratelimit_tiers import tasks
from django_ratelimit_tiers.models import ThrottleCount
from django_ratelimit_tiers.store.configured import configured_store
from testproject.celery import app
from tests.events.rows import fill_minute, key
from tests.servers import ROOT, ServerProcess, wait_until

PATIENCE = 30

RECENT = (int(time.time()) - 3600) // 60 * 60
"""A minute that is over, and that the store has not given up."""


class WorkerProcess(ServerProcess):
    """A Celery worker of the test project, with two processes of its own."""

    def __init__(self, env: dict[str, str], *options: str) -> None:
        super().__init__()
        self.env = env
        self.options = options

    def _command(self) -> Sequence[str]:
        command = [sys.executable, "-m", "celery", "-A", "testproject", "worker"]
        return [*command, "--concurrency", "2", "--loglevel", "info", *self.options]

    def _popen_options(self) -> dict[str, Any]:
        return {"cwd": ROOT, "env": {**self.env, "PYTHONUNBUFFERED": "1"}}

    def _answers(self) -> bool:
        return self._logged(" ready.")


@pytest.fixture
def environment(redis_url: str, database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
    }


@pytest.fixture(scope="module", autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    pools.reset()


@pytest.fixture
def worker(environment: dict[str, str]) -> Iterator[WorkerProcess]:
    with WorkerProcess(environment) as process:
        yield process


def counted() -> int:
    return ThrottleCount.objects.aggregate(total=Sum("count"))["total"] or 0


@pytest.mark.django_db(transaction=True)
def test_a_worker_writes_what_was_refused(worker: WorkerProcess) -> None:
    fill_minute(RECENT, {key("user:1"): 3, key("user:2"): 4})
    tasks.aggregate_throttle_events.delay()
    assert wait_until(lambda: counted() == 7, PATIENCE), worker.log.read_text()


@pytest.mark.django_db(transaction=True)
def test_a_task_that_is_delivered_many_times_counts_once(worker: WorkerProcess) -> None:
    for minute in range(20):
        fill_minute(RECENT + 60 * minute, {key(f"user:{n}"): 1 for n in range(50)})
    for _ in range(6):
        tasks.aggregate_throttle_events.delay()
    records = configured_store().records
    assert wait_until(lambda: not records.minutes(), PATIENCE), worker.log.read_text()
    tasks.aggregate_throttle_events.delay()
    assert counted() == 1000


@pytest.mark.django_db(transaction=True)
def test_every_task_runs_in_a_worker(worker: WorkerProcess) -> None:
    for task in (tasks.aggregate_throttle_events, tasks.detect_anomalies, tasks.prune_history):
        task.delay()
        done = f"Task {task.name}"

        def succeeded(done: str = done) -> bool:
            lines = worker.log.read_text().splitlines()
            return any(done in line and "succeeded" in line for line in lines)

        assert wait_until(succeeded, PATIENCE), worker.log.read_text()


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_killed_leaves_the_rest_to_the_next(
    environment: dict[str, str],
) -> None:
    for minute in range(40):
        fill_minute(RECENT + 60 * minute, {key(f"user:{n}"): 1 for n in range(100)})
    with WorkerProcess(environment) as first:
        tasks.aggregate_throttle_events.delay()
        assert wait_until(lambda: counted() > 0, PATIENCE), first.log.read_text()
        first.kill()
    left = len(configured_store().records.minutes())
    configured_store().command("DEL", "rlt:counts:lock:aggregate")  # type: ignore[attr-defined]
    with WorkerProcess(environment) as second:
        tasks.aggregate_throttle_events.delay()
        records = configured_store().records
        assert wait_until(lambda: not records.minutes(), PATIENCE), second.log.read_text()
    assert left > 0
    assert counted() == 4000


def test_the_schedule_runs_every_task() -> None:
    scheduled = {entry["task"] for entry in tasks.beat_schedule().values()}
    assert scheduled == {
        "django_ratelimit_tiers.tasks.aggregate_throttle_events",
        "django_ratelimit_tiers.tasks.detect_anomalies",
        "django_ratelimit_tiers.tasks.prune_history",
    }
    assert scheduled <= set(app.tasks)


@pytest.mark.django_db
def test_the_command_runs_every_job_once() -> None:
    fill_minute(RECENT, {key(): 3})
    call_command("ratelimit_worker", "--once")
    assert counted() == 3


@pytest.mark.django_db
def test_the_command_refuses_a_store_that_nobody_shares(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(CommandError, match="memory of each process"):
        call_command("ratelimit_worker", "--once")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_runs_until_it_is_told_to_stop(
    environment: dict[str, str], number: signal.Signals
) -> None:
    fill_minute(RECENT, {key(): 3})
    command = [sys.executable, "testproject/manage.py", "ratelimit_worker"]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            assert wait_until(lambda: counted() == 3, PATIENCE)
            process.send_signal(number)
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.django_db(transaction=True)
def test_a_failing_database_is_tried_again_and_makes_once_fail() -> None:
    fill_minute(RECENT, {key(): 3})
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_ratelimit_tiers_throttlecount RENAME TO elsewhere")
    try:
        with pytest.raises(CommandError, match="aggregate_throttle_events"):
            call_command("ratelimit_worker", "--once")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO django_ratelimit_tiers_throttlecount")
    call_command("ratelimit_worker", "--once")
    assert counted() == 3
