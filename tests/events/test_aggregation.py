"""Closed minutes become rows, exactly once, whatever is repeated or interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
import redis
from django.db import DatabaseError, connection, transaction
from django.test import Client, override_settings

from django_ratelimit_tiers.core.alerts import Resolution
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.events import aggregation
from django_ratelimit_tiers.events.aggregation import (
    COUNT_KEY,
    LOCK,
    aggregate_throttle_events,
    count_rows,
    upsert,
)
from django_ratelimit_tiers.events.detection import detect_anomalies
from django_ratelimit_tiers.events.times import moment
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import (
    PolicyRevision,
    ServiceAccount,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import LONG_AGO, expire_locks, fill_minute, key
from tests.policies import limit_tier
from tests.servers import ValkeyProcess

pytestmark = pytest.mark.django_db


def written() -> dict[tuple[str, str, int], int]:
    return {
        (row.subject, row.mode, int(row.minute.timestamp())): row.count
        for row in ThrottleCount.objects.all()
    }


@pytest.mark.parametrize(
    "name",
    [
        str(LONG_AGO),
        "hours",
        f"usage:{LONG_AGO // 3600 * 3600}",
        f"usage:{LONG_AGO // 3600 * 3600}:limits",
        "sample",
        "sample:taken",
        "accounts",
    ],
)
def test_what_another_program_has_put_among_the_records_holds_up_nothing(
    valkey_client: redis.Redis, name: str
) -> None:
    hour = LONG_AGO // 3600 * 3600
    fill_minute(LONG_AGO, {key(): 3})
    fill_minute(LONG_AGO + 60, {key(): 5})
    valkey_client.zadd("rlt:counts:hours", {str(hour): hour})
    valkey_client.set(f"rlt:counts:{name}", "not ours")
    aggregate_throttle_events()
    detect_anomalies()
    assert sum(written().values()) == (5 if name == str(LONG_AGO) else 8)
    assert not valkey_client.exists(f"rlt:counts:{name}", "rlt:counts:sample")


def test_a_server_that_is_full_is_written_and_judged_and_has_room_again() -> None:
    """With `noeviction`, and nobody ran the tasks for a while."""
    with ValkeyProcess() as server, server.client() as client:
        options = {"url": server.url, "timeout": 5}
        with override_settings(
            RATELIMIT_TIERS={
                "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
                "STORE_OPTIONS": options,
            }
        ):
            for minute in range(3):
                at = LONG_AGO + 60 * minute
                fill_minute(at, {key(f"user:{n}", "p" * 150): 1 for n in range(1000)})
            client.config_set("maxmemory", client.info("memory")["used_memory"] - 200_000)
            with pytest.raises(StoreUnavailable, match="OutOfMemory"):
                configured_store().announce_policy()
            records = configured_store().records
            with records.lock("aggregate", 60) as mine, records.lock("aggregate", 60) as other:
                assert (mine is None, other) == (False, None)
            assert aggregate_throttle_events() == 3000
            detect_anomalies()
            configured_store().announce_policy()
    assert sum(written().values()) == 3000


def test_every_field_of_a_closed_minute_becomes_a_row() -> None:
    fill_minute(LONG_AGO, {key("user:1"): 3, key("user:1", mode="shadow"): 1, key("ip:::1"): 2})
    assert aggregate_throttle_events() == 6
    assert written() == {
        ("user:1", "enforce", LONG_AGO): 3,
        ("user:1", "shadow", LONG_AGO): 1,
        ("ip:::1", "enforce", LONG_AGO): 2,
    }
    row = ThrottleCount.objects.get(subject="ip:::1")
    assert (row.policy, row.tier, row.endpoint) == ("free-minute", "free", "GET api")
    assert row.resolution == "minute"


def test_a_minute_of_many_subjects_is_read_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill_minute(LONG_AGO, {key(f"user:{number}"): 1 for number in range(5_000)})
    lengths = lengths_of_answers(monkeypatch)
    assert aggregate_throttle_events() == 5_000
    assert ThrottleCount.objects.count() == 5_000
    assert max(lengths) < 2 * 2_000


def test_a_minute_that_is_forgotten_while_it_is_read_is_not_written_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill_minute(LONG_AGO, {key(f"user:{number}"): 1 for number in range(5_000)})
    records: Any = configured_store().records
    lengths_of_answers(monkeypatch, then=lambda: records.forget_minute(LONG_AGO))
    assert records.counts(LONG_AGO) == {}


def lengths_of_answers(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None
) -> list[int]:
    """Note how long the store's answers are; `then` follows the first part of a hash."""
    records: Any = configured_store().records
    usual, lengths = records._command, [0]

    def noted(*words: Any) -> Any:
        answer = usual(*words)
        if words[0] in {"HSCAN", "HGETALL"}:
            lengths.append(len(answer[-1] if words[0] == "HSCAN" else answer))
            if len(lengths) == 2:
                then()
        return answer

    monkeypatch.setattr(records, "_command", noted)
    return lengths


