"""The breaker: asks a dead store rarely, one caller at a time, and finds it again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.policy.breaker import Breaker
from django_ratelimit_tiers.signals import store_recovered, store_unavailable
from tests.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(cool_down=1.0, clock=clock)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """The signals that were sent, in order."""
    heard: list[str] = []

    def on_failure(error: Exception, **_: Any) -> None:
        heard.append(f"unavailable: {error}")

    def on_recovery(**_: Any) -> None:
        heard.append("recovered")

    store_unavailable.connect(on_failure)
    store_recovered.connect(on_recovery)
    yield heard
    store_unavailable.disconnect(on_failure)
    store_recovered.disconnect(on_recovery)


def fail(breaker: Breaker, error: Exception | None = None) -> None:
    with pytest.raises(type(error) if error else StoreUnavailable), breaker:
        raise error or StoreUnavailable("gone")


def is_asked(breaker: Breaker) -> bool:
    """Ask as a caller who gets an answer; return whether the store was asked at all."""
    try:
        with breaker:
            return True
    except StoreUnavailable:
        return False


def test_one_failure_stops_the_asking(breaker: Breaker) -> None:
    assert is_asked(breaker)
    fail(breaker)
    assert breaker.is_open
    assert not is_asked(breaker)


def test_a_probe_that_is_answered_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 1.6
    assert is_asked(breaker)
    assert not breaker.is_open
    assert breaker.recoveries == 1


def test_a_probe_that_fails_waits_for_another_cool_down(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 1.6
    fail(breaker)
    clock.now = 2.5
    assert not is_asked(breaker)
    clock.now = 3.2
    assert is_asked(breaker)


def test_processes_probe_at_different_times(clock: Clock) -> None:
    probes = set()
    for _ in range(20):
        breaker = Breaker(cool_down=1.0, clock=clock)
        fail(breaker)
        probes.add(breaker._next_probe)
    assert len(probes) > 10
    assert all(1.0 <= at <= 1.5 for at in probes)


def test_only_one_caller_probes_and_the_others_do_not_wait_for_it(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker)
    clock.now = 2.0
    others: list[bool] = []
    with breaker:
        clock.now = 100.0  # however long the probe takes
        thread = threading.Thread(target=lambda: others.append(is_asked(breaker)))
        thread.start()
        thread.join(5)
    assert others == [False]
    assert is_asked(breaker)


def test_a_probe_that_is_cancelled_lets_another_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 2.0
    with pytest.raises(KeyboardInterrupt), breaker:
        raise KeyboardInterrupt
    assert breaker.is_open
    assert is_asked(breaker)


def test_a_call_that_the_store_refused_shows_that_it_is_there(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, StoreRefused("wrong type"))
    assert not breaker.is_open
    fail(breaker)
    clock.now = 2.0
    fail(breaker, StoreRefused("wrong type"))
    assert not breaker.is_open


def test_calls_that_the_store_refuses_are_logged_once_a_second(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for clock.now in (0.0, 0.5, 0.9, 1.0):
        fail(breaker, StoreRefused("wrong type"))
    assert [record.message for record in caplog.records] == [
        "the store could not make a call: wrong type"
    ] * 2


def test_each_change_is_told_once_by_signal_and_log(
    breaker: Breaker, clock: Clock, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for now in (0.0, 2.0, 4.0):
        clock.now = now
        fail(breaker)
    clock.now = 6.0
    for _ in range(3):
        assert is_asked(breaker)
    assert heard == ["unavailable: gone", "recovered"]
    assert [record.getMessage() for record in caplog.records] == [
        "the store of rate limits is unavailable: gone",
        "the store of rate limits answers again",
    ]


def test_a_receiver_that_fails_does_not_fail_the_request(breaker: Breaker) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("a receiver's own fault")

    store_unavailable.connect(broken)
    try:
        fail(breaker)
    finally:
        store_unavailable.disconnect(broken)
    assert breaker.is_open
