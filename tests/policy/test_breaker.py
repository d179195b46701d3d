"""The breaker: asks a dead store rarely, one caller at a time, and finds it again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

import pytest

from django_ratelimit_tiers.core.plans import StalePlan
from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded
from django_ratelimit_tiers.signals import store_recovered, store_unavailable
from tests.clocks import Clock


def by_a_block(breaker: Breaker, call: Callable[[], object]) -> None:
    with breaker:
        call()


def in_a_thread(breaker: Breaker, call: Callable[[], object]) -> None:
    Guarded(breaker, call, never).run()


def on_a_loop(breaker: Breaker, call: Callable[[], object]) -> None:
    async def acall() -> None:
        call()

    with suppress(StopIteration):
        Guarded(breaker, never, acall).arun().send(None)


def never() -> NoReturn:
    raise AssertionError("a call of the other kind")


class Asking:
    """How the store is asked through a breaker: all the ways there are."""

    way = staticmethod(by_a_block)


@pytest.fixture(autouse=True, params=[by_a_block, in_a_thread, on_a_loop])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Asking, "way", staticmethod(request.param))


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


def fail(breaker: Breaker, error: BaseException | None = None) -> None:
    def call() -> NoReturn:
        raise error or StoreUnavailable("gone")

    with pytest.raises(type(error) if error else StoreUnavailable):
        Asking.way(breaker, call)


def is_asked(breaker: Breaker) -> bool:
    """Ask as a caller who gets an answer; return whether the store was asked at all."""
    asked: list[bool] = []
    with suppress(StoreUnavailable):
        Asking.way(breaker, lambda: asked.append(True))
    return bool(asked)


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


def test_a_call_that_began_before_the_store_failed_shows_that_it_answers(breaker: Breaker) -> None:
    Asking.way(breaker, lambda: fail(breaker))
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

    def call() -> None:
        clock.now = 100.0  # however long the probe takes
        thread = threading.Thread(target=lambda: others.append(is_asked(breaker)))
        thread.start()
        thread.join(5)

    Asking.way(breaker, call)
    assert others == [False]
    assert is_asked(breaker)


def test_a_probe_that_is_cancelled_lets_another_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 2.0
    fail(breaker, KeyboardInterrupt())
    assert breaker.is_open
    assert is_asked(breaker)


@pytest.mark.parametrize("answer", [StoreRefused("wrong type"), StalePlan("newer", {})])
def test_a_call_that_the_store_refused_shows_that_it_is_there(
    breaker: Breaker, clock: Clock, answer: Exception
) -> None:
    fail(breaker, answer)
    assert not breaker.is_open
    fail(breaker)
    clock.now = 2.0
    fail(breaker, answer)
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
