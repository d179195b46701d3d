"""The memory of one process is bounded, and forgets what no longer counts."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import override_settings

from django_ratelimit_tiers.core.plans import Plan, StalePlan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.memory import MemoryStore
from tests.clocks import Clock

POLICY = QuotaPolicy("p", 3, 86_400, Algorithm.FIXED_WINDOW)


def remaining(store: MemoryStore, subject: str) -> int:
    return store.peek([Charge(subject, POLICY)])[0].remaining


def test_the_subject_that_was_charged_longest_ago_is_forgotten_first() -> None:
    store = MemoryStore(max_subjects=2)
    for subject in ("a", "b", "a", "c"):
        store.acquire([Charge(subject, POLICY)])
    assert [remaining(store, subject) for subject in "abc"] == [1, 3, 2]


def test_looking_at_subjects_and_refusing_them_keeps_nothing() -> None:
    store = MemoryStore(max_subjects=1)
    store.acquire([Charge("kept", POLICY)])
    dear = Charge("refused", POLICY, cost=4)
    for _ in range(10):
        assert not store.acquire([dear])[0].allowed
        store.peek([Charge("seen", POLICY)])
    assert remaining(store, "kept") == 2


def test_a_counter_is_kept_for_as_long_as_its_own_window_needs_it() -> None:
    clock = Clock(0.0)
    store = MemoryStore(clock=clock)
    long, short = Charge("a", POLICY), Charge("a", QuotaPolicy("s", 9, 1, Algorithm.FIXED_WINDOW))
    store.acquire([long], now=0)
    for days, left in ((2.5, 2), (4, 3)):
        clock.now = days * 86_400
        store.acquire([short], now=0)
        assert store.peek([long], now=0)[0].remaining == left


def test_announced_subjects_are_bounded_and_a_forgotten_one_is_stale_once() -> None:
    store = MemoryStore(max_subjects=2)
    store.announce_subjects(["a", "b", "c"])
    with pytest.raises(StalePlan) as stale:
        store.execute(Plan((), subject_revisions={"a": "known", "c": "known"}))
    assert stale.value.subject_revisions["a"] == ""
    assert stale.value.subject_revisions["c"] != ""
    store.execute(Plan((), subject_revisions=stale.value.subject_revisions))


def test_an_announced_edit_makes_a_plan_stale_that_charges_nothing() -> None:
    store = MemoryStore()
    revision = store.revision()
    charge = Charge("a", POLICY)
    store.execute(Plan((charge,), revision=revision))
    store.announce_policy()
    with pytest.raises(StalePlan) as stale:
        store.execute(Plan((charge,), revision=revision))
    assert stale.value.revision == store.revision() != revision
    assert remaining(store, "a") == 2


def test_a_reset_forgets_one_subject() -> None:
    store = MemoryStore()
    store.acquire([Charge("a", POLICY), Charge("b", POLICY)])
    store.reset("a")
    store.reset("nobody")
    assert [remaining(store, subject) for subject in "ab"] == [3, 2]


def test_a_refund_of_what_was_never_charged_gives_nothing() -> None:
    store = MemoryStore()
    store.refund([Charge("a", POLICY, cost=2)])
    assert remaining(store, "a") == 3


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_was_charged_is_given_back_without_saying_when(algorithm: Algorithm) -> None:
    store = MemoryStore()
    charge = Charge("a", QuotaPolicy("p", 9, 86_400, algorithm), cost=2)
    store.acquire([charge])
    store.acquire([charge])
    store.refund([charge])
    assert store.peek([charge])[0].remaining == 7


@pytest.mark.parametrize("algorithm", Algorithm)
def test_threads_and_event_loops_share_one_memory(algorithm: Algorithm) -> None:
    store = MemoryStore()
    charge = Charge("a", QuotaPolicy("p", 9, 86_400, algorithm))

    async def run() -> None:
        await store.aacquire([charge], now=0)
        assert await store.aping()
        await store.arefund([charge], now=0, charged_at=0)
        await store.aacquire([charge], now=0)

    store.acquire([charge], now=0)
    assert store.ping()
    asyncio.run(run())
    (outcome,) = store.peek([charge], now=0)
    assert outcome.remaining == 7
    assert asyncio.run(store.apeek([charge], now=0)) == (outcome,)


class SlowlyMade(MemoryStore):
    """A store that other threads overtake while it is made."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(0.05)


def test_threads_that_ask_first_at_once_count_in_one_memory() -> None:
    named = {"STORE": f"{__name__}.SlowlyMade"}
    with override_settings(RATELIMIT_TIERS=named), ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(configured_store) for _ in range(8)]
        assert len({id(store.result()) for store in asked}) == 1
