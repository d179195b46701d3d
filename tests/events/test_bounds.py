"""An attack from thousands of addresses takes bounded memory, and no refusal is lost."""

from __future__ import annotations

import pytest
import redis
from django.test import RequestFactory

from django_ratelimit_tiers.policy import passages
from django_ratelimit_tiers.policy.identity import address_client
from tests.benchmarks import spoofing
from tests.benchmarks.refusals import attack
from tests.memory import counted_objects, server_bytes
from tests.servers import ValkeyProcess

CARDINALITY, SAMPLE = 2000, 1000

MOST_BYTES = 3_000_000

ADDRESSES_CACHED = 10_000
"""More than a process keeps parsed, for speed."""


@pytest.mark.django_db
def test_20_000_refusals_from_5_000_addresses_stay_within_their_bounds(
    valkey_client: redis.Redis,
) -> None:
    found = attack(20_000, 5_000, valkey_client)
    minutes = found.keys - 3  # beside them the list of minutes, the sample, and who told it
    assert found.counted == 20_000
    assert found.fields <= minutes * (CARDINALITY + 1)
    assert found.sampled == SAMPLE
    assert found.bytes_of_counts < minutes * MOST_BYTES


@pytest.mark.django_db
def test_20_000_spoofed_addresses_take_what_is_told_and_leave_nothing() -> None:
    spoofing.limit_anonymous()
    with ValkeyProcess() as server, server.client() as client:  # its peak is of no other test
        before = server_bytes(client)
        refused = spoofing.charge(range(20_000), client)
        found = spoofing.examine(20_000, refused, before, client)
    assert refused == 2_000
    assert found.exceeded() == [], spoofing.report(found)


@pytest.mark.django_db
def test_a_process_keeps_nothing_of_addresses_that_it_has_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoofing.limit_anonymous()
    monkeypatch.setattr(passages, "MOST_FARES", 10)  # what is remembered up to a bound is not kept
    with counted_objects() as kept:
        for number in range(ADDRESSES_CACHED):
            address_client(RequestFactory().get("/", REMOTE_ADDR=spoofing.address(number)))
        spoofing.visit(range(20_001, 20_101, 5))
        before = kept()
        assert spoofing.visit(range(30_001, 40_001, 5)) == 0  # 2,000 of both families
        assert kept() - before < 500
