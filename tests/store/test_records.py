"""Refusals and usage are kept alike, and within bounds, in memory and on a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import (
    OTHERS,
    RefusalKey,
    SampledRefusal,
    parse_sample,
    written_sample,
)
from django_ratelimit_tiers.core.sightings import Sighting
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.store import memory_records
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords
from django_ratelimit_tiers.store.protocol import Protocol
from django_ratelimit_tiers.store.records import BUSIEST, MOST_SEEN, closed
from django_ratelimit_tiers.store.redis import RedisStore
from django_ratelimit_tiers.store.server_records import PAGE
from tests.servers import PATIENT_SECONDS, ValkeyProcess

CARDINALITY, SAMPLE = 5, 4

ONE = QuotaPolicy("one", 1, 3600)


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, valkey: ValkeyProcess) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore(records=MemoryRecords(cardinality=CARDINALITY, sample=SAMPLE))
        return
    protocol = Protocol(cardinality=CARDINALITY, sample=SAMPLE)
    redis_store = RedisStore(url=valkey.url, timeout=10, protocol=protocol)
    yield redis_store
    redis_store.close()


def ask(store: Store, subject: str, *policies: QuotaPolicy, spend: bool = True) -> None:
    charges = tuple(Charge(subject, policy) for policy in policies or (ONE,))
    labels = tuple(f"{charge.policy.name}\0free\0GET api\0rule" for charge in charges)
    store.execute(Plan(charges, labels=labels, spend=spend))


def all_counts(store: Store) -> dict[RefusalKey, int]:
    total: dict[RefusalKey, int] = {}
    for minute in store.records.minutes():
        for key, count in store.records.counts(minute).items():
            total[key] = total.get(key, 0) + count
    return total


def test_a_refusal_is_counted_under_what_refused_it(store: Store) -> None:
    for _ in range(3):
        ask(store, "user:1")
    key = RefusalKey(Mode.ENFORCE, "one", "free", "GET api", "user:1")
    assert all_counts(store) == {key: 2}


def test_a_request_that_two_policies_refuse_is_counted_once_under_the_longer_wait(
    store: Store,
) -> None:
    # A log waits a whole day: calendar windows of an hour and a day end together at midnight.
    day = QuotaPolicy("day", 1, 86_400, Algorithm.SLIDING_WINDOW_LOG, counter="day")
    for _ in range(2):
        ask(store, "user:1", ONE, day)
    assert [(key.policy, count) for key, count in all_counts(store).items()] == [("day", 1)]


def test_shadow_refusals_are_counted_apart(store: Store) -> None:
    shadow = QuotaPolicy("tried", 1, 3600, mode=Mode.SHADOW, counter="s")
    wide = QuotaPolicy("wide", 100, 3600, counter="w")
    for _ in range(2):
        ask(store, "user:1", shadow, wide)
    assert [(key.mode, key.policy) for key in all_counts(store)] == [(Mode.SHADOW, "tried")]


def test_looking_counts_nothing(store: Store) -> None:
    ask(store, "user:1")
    ask(store, "user:1", spend=False)
    assert all_counts(store) == {}


def test_past_the_most_fields_the_total_stays_exact(store: Store) -> None:
    for number in range(20):
        ask(store, f"user:{number}")
        ask(store, f"user:{number}")
    counts = all_counts(store)
    assert sum(counts.values()) == 20
    # two minutes, if one ended meanwhile, and in each the field that stands for all others
    assert len(counts) <= 2 * (CARDINALITY + 1)
    assert any(key.subject == "*" for key in counts)


@pytest.mark.parametrize("place", [0, 1, 9])
@pytest.mark.parametrize("written", ["", "x", "-1"])
def test_what_none_of_ours_wrote_is_no_sampled_refusal(place: int, written: str) -> None:
    parts = written_sample(sampled(1)).split("\0")
    assert parse_sample("\0".join(parts)) is not None
    parts[place] = written
    assert parse_sample("\0".join(parts)) is None


def test_a_sample_is_returned_again_until_it_is_forgotten(store: Store) -> None:
    store.records.add(Tally(sample=[sampled(1)]))
    first = store.records.sample()
    store.records.add(Tally(sample=[sampled(2)]))
    assert store.records.sample() == first == [sampled(1)]
    store.records.forget_sample()
    assert store.records.sample() == [sampled(2)]


def test_a_forgotten_minute_is_gone(store: Store) -> None:
    ask(store, "user:1")
    ask(store, "user:1")
    for minute in store.records.minutes():
        store.records.forget_minute(minute)
    assert store.records.minutes() == []
    assert all_counts(store) == {}


def test_only_minutes_that_are_surely_over_are_closed() -> None:
    assert closed([60, 120, 180], 60, 185) == [60, 120]
    assert closed([60, 120, 180], 60, 184) == [60]


def test_usage_adds_up(store: Store) -> None:
    store.records.add(Tally({"user:1": Usage(3, 1, 100), "account:7": Usage(2, 0)}))
    store.records.add(Tally({"user:1": Usage(1, 1)}))
    [hour] = store.records.hours()[-1:]
    usage = store.records.usage(hour)
    assert usage["user:1"] == Usage(4, 2, 100)
    assert usage["account:7"] == Usage(2, 0)
    assert list(store.records.accounts_used()) == ["7"]
    store.records.forget_hour(hour)
    assert store.records.usage(hour) == {}


def test_a_tally_that_two_threads_tell_at_once_counts_once(store: Store) -> None:
    key = RefusalKey(Mode.ENFORCE, "one", "free", "GET api", "user:1")
    first = Tally({"user:1": Usage(3, 1)}, refusals={key: 2}, number=1)
    later = Tally({"user:1": Usage(1, 0)}, teller=first.teller, number=2)
    for tally in (first, first, later, first):
        store.records.add(tally)
    assert store.records.usage(store.records.hours()[-1]) == {"user:1": Usage(4, 1)}
    assert all_counts(store) == {key: 2}


def test_usage_is_kept_by_the_hour(store: Store) -> None:
    now = store.records.now()
    store.records.add(Tally({"user:1": Usage(1, 0)}))
    [hour] = store.records.hours()
    assert hour % 3600 == 0
    assert 0 <= hour - now // 3600 * 3600 <= 3600  # the next one may have begun


def test_the_busiest_subjects_are_kept_and_never_counted_too_low(store: Store) -> None:
    store.records.add(Tally({"user:busy": Usage(500, 0)}))
    for part in range(3):
        one_each = {f"ip:{part}-{n}": Usage(1, 0) for n in range(BUSIEST)}
        store.records.add(Tally(one_each))
    usage = store.records.usage(store.records.hours()[-1])
    assert len(usage) == BUSIEST
    assert usage["user:busy"].allowed >= 500


def test_sightings_are_a_bounded_sample(store: Store) -> None:
    seen = [("user:1", f"198.51.100.{n}") for n in range(3)]
    store.records.add(Tally(sightings=seen))
    now = store.records.now()
    found = store.records.sightings(now - 3600, now + 600)
    assert set(found) == {Sighting(*pair) for pair in seen}
    many = [("user:2", f"2001:db8:{n:x}::/64") for n in range(2 * MOST_SEEN)]
    store.records.add(Tally(sightings=many))
    assert len(store.records.sightings(now - 3600, now + 600)) <= 2 * MOST_SEEN


def test_subjects_are_read_as_texts_that_every_database_takes(store: Store) -> None:
    store.records.add(Tally({"user:a\0b": Usage(1, 0)}, sightings=[("user:a\0b", "192.0.2.1")]))
    now = store.records.now()
    assert list(store.records.usage(store.records.hours()[-1])) == ["user:a\ufffdb"]
    seen = store.records.sightings(now - 3600, now + 600)
    assert list(seen) == [Sighting("user:a\ufffdb", "192.0.2.1")]


@pytest.mark.parametrize(
    ("used", "limit", "window"), [(9, 10, 2880), (99, 100, 1440), (8, 10, 1440)], ids=str
)
def test_what_is_known_of_a_quota_gives_way_to_news_alone(
    store: Store, used: int, limit: int, window: int
) -> None:
    known = DayQuota("user:1", "free-day", 10, 10, 1440)
    told = DayQuota("user:1", "free-day", limit, used, window)
    store.records.add(Tally(quotas=[known]))
    store.records.add(Tally(quotas=[told]))
    is_news = (used, limit, window) != (8, 10, 1440)
    assert list(store.records.quotas()) == [told if is_news else known]


def test_an_older_window_of_a_quota_is_no_news(store: Store) -> None:
    newer, older = (DayQuota("user:1", "free-day", 10, n, n * 1440) for n in (2, 1))
    store.records.add(Tally(quotas=[newer]))
    store.records.add(Tally(quotas=[older]))
    assert list(store.records.quotas()) == [newer]


def test_quotas_that_run_short_are_kept_until_forgotten(store: Store) -> None:
    quota = DayQuota("user:1", "free-day", 100, 81, 1440)
    store.records.add(Tally(quotas=[quota]))
    assert list(store.records.quotas()) == [quota]
    store.records.forget_quotas([quota])
    assert list(store.records.quotas()) == []


def test_a_quota_that_is_kept_is_brought_up_to_date_when_there_is_room_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_records, "MOST_QUOTAS", 1)
    records = MemoryRecords()
    for subject, spent in (("user:1", 81), ("user:1", 90), ("user:2", 90)):
        records.add(Tally(quotas=[DayQuota(subject, "free-day", 100, spent, 1440)]))
    assert list(records.quotas()) == [DayQuota("user:1", "free-day", 100, 90, 1440)]


def test_refusals_counted_elsewhere_are_added_to_the_present_minute(store: Store) -> None:
    key = RefusalKey(Mode.ENFORCE, "one", "free", "GET api", "user:1")
    store.records.add(Tally(refusals={key: 3}))
    store.records.add(Tally(refusals={key: 2}))
    assert sum(all_counts(store).values()) == 5


def test_while_too_many_minutes_wait_refusals_told_are_not_counted_by_subject(
    valkey: ValkeyProcess,
) -> None:
    store = RedisStore(url=valkey.url, timeout=PATIENT_SECONDS)
    with valkey.client() as client:
        now = store.records.now()
        waiting = {str(minute): minute for minute in range(now - 7200, now - 3000, 60)}
        client.zadd("rlt:counts:minutes", waiting)
    keys = [RefusalKey(Mode.ENFORCE, "one", "free", "GET api", f"user:{n}") for n in range(9)]
    store.records.add(Tally(refusals=dict.fromkeys(keys, 2)))
    assert {key.subject: n for key, n in all_counts(store).items()} == {OTHERS: 18}


@pytest.mark.parametrize("command", [("SET", "x"), ("SADD", "x"), ("RPUSH", "x"), ("HSET", "x", 1)])
@pytest.mark.parametrize("name", ["minute", "minutes"])
def test_what_another_program_has_put_in_the_place_of_counts_gives_way_to_a_refusal(
    valkey: ValkeyProcess, name: str, command: tuple[str | int, ...]
) -> None:
    store = RedisStore(url=valkey.url, timeout=PATIENT_SECONDS)
    now = store.records.now()
    minutes = [str(now - now % 60 + later) for later in (0, 60)]  # one may end meanwhile
    with valkey.client() as client:
        for key in minutes if name == "minute" else [name]:
            client.execute_command(command[0], f"rlt:counts:{key}", *command[1:])
    for _ in range(3):
        ask(store, "user:1")
    key = RefusalKey(Mode.ENFORCE, "one", "free", "GET api", "user:1")
    assert all_counts(store) == {key: 2}
    store.close()


@pytest.mark.parametrize("command", [("SET", "x"), ("SADD", "x"), ("RPUSH", "x"), ("HSET", "x", 1)])
def test_what_another_program_has_put_in_the_place_of_the_sample_gives_way(
    valkey: ValkeyProcess, command: tuple[str | int, ...]
) -> None:
    store = RedisStore(url=valkey.url, timeout=PATIENT_SECONDS)
    with valkey.client() as client:
        client.execute_command(command[0], "rlt:counts:sample", *command[1:])
    store.records.add(Tally(sample=[sampled(1)]))
    assert store.records.sample() == [sampled(1)]
    store.close()


def test_a_minute_is_listed_again_once_another_program_has_written_over_the_list(
    valkey: ValkeyProcess,
) -> None:
    store = RedisStore(url=valkey.url, timeout=PATIENT_SECONDS)
    ask(store, "user:1")
    ask(store, "user:1")
    with valkey.client() as client:
        client.set("rlt:counts:minutes", "not ours")
    ask(store, "user:2")
    ask(store, "user:2")
    assert "user:2" in {key.subject for key in all_counts(store)}
    store.close()


def test_a_long_sample_is_read_a_page_at_a_time(valkey: ValkeyProcess) -> None:
    told = [sampled(number) for number in range(2 * PAGE + 1)]
    store = RedisStore(url=valkey.url, timeout=PATIENT_SECONDS)
    store.records.add(Tally(sample=told))
    with valkey.client() as client:
        client.config_resetstat()
        assert sorted(store.records.sample(), key=lambda refusal: refusal.at) == told
        assert client.info("commandstats")["cmdstat_lrange"]["calls"] == 3


def sampled(number: int, path: str = "/a") -> SampledRefusal:
    key = RefusalKey(Mode.ENFORCE, "one", "free", "GET api", f"user:{number}")
    times = {"at": 1_700_000_000_000_000 + number, "retry_after": 5}
    request = {"method": "GET", "address": "192.0.2.7", "path": path, "user_agent": "agent"}
    return SampledRefusal(
        key=key, rule="rule", decision_id=f"id{number}", revision=7, **times, **request
    )


def test_refusals_join_the_sample_and_the_newest_stay(store: Store) -> None:
    for number in range(3):
        store.records.add(Tally(sample=[sampled(number)]))
    told = [sampled(number) for number in range(3)]
    assert sorted(store.records.sample(), key=lambda refusal: refusal.at) == told
    store.records.forget_sample()
    told = [sampled(number) for number in range(10)]
    store.records.add(Tally(sample=told))
    sample = store.records.sample()
    assert sorted(sample, key=lambda refusal: refusal.at) == told[-SAMPLE:]


def test_any_text_of_a_sampled_refusal_can_be_told(store: Store) -> None:
    told = sampled(1, path='/\N{SNOWMAN}\N{PILE OF POO}\ufffd"\\]' + "x" * 480)
    store.records.add(Tally(sample=[told]))
    assert store.records.sample() == [told]


def test_without_a_sample_none_is_kept(valkey: ValkeyProcess) -> None:
    server = RedisStore(url=valkey.url, timeout=10, protocol=Protocol(sample=0))
    for store in (MemoryStore(records=MemoryRecords(sample=0)), server):
        store.records.add(Tally(sample=[sampled(1)]))
        assert store.records.sample() == []
    server.close()


def test_a_lock_has_one_holder_who_alone_can_give_it_back(store: Store) -> None:
    with store.records.lock("job", 30) as held:
        assert held
        assert held.renew()
        with store.records.lock("job", 30) as held_twice:
            assert held_twice is None
        store.records.give_lock("job", "not the token")
        assert store.records.take_lock("job", 30) is None
    token = store.records.take_lock("job", 30)
    assert token is not None
    assert not store.records.renew_lock("job", "not the token", 30)
