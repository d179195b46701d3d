"""Refusals that are added up as they come: none is lost."""

from __future__ import annotations

from threading import Thread

import pytest

from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.refusals import OTHERS, RefusalKey
from django_ratelimit_tiers.events.repetitions import MOST_COUNTED, Repetitions

OF_TIER = "free-minute\0free\0GET plain/"
OF_RULE = "free-minute\0free\0GET plain/\0search"


def key(subject: str) -> RefusalKey:
    return RefusalKey(Mode.ENFORCE, "free-minute", "free", "GET plain/", subject)


@pytest.fixture
def repetitions() -> Repetitions:
    return Repetitions()


def test_each_is_counted_once_and_taken_once(repetitions: Repetitions) -> None:
    for label in (OF_TIER, OF_TIER, OF_RULE):
        repetitions.add("user:1", label)
    repetitions.add("user:2", OF_TIER)
    assert repetitions.take_counts(100) == {key("user:1"): 3, key("user:2"): 1}
    assert repetitions.take_counts(100) == {}


def test_too_many_subjects_are_counted_together(repetitions: Repetitions) -> None:
    for number in range(MOST_COUNTED + 10):
        repetitions.add(f"user:{number}", OF_TIER)
    repetitions.add("user:0", OF_TIER)
    counts = repetitions.take_counts(2 * MOST_COUNTED)
    assert len(counts) == MOST_COUNTED + 1
    assert counts[key(OTHERS)] == 10
    assert counts[key("user:0")] == 2


def test_threads_lose_none(repetitions: Repetitions) -> None:
    def add() -> None:
        for _ in range(2000):
            repetitions.add("user:1", OF_TIER)

    threads = [Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert repetitions.take_counts(100) == {key("user:1"): 8000}
