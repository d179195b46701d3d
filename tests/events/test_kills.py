"""SIGKILL at any point, two at once, delivered twice: every 429 is counted exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from django.test import Client

from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import CLIENTS, LATEST, REFUSALS, counted, expire_locks, refuse
from tests.policies import limit_tier
from tests.servers import ROOT

KILLS, MINUTES = 8, 8


@pytest.fixture
def environment(redis_url: str, database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "REDIS_URL": redis_url,
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
    }


@contextmanager
def aggregator(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that aggregates once for each line it is sent."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.events.aggregator"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write(f"{LATEST}\n")
    process.stdin.flush()


@pytest.mark.django_db(transaction=True)
def test_killed_again_and_again_every_429_is_counted_once(
    client: Client, environment: dict[str, str]
) -> None:
    limit_tier("anonymous", 1)
    chance = random.Random(429)
    received = refuse(client, range(MINUTES))
    killed_at_work = 0
    for kill in range(KILLS):
        with aggregator(environment) as process:
            start(process)
            time.sleep(chance.uniform(0, 0.04))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed_at_work += bool(configured_store().records.minutes())
        expire_locks()
        received += refuse(client, range(MINUTES * (kill + 1), MINUTES * (kill + 2)))
    assert killed_at_work, "every kill came too late to interrupt anything"
    while configured_store().records.minutes():
        aggregate_throttle_events(now=LATEST)
    assert received == (KILLS + 1) * MINUTES * CLIENTS * REFUSALS
    assert counted() == received


@pytest.mark.django_db(transaction=True)
def test_two_at_once_count_every_429_once(client: Client, environment: dict[str, str]) -> None:
    limit_tier("anonymous", 1)
    with ExitStack() as stack:
        processes = [stack.enter_context(aggregator(environment)) for _ in range(2)]
        received = refuse(client, range(MINUTES))
        for round_number in range(1, 6):
            for process in processes:
                start(process)
                expire_locks()  # so that both really work on the same minutes
            for process in processes:
                assert process.stdout
                process.stdout.readline()
            received += refuse(client, range(MINUTES * round_number, MINUTES * (round_number + 1)))
    expire_locks()
    while configured_store().records.minutes():
        aggregate_throttle_events(now=LATEST)
    assert counted() == received
