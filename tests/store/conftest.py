from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_ratelimit_tiers.store.redis import RedisStore
from tests.servers import ValkeyProcess


@pytest.fixture(scope="module")
def shared_store(valkey: ValkeyProcess) -> Iterator[RedisStore]:
    """A store for all tests of a module, as examples of Hypothesis need one."""
    store = RedisStore(url=valkey.url, timeout=10)
    yield store
    store.close()
