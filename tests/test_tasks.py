"""The tasks in a real Celery worker on real brokers, and the command for those without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Task
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import InterfaceError, OperationalError
from django.test import Client
from kombu import Connection

from django_ratelimit_tiers import tasks
from django_ratelimit_tiers.management.commands import ratelimit_worker
from django_ratelimit_tiers.management.commands.ratelimit_worker import _run
from django_ratelimit_tiers.models import ThrottleCount
from django_ratelimit_tiers.schedules import LATE_SECONDS
from django_ratelimit_tiers.store.configured import configured_store
from testproject.celery import app
from tests.databases import without_tables
from tests.events.rows import REFUSALS, counted, expire_locks, fill_minute, key, refuse
from tests.policies import limit_tier
from tests.servers import PATIENT_SECONDS, ROOT, ServerProcess, wait_until

PATIENCE = 30

MINUTES = 250
"""Of refusals, each the third part of an address: so many that a worker dies in between."""

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


@pytest.fixture(params=["valkey", "rabbit"])
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a broker, which every test finds empty."""
    url: str = request.getfixturevalue(request.param).url
    yield url
    with Connection(url) as connection:
        connection.default_channel.queue_delete("celery")


@pytest.fixture
def environment(redis_url: str, database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
        "RATELIMIT_TIERS": json.dumps({"STORE_TIMEOUT": PATIENT_SECONDS}),
    }


@pytest.fixture
def worker(environment: dict[str, str], broker: str) -> Iterator[WorkerProcess]:
    with WorkerProcess({**environment, "CELERY_BROKER_URL": broker}) as process:
        yield process


def send(broker: str, task: Task[[], None], times: int = 1) -> None:
    """Let a worker run a task."""
    with Connection(broker) as connection:
        for _ in range(times):
            task.apply_async(connection=connection)


def succeeded(worker: WorkerProcess, name: str = "") -> int:
    """Return how many tasks, or runs of one, a worker has finished."""
    lines = worker.log.read_text().splitlines()
    return sum(f"Task {name}" in line and " succeeded in " in line for line in lines)


@pytest.mark.django_db(transaction=True)
def test_a_worker_writes_what_was_refused(worker: WorkerProcess, broker: str) -> None:
    fill_minute(RECENT, {key("user:1"): 3, key("user:2"): 4})
    send(broker, tasks.aggregate_throttle_events)
    assert wait_until(lambda: counted() == 7, PATIENCE), worker.log.read_text()


@pytest.mark.django_db(transaction=True)
def test_a_task_that_is_delivered_many_times_counts_once(
    worker: WorkerProcess, broker: str
) -> None:
    for minute in range(20):
        fill_minute(RECENT + 60 * minute, {key(f"user:{n}"): 1 for n in range(50)})
    send(broker, tasks.aggregate_throttle_events, times=6)
    assert wait_until(lambda: succeeded(worker) == 6, PATIENCE), worker.log.read_text()
    assert counted() == 1000
    assert configured_store().records.minutes() == []


@pytest.mark.django_db(transaction=True)
def test_every_task_runs_in_a_worker(worker: WorkerProcess, broker: str) -> None:
    every = tasks.aggregate_throttle_events, tasks.detect_anomalies, tasks.prune_history
    for task in every:
        send(broker, task)
    assert wait_until(lambda: succeeded(worker) == 3, PATIENCE), worker.log.read_text()
    assert {succeeded(worker, task.name) for task in every} == {1}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("acks_late", [False, True])
