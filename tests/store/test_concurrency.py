"""However many processes and threads ask at once, exactly the limit is admitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread

import pytest

from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.memory import MemoryStore
from tests.servers import ValkeyProcess
from tests.store import workers

PROCESSES = 8
REQUESTS = 5_000
LIMIT = 100

Contest = Callable[[QuotaPolicy], list[int]]


def shares(of: int, among: int) -> list[int]:
    return [of * (n + 1) // among - of * n // among for n in range(among)]


@pytest.fixture(scope="module")
def contest(valkey: ValkeyProcess) -> Iterator[Contest]:
    """Let all processes compete for one policy, and return what each admitted one was told."""
    context = get_context("spawn")
    now = time.time_ns() // 1000
    pipes: list[Connection] = []
    processes = []
    for share in shares(REQUESTS, PROCESSES):
        ours, theirs = context.Pipe()
        arguments = (valkey.url, shares(share, workers.THREADS), now, theirs)
        process = context.Process(target=workers.take, args=arguments)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    assert [pipe.recv() for pipe in pipes] == ["ready"] * PROCESSES

    def compete(policy: QuotaPolicy) -> list[int]:
        for pipe in pipes:
            pipe.send(policy)
        return [remaining for pipe in pipes for remaining in pipe.recv()]

    yield compete
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join(timeout=30)
        pipe.close()
        assert process.exitcode == 0


@pytest.mark.parametrize("algorithm", Algorithm)
def test_exactly_the_limit_is_admitted_and_no_two_are_told_the_same(
    contest: Contest, algorithm: Algorithm
) -> None:
    told = contest(QuotaPolicy("contested", LIMIT, 86_400, algorithm))
    assert sorted(told) == list(range(LIMIT))


def test_a_burst_is_admitted_to_the_last_request(contest: Contest) -> None:
    policy = QuotaPolicy("burst", 7, 86_400, Algorithm.TOKEN_BUCKET, burst=LIMIT)
    assert sorted(contest(policy)) == list(range(LIMIT))


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_threads_of_one_process_share_its_memory_exactly(algorithm: Algorithm) -> None:
    store = MemoryStore()
    charge = Charge("user:1", QuotaPolicy("contested", LIMIT, 86_400, algorithm))
    told: list[int] = []

    def spend() -> None:
        for _ in range(200):
            (outcome,) = store.acquire([charge], now=1_000_000)
            if outcome.allowed:
                told.append(outcome.remaining)

    threads = [Thread(target=spend) for _ in range(workers.THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == list(range(LIMIT))
