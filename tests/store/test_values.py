"""What stands in a subject's value, how it is written over, and when its key expires."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_ratelimit_tiers.core.policies import MICROSECONDS, Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.redis import RedisStore
from tests import strategies as own
from tests.store.test_equality import Reference, Step

KEY = "rlt:{user:1}"
PLENTY = 1_000_000
RECORD = 32

POLICIES = [
    QuotaPolicy("minute", PLENTY, 60, Algorithm.TOKEN_BUCKET),
    QuotaPolicy("day", PLENTY, 86_400),
    QuotaPolicy("hour", PLENTY, 3600, Algorithm.FIXED_WINDOW),
    QuotaPolicy("log", 500, 60, Algorithm.SLIDING_WINDOW_LOG),
    QuotaPolicy("rule", PLENTY, 60),
]


@pytest.fixture
def store(shared_store: RedisStore, valkey_client: redis.Redis) -> RedisStore:
    valkey_client.config_resetstat()
    return shared_store


def charges(*names: str) -> list[Charge]:
    return [
        Charge("user:1", policy) for name in names for policy in POLICIES if policy.name == name
    ]


def ids(value: bytes) -> list[bytes]:
    return [value[at : at + 8] for at in range(4, len(value), RECORD)]


def writes(client: redis.Redis) -> tuple[int, int]:
    """Return how often values were stored anew, and how often only written over."""
    stats = client.info("commandstats")
    return tuple(
        stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("set", "setrange")
    )


@st.composite
def walks(draw: st.DrawFn) -> list[Step]:
    """Return many charges of one client: any of its counters in any order, often and after gaps."""
    now, steps = 1_700_000_000 * MICROSECONDS, []
    for _ in range(draw(st.integers(1, 30))):
        now += draw(st.sampled_from([0, 1, 999_999, MICROSECONDS]) | own.steps(60 * MICROSECONDS))
        policies = draw(st.permutations(POLICIES))[: draw(st.integers(1, 5))]
        again = draw(st.lists(st.sampled_from(policies), max_size=2))
        made = tuple(Charge("user:1", policy) for policy in [*policies, *again])
        action = draw(st.sampled_from(["acquire"] * 8 + ["peek", "refund"]))
        steps.append(Step(action, made, now))
    return steps


@given(steps=walks())
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_values_that_are_written_over_count_as_the_reference_does(
    shared_store: RedisStore, steps: Sequence[Step]
) -> None:
    shared_store.command("FLUSHALL")
    reference = Reference()
    for step in steps:
        assert step.run(shared_store) == reference.run(step)
        value = shared_store.command("GET", KEY) or b"\0" * 4
        assert len(value) % RECORD == 4
        assert len(set(ids(value))) == len(ids(value))
    assert set(ids(value)) == {counter for _, counter in reference.states}


def test_a_key_that_lasts_long_enough_is_only_written_over(
    store: RedisStore, valkey_client: redis.Redis
) -> None:
    for used in range(1, 6):
        _, of_day, _ = store.acquire(charges("minute", "day", "hour"))
        assert of_day.remaining == PLENTY - used
    assert writes(valkey_client) == (1, 4)
    store.refund(charges("day"))
    assert writes(valkey_client) == (1, 5)


@pytest.mark.parametrize(
    ("name", "needed", "longer"), [("rule", 121, 15), ("hour", 3601, 450), ("day", 172_801, 3600)]
)
def test_a_key_lives_an_eighth_longer_than_it_need_but_at_most_an_hour(
    store: RedisStore, valkey_client: redis.Redis, name: str, needed: int, longer: int
) -> None:
    store.acquire(charges(name))
    assert needed + longer - 1 <= valkey_client.ttl(KEY) <= needed + longer + 1


def test_a_key_that_would_expire_too_soon_gets_a_new_life(
    store: RedisStore, valkey_client: redis.Redis
) -> None:
    store.acquire(charges("minute", "hour"))
    value = valkey_client.get(KEY)
    valkey_client.set(KEY, struct.pack("<I", int(time.time()) + 100) + value[4:], ex=100)
    store.acquire(charges("minute"))
    assert valkey_client.ttl(KEY) <= 100
    store.acquire(charges("minute", "hour"))
    assert valkey_client.ttl(KEY) > 3600
    (expires,) = struct.unpack_from("<I", valkey_client.get(KEY))
    assert abs(expires - time.time() - valkey_client.ttl(KEY)) < 3


def test_counters_that_are_not_charged_stay_as_they_are(
    store: RedisStore, valkey_client: redis.Redis
) -> None:
    store.acquire(charges("hour", "minute", "rule", "day"))
    before = valkey_client.get(KEY)
    for names in (["minute", "day"], ["day", "minute"], ["day", "minute", "day"]):
        store.acquire(charges(*names))
    after = valkey_client.get(KEY)
    assert ids(after) == ids(before)
    hour, rule = slice(4, 4 + RECORD), slice(4 + 2 * RECORD, 4 + 3 * RECORD)
    assert (after[hour], after[rule]) == (before[hour], before[rule])
    assert store.peek(charges("day"))[0].remaining == PLENTY - 5
    assert writes(valkey_client) == (1, 3)


def test_a_counter_that_is_added_drops_what_has_expired(
    store: RedisStore, valkey_client: redis.Redis
) -> None:
    store.acquire(charges("minute", "hour"))
    value = bytearray(valkey_client.get(KEY))
    struct.pack_into("<I", value, 4 + 8, int(time.time()) - 1)
    valkey_client.set(KEY, bytes(value), keepttl=True)
    store.acquire(charges("hour", "day"))
    of = {policy.name: policy.counter_id for policy in POLICIES}
    assert ids(valkey_client.get(KEY)) == [of["hour"], of["day"]]


def test_a_refusal_and_a_look_write_nothing(store: RedisStore, valkey_client: redis.Redis) -> None:
    full = Charge("user:1", QuotaPolicy("full", 1, 3600, Algorithm.FIXED_WINDOW), cost=2)
    store.acquire(charges("minute", "day"))
    before = valkey_client.get(KEY)
    assert [o.allowed for o in store.acquire([*charges("minute", "day"), full])] == [
        True,
        True,
        False,
    ]
    store.peek(charges("minute", "rule"))
    assert valkey_client.get(KEY) == before
    assert writes(valkey_client) == (1, 0)
