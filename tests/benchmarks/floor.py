"""The floor F: the least that any limiter of one counter does, through redis-py and hiredis."""

from __future__ import annotations

from hashlib import sha1

import redis
import redis.asyncio

SCRIPT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count
"""
DIGEST = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
WINDOW = 60_000
"""Milliseconds."""


class Floor:
    """One EVALSHA of INCR and PEXPIRE on a client's pool."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._client.script_load(SCRIPT)

    def hit(self, subject: str) -> int:
        count: int = self._client.evalsha(DIGEST, 1, f"floor:{subject}", WINDOW)
        return count


class AsyncFloor:
    """The same on an event loop; the script must have been loaded."""

    def __init__(self, url: str) -> None:
        # The usual pool raises when more than its hundred connections are asked for.
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=64, timeout=60)
        self._client = redis.asyncio.Redis(connection_pool=pool)

    async def hit(self, subject: str) -> int:
        count: int = await self._client.evalsha(DIGEST, 1, f"floor:{subject}", WINDOW)
        return count

    async def close(self) -> None:
        await self._client.aclose()
