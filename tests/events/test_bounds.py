"""An attack from thousands of addresses takes bounded memory, and no refusal is lost."""

from __future__ import annotations

import pytest
import redis

from tests.benchmarks.refusals import attack

CARDINALITY, SAMPLE = 2000, 1000

MOST_BYTES = 3_000_000


@pytest.mark.django_db
def test_20_000_refusals_from_5_000_addresses_stay_within_their_bounds(
    valkey_client: redis.Redis,
) -> None:
    found = attack(20_000, 5_000, valkey_client)
    minutes = found.keys - 2  # beside them the list of minutes, and the sample
    assert found.counted == 20_000
    assert found.fields <= minutes * (CARDINALITY + 1)
    assert found.sampled == SAMPLE
    assert found.bytes_of_counts < minutes * MOST_BYTES
