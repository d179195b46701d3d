"""Refusals that are put aside as they come: none is lost, the newest are kept in full."""

from __future__ import annotations

from threading import Thread

import pytest

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import OTHERS, RefusalKey
from django_ratelimit_tiers.events.repetitions import MOST_COUNTED, Repetitions
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED

POLICY = QuotaPolicy("free-minute", 60, 60)
OF_TIER = "free-minute\0free\0GET plain/"
OF_RULE = "free-minute\0free\0GET plain/\0search"
TOLD = ("id", 7, "GET", "192.0.2.1", "/plain/", "tester/1")


def key(subject: str) -> RefusalKey:
    return RefusalKey(Mode.ENFORCE, "free-minute", "free", "GET plain/", subject)


def refused(subject: str = "user:1", wait: int = 7) -> Outcome:
    return Outcome(Charge(subject, POLICY), False, 0, 9, wait)


@pytest.fixture
def repetitions() -> Repetitions:
    return Repetitions()


def test_each_is_counted_once_and_taken_once(repetitions: Repetitions) -> None:
    for label in (OF_TIER, OF_TIER, OF_RULE):
        repetitions.add(refused(), label, TOLD)
    repetitions.add(refused("user:2"), OF_TIER, TOLD)
    assert repetitions.take_counts(100) == {key("user:1"): 3, key("user:2"): 1}
    assert repetitions.take_counts(100) == {}


def test_the_newest_are_sampled_in_full(repetitions: Repetitions) -> None:
    for number in range(MOST_SAMPLED + 5):
        repetitions.add(refused(wait=number), OF_RULE, (f"id{number}", *TOLD[1:]))
    sample = repetitions.take_sample()
    assert [refusal.decision_id for refusal in sample] == [
        f"id{number}" for number in range(5, MOST_SAMPLED + 5)
    ]
    assert (sample[-1].key, sample[-1].rule) == (key("user:1"), "search")
    assert (sample[-1].retry_after, sample[-1].revision) == (MOST_SAMPLED + 4, 7)
    assert (sample[-1].address, sample[-1].user_agent) == ("192.0.2.1", "tester/1")
    assert repetitions.take_sample() == []


def test_too_many_subjects_are_counted_together(repetitions: Repetitions) -> None:
    for number in range(MOST_COUNTED + 10):
        repetitions.add(refused(f"user:{number}"), OF_TIER, TOLD)
    repetitions.add(refused("user:0"), OF_TIER, TOLD)
    counts = repetitions.take_counts(2 * MOST_COUNTED)
    assert len(counts) == MOST_COUNTED + 1
    assert counts[key(OTHERS)] == 10
    assert counts[key("user:0")] == 2


def test_threads_lose_none(repetitions: Repetitions) -> None:
    def add() -> None:
        for _ in range(2000):
            repetitions.add(refused(), OF_TIER, TOLD)

    threads = [Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert repetitions.take_counts(100) == {key("user:1"): 8000}
