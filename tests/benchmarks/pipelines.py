"""The store's own calls, sent many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from django_ratelimit_tiers.store.scripts import Call


def answers(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """Return what a server that knows the scripts answers to these calls."""
    connection = redis.Connection(**client.connection_pool.connection_kwargs)
    try:
        connection.send_packed_command([call.evalsha for call in calls])
        return [connection.read_response() for _ in calls]
    finally:
        connection.disconnect()