def test_a_minute_that_is_not_over_is_left_alone() -> None:
    now = LONG_AGO + 64
    fill_minute(LONG_AGO, {key(): 3})
    assert aggregate_throttle_events(now=now) == 0
    assert aggregate_throttle_events(now=now + 1) == 3


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_that_may_be_rolled_back_nothing_is_written_or_forgotten() -> None:
    fill_minute(LONG_AGO, {key(): 3})
    with transaction.atomic(), pytest.raises(RuntimeError):
        aggregate_throttle_events()
    assert configured_store().records.minutes() == [LONG_AGO]
    assert aggregate_throttle_events() == 3


def test_again_changes_nothing() -> None:
    for _ in range(2):
        fill_minute(LONG_AGO, {key(): 3})
        aggregate_throttle_events()
    assert written() == {("user:1", "enforce", LONG_AGO): 3}


def test_what_was_written_is_forgotten_by_the_store(valkey_client: redis.Redis) -> None:
    fill_minute(LONG_AGO, {key(): 3})
    aggregate_throttle_events()
    assert configured_store().records.minutes() == []
    assert not valkey_client.exists(f"rlt:counts:{LONG_AGO}")


def test_nothing_is_forgotten_that_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_minute(LONG_AGO, {key(): 3})

    def fail(*_: object) -> None:
        raise DatabaseError("the database is full")

    with monkeypatch.context() as patch:
        patch.setattr(aggregation, "upsert", fail)
        with pytest.raises(DatabaseError):
            aggregate_throttle_events()
    assert aggregate_throttle_events() == 3
    assert sum(written().values()) == 3


def test_one_holder_runs_at_a_time() -> None:
    fill_minute(LONG_AGO, {key(): 3})
    records = configured_store().records
    with records.lock(LOCK, 30):
        assert aggregate_throttle_events() == 0
    assert aggregate_throttle_events() == 3


def test_who_has_lost_the_lock_leaves_the_other_minutes_to_its_next_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for minute in (LONG_AGO, LONG_AGO + 60):
        fill_minute(minute, {key(): 3})

    def write_slowly(*arguments: Any) -> None:
        upsert(*arguments)
        expire_locks()

    monkeypatch.setattr(aggregation, "upsert", write_slowly)
    assert aggregate_throttle_events() == 3
    assert configured_store().records.minutes() == [LONG_AGO + 60]


def test_who_has_lost_the_lock_leaves_the_other_hours_to_its_next_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records: Any = configured_store().records
    records.add(Tally({"user:1": Usage(5, 2, 100)}))
    hour = records.hours()[-1]
    records._command("ZADD", f"{records._base}:hours", hour - 3600, hour - 3600)

    def write_slowly(*arguments: Any) -> None:
        upsert(*arguments)
        expire_locks()

    monkeypatch.setattr(aggregation, "upsert", write_slowly)
    aggregate_throttle_events(now=hour + 3605)
    assert records.hours() == [hour]


def test_rows_are_written_in_the_order_of_their_keys() -> None:
    """Otherwise two at once could be a deadlock."""
    counts = [(key(f"user:{number}"), 1) for number in (3, 1, 2)]
    rows = count_rows(counts, moment(LONG_AGO), Resolution.MINUTE)
    upsert(ThrottleCount, rows, COUNT_KEY, ["count"])
    subjects = ThrottleCount.objects.order_by("pk").values_list("subject", flat=True)
    assert list(subjects) == ["user:1", "user:2", "user:3"]


def test_keys_that_are_alike_once_cut_to_their_columns_are_added_up() -> None:
    one, other = "GET " + "x" * 300 + "1", "GET " + "x" * 300 + "2"
    fill_minute(LONG_AGO, {key(endpoint=one): 3, key(endpoint=other): 4})
    aggregate_throttle_events()
    assert [row.count for row in ThrottleCount.objects.all()] == [7]


ALMOST_ALIKE = ["GET /a", "GET /A", "GET /á", "GET /a ", "GET /𝐚", "GET /ss", "GET /ß"]


def test_keys_that_differ_in_one_character_are_counted_apart() -> None:
    counts = {key(endpoint=endpoint): 2**n for n, endpoint in enumerate(ALMOST_ALIKE)}
    counts |= {key(f"user:{name}"): 1000 + n for n, name in enumerate(["a", "A", "ä", "a "])}
    for _ in range(2):
        fill_minute(LONG_AGO, counts)
        aggregate_throttle_events()
    rows = {(row.endpoint, row.subject): row.count for row in ThrottleCount.objects.all()}
    assert rows == {(key.endpoint, key.subject): count for key, count in counts.items()}
    assert ThrottleCount.objects.filter(endpoint="GET /a").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_once_may_bring_the_same_rows_in_different_orders() -> None:
    counts = [(key(f"user:{number}"), number) for number in range(400)]
    both_ready = Barrier(2)

    def write(order: int) -> None:
        with closing(connection):
            for _ in range(10):
                rows = count_rows(counts[::order], moment(LONG_AGO), Resolution.MINUTE)
                both_ready.wait(30)
                with transaction.atomic():
                    upsert(ThrottleCount, rows, COUNT_KEY, ["count"])

    with ThreadPoolExecutor(2) as pool:
        for writer in [pool.submit(write, order) for order in (1, -1)]:
            writer.result()
    assert ThrottleCount.objects.count() == len(counts)


