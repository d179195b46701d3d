"""The floor F: the least that any limiter of one counter does, through redis-py and hiredis."""

from __future__ import annotations

import socket
from hashlib import sha1
from urllib.parse import urlsplit

import redis
import redis.asyncio
from hiredis import Reader, pack_command

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


class BareFloor:
    """The same without a client: the two system calls of an open socket, which blocks."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._socket = socket.create_connection((where.hostname, where.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = Reader()
        Floor(url)  # loads the script

    def hit(self, subject: str) -> int:
        self._socket.sendall(pack_command(("EVALSHA", DIGEST, 1, f"floor:{subject}", WINDOW)))
        self._reader.feed(self._socket.recv(4096))
        count: int = self._reader.gets()
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
