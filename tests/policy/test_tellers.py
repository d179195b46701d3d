"""What a process has counted by itself reaches the store, though no request follows."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import RefusalKey
from django_ratelimit_tiers.core.tallies import Tally
from django_ratelimit_tiers.events.tallies import MOST_REFUSALS
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy import tellers
from django_ratelimit_tiers.policy.tellers import Teller
from django_ratelimit_tiers.store.memory_records import MemoryRecords
from django_ratelimit_tiers.store.redis import RedisStore
from tests.servers import PATIENT_SECONDS, ValkeyProcess

REFUSED = Outcome(Charge("ip:192.0.2.1", QuotaPolicy("minute", 1, 60)), False, 0, 1, 1)
LABEL = "minute\0free\0GET a/\0"
TOLD = ("id", 7, "GET", "192.0.2.1", "/plain/", "tester/1")


def refuse(teller: Teller) -> None:
    """Have a refusal told that was made without the store."""
    teller.count_refusal(REFUSED.charge.subject, LABEL)
    teller.sample(REFUSED, LABEL, 7, TOLD)


def key(number: int) -> RefusalKey:
    return RefusalKey(Mode.ENFORCE, "minute", "free", "GET a/", f"user:{number}")


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as own:
        yield own


@pytest.fixture
def store(server: ValkeyProcess) -> RedisStore:
    return RedisStore(url=server.url, timeout=PATIENT_SECONDS)


@pytest.fixture
def teller(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Teller]:
    monkeypatch.setattr(tellers, "FLUSH_SECONDS", 0.05)
    teller = Teller(store, MemoryRecords())
    yield teller
    teller.stop()


def counted(store: RedisStore) -> int:
    return sum(sum(store.records.counts(minute).values()) for minute in store.records.minutes())


def wait_for(store: RedisStore, count: int) -> None:
    deadline = time.monotonic() + 20
    while counted(store) != count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counted(store) == count


def test_refusals_are_told_again_and_again_by_themselves(store: RedisStore, teller: Teller) -> None:
    for number in range(1, 4):
        refuse(teller)
        wait_for(store, number)


def test_refusals_that_the_store_did_not_hear_are_told_once_it_answers(
    server: ValkeyProcess, store: RedisStore, teller: Teller
) -> None:
    server.kill()
    refuse(teller)
    time.sleep(0.5)  # it is tried meanwhile
    server.start()
    wait_for(store, 1)


def test_a_process_that_ends_tells_what_was_not_heard_and_what_came_after_it(
    server: ValkeyProcess, store: RedisStore, teller: Teller
) -> None:
    teller.stop()
    server.kill()
    refuse(teller)
    with pytest.raises(StoreUnavailable):
        teller.tell()
    server.start()
    refuse(teller)
    teller.tell_the_rest()
    assert counted(store) == 2


def test_a_process_that_ends_tells_all_where_no_thread_begins_any_more(
    store: RedisStore, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(timer: threading.Timer) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    for number in range(2 * MOST_REFUSALS + 1):
        teller._local.add(Tally(refusals={key(number): 1}))
    monkeypatch.setattr(threading.Timer, "start", start)
    teller.tell_the_rest()
    assert counted(store) == 2 * MOST_REFUSALS + 1


def test_a_forked_process_leaves_to_its_parent_what_that_has_counted(
    store: RedisStore, teller: Teller
) -> None:
    teller.stop()
    of_parent = Tally(refusals={key(1): 1})
    teller._local.add(of_parent)
    refuse(teller)
    child = os.fork()
    if not child:
        with suppress(BaseException):
            teller.tell_the_rest()
        os._exit(0)
    os.waitpid(child, 0)
    assert counted(store) == 0
    teller.tell_the_rest()
    assert counted(store) == 2
    assert len(store.records.sample()) == 1


def test_many_refusals_are_told_a_part_at_a_time(store: RedisStore, teller: Teller) -> None:
    clients = 2 * MOST_REFUSALS + 1
    for number in range(clients):
        teller._repetitions.add(f"user:{number}", LABEL)
    teller.tell()
    assert counted(store) == MOST_REFUSALS
    wait_for(store, clients)


def test_the_rest_is_told_where_two_counted_the_same_clients(
    store: RedisStore, teller: Teller
) -> None:
    few, many = MOST_REFUSALS // 2, 2 * MOST_REFUSALS
    teller._local.add(Tally(refusals={key(number): 1 for number in range(few)}))
    for number in range(many):
        teller._repetitions.add(f"user:{number}", LABEL)
    teller.tell()
    wait_for(store, few + many)


def test_what_was_counted_in_many_minutes_is_told_a_part_at_a_time() -> None:
    records = MemoryRecords()
    for minute in range(3):
        records._counts[minute * 60] = {key(number): 1 for number in range(minute, minute + 2)}
    parts = [records.take_counts(3) for _ in range(3)]
    assert [len(part) for part in parts] == [3, 3, 0]
    assert sum(count for part in parts for count in part.values()) == 6
    assert records.minutes() == []


def test_no_process_waits_at_its_end_for_the_time_to_tell(store: RedisStore) -> None:
    teller, before = Teller(store, MemoryRecords()), set(threading.enumerate())
    refuse(teller)
    [timer] = set(threading.enumerate()) - before
    teller.stop()
    assert timer.daemon


def test_one_that_was_stopped_tells_nothing_by_itself(store: RedisStore, teller: Teller) -> None:
    teller.stop()
    refuse(teller)
    time.sleep(0.3)
    assert counted(store) == 0