def test_the_sample_is_kept_in_detail_and_once(client: Client) -> None:
    limit_tier("anonymous", 1)
    client.get("/plain/")
    told = [client.get("/plain/").headers["X-RateLimit-Decision"] for _ in range(3)]
    limiter().teller.tell()
    aggregate_throttle_events()
    aggregate_throttle_events()
    events = ThrottleEvent.objects.all()
    assert {event.decision_id for event in events} == set(told)
    event = events[0]
    assert (event.method, event.path, event.address) == ("GET", "/plain/", "127.0.0.1")
    assert abs(event.at - datetime.now(UTC)) < timedelta(minutes=2)
    assert event.retry_after > 3600
    assert event.revision == PolicyRevision.objects.latest("pk").pk


def test_the_wait_in_the_sample_is_the_one_that_the_client_was_told(client: Client) -> None:
    limit_tier("anonymous", 1)
    client.get("/plain/")
    told = client.get("/plain/").headers
    limiter().teller.tell()
    aggregate_throttle_events()
    event = ThrottleEvent.objects.get(decision_id=told["X-RateLimit-Decision"])
    assert event.retry_after == int(told["Retry-After"])


def test_the_sample_is_written_in_the_order_of_its_keys(client: Client) -> None:
    """Otherwise two at once could be a deadlock, as with counts."""
    limit_tier("anonymous", 1)
    for _ in range(9):
        client.get("/plain/")
    limiter().teller.tell()
    aggregate_throttle_events()
    ids = list(ThrottleEvent.objects.order_by("pk").values_list("decision_id", flat=True))
    assert len(ids) == 8
    assert ids == sorted(ids)


def test_hours_that_are_over_become_usage() -> None:
    records = configured_store().records
    records.add(Tally({"user:1": Usage(5, 2, 100)}))
    hour = records.hours()[-1]
    aggregate_throttle_events(now=hour + 3600)
    assert not UsageCount.objects.exists()
    for _ in range(2):
        aggregate_throttle_events(now=hour + 3605)
    [row] = UsageCount.objects.all()
    assert (row.subject, row.allowed, row.refused, row.hourly_limit) == ("user:1", 5, 2, 100)
    assert row.hour == moment(hour)


def test_the_usage_of_subjects_that_differ_in_case_is_kept_apart() -> None:
    records = configured_store().records
    records.add(Tally({"user:a": Usage(5, 2, 100), "user:A": Usage(1, 0, 100)}))
    aggregate_throttle_events(now=records.hours()[-1] + 3605)
    assert {row.subject: row.allowed for row in UsageCount.objects.all()} == {
        "user:a": 5,
        "user:A": 1,
    }


def test_the_usage_of_subjects_that_are_alike_once_cut_to_their_column_is_added_up() -> None:
    records = configured_store().records
    one, other = "user:" + "x" * 300 + "1", "user:" + "x" * 300 + "2"
    records.add(Tally({one: Usage(5, 2, 100), other: Usage(40, 30, 100)}))
    aggregate_throttle_events(now=records.hours()[-1] + 3605)
    [row] = UsageCount.objects.all()
    assert (row.allowed, row.refused, row.hourly_limit) == (45, 32, 100)


def test_the_use_of_a_service_account_is_dated_without_an_edit_of_the_policy() -> None:
    account = ServiceAccount.objects.create(
        name="monitor", owner="ops", reason="health checks", networks="127.0.0.1"
    )
    revisions = PolicyRevision.objects.count()
    configured_store().records.add(Tally({f"account:{account.pk}": Usage(1, 0)}))
    aggregate_throttle_events()
    account.refresh_from_db()
    assert account.last_used_at is not None
    assert abs(account.last_used_at.timestamp() - time.time()) < 60
    assert PolicyRevision.objects.count() == revisions


def test_the_last_use_of_a_service_account_is_never_put_back() -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    account = ServiceAccount.objects.create(
        name="monitor", owner="ops", reason="checks", networks="127.0.0.1", last_used_at=later
    )
    configured_store().records.add(Tally({f"account:{account.pk}": Usage(1, 0)}))
    aggregate_throttle_events()
    account.refresh_from_db()
    assert account.last_used_at == later