def test_tasks_of_a_killed_worker_are_delivered_again_and_every_429_counts_once(
    client: Client, environment: dict[str, str], broker: str, acks_late: bool
) -> None:
    """It was at one task and had taken five more, which nobody has acknowledged.

    Neither has the one that it was at, when the worker acknowledges late.
    """
    limit_tier("anonymous", 1)
    received = refuse(client, range(MINUTES), clients=1)
    environment |= {
        "CELERY_BROKER_URL": broker,
        "CELERY_ACKS_LATE": str(int(acks_late)),
        "CELERY_VISIBILITY_TIMEOUT": "1",  # after which Redis delivers again; RabbitMQ sees it
    }
    with WorkerProcess(environment, "--concurrency", "1") as first:
        send(broker, tasks.aggregate_throttle_events, times=6)
        assert wait_until(lambda: counted() > 0, PATIENCE), first.log.read_text()
        first.kill()
    records = configured_store().records
    assert records.minutes(), "it was killed too late to interrupt anything"
    expire_locks()
    with WorkerProcess(environment) as second:
        # Nobody sends anything: what it runs is what the first one had taken.
        assert wait_until(lambda: not records.minutes(), PATIENCE), second.log.read_text()
    assert received == MINUTES * REFUSALS
    assert counted() == received


def test_the_schedule_runs_every_task() -> None:
    scheduled = {entry["task"] for entry in tasks.beat_schedule().values()}
    assert scheduled == {
        "django_ratelimit_tiers.tasks.aggregate_throttle_events",
        "django_ratelimit_tiers.tasks.detect_anomalies",
        "django_ratelimit_tiers.tasks.prune_history",
    }
    assert scheduled <= set(app.tasks)


@pytest.mark.parametrize("every", [0, -5, 3600, float("nan"), "30", None, timedelta(seconds=30)])
def test_a_schedule_that_celery_could_not_keep_is_refused(every: Any) -> None:
    with pytest.raises(ValueError, match="seconds from 1 to 1800"):
        tasks.beat_schedule(every)


def test_a_schedule_may_be_slower() -> None:
    entry = tasks.beat_schedule(every=300)["ratelimit-detect-anomalies"]
    assert (entry["schedule"], entry["options"]) == (300, {"expires": 300 + LATE_SECONDS})


@pytest.mark.django_db(transaction=True)
def test_a_worker_runs_what_a_beat_sends_whose_clock_is_behind(
    worker: WorkerProcess, broker: str
) -> None:
    """As Celery before 5.7 believes for an hour when the clocks are put back."""
    fill_minute(RECENT, {key(): 3})
    behind = timedelta(minutes=59)
    entry = tasks.beat_schedule()["ratelimit-aggregate-throttle-events"]
    expires = datetime.now(UTC) - behind + timedelta(seconds=entry["options"]["expires"])
    with Connection(broker) as connection:
        tasks.aggregate_throttle_events.apply_async(connection=connection, expires=expires)
    assert wait_until(lambda: counted() == 3, PATIENCE), worker.log.read_text()


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


@pytest.mark.django_db
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_connection_that_was_lost_fails_one_job_and_not_the_worker(
    error: type[Exception],
) -> None:
    def job() -> None:
        raise error("connection already closed")

    assert _run(job) is False


def test_the_command_prunes_in_the_next_round_what_it_could_not_and_then_once_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds: list[str] = []

    def aggregate() -> None:
        rounds.append("aggregated")
        if len(rounds) > 8:
            signal.raise_signal(signal.SIGTERM)

    def prune() -> None:
        rounds.append("pruned")
        if rounds.count("pruned") == 1:
            raise OperationalError("gone away")

    monkeypatch.setattr(ratelimit_worker, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(ratelimit_worker, "aggregate_throttle_events", aggregate)
    monkeypatch.setattr(ratelimit_worker, "detect_anomalies", lambda: None)
    monkeypatch.setattr(ratelimit_worker, "prune_history", prune)
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        call_command("ratelimit_worker")
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert rounds[:4] == ["aggregated", "pruned"] * 2
    assert rounds.count("pruned") == 2


@pytest.mark.django_db(transaction=True)
def test_a_failing_database_is_tried_again_and_makes_once_fail() -> None:
    fill_minute(RECENT, {key(): 3})
    with (
        without_tables(ThrottleCount),
        pytest.raises(CommandError, match="aggregate_throttle_events"),
    ):
        call_command("ratelimit_worker", "--once")
    call_command("ratelimit_worker", "--once")
    assert counted() == 3
