"""Counters in Redis or Valkey.

Each call is one EVALSHA on a connection that the caller has to itself: taken from a stack of idle
ones, or opened. That spares the pool's lock, retry and metrics machinery of the client library,
which costs as much as the rest of a call, and it cannot be starved by a busy cache. No command is
ever retried: a charge that was sent may have been made. Only a server that says it does not know
the script, and so ran nothing, is sent the text.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from os import register_at_fork
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary, WeakSet

from django_redis import get_redis_connection
from redis import connection as connections
from redis.asyncio import connection as aconnections
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from django_ratelimit_tiers.core.plans import Plan, Reply
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store import protocol
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.protocol import Call, Protocol

IDLE_SECONDS = 1.0
"""A connection idle for longer is looked at before use: the server may have closed it."""

MAX_IDLE = 64
"""Connections kept open when no call needs them."""

CONNECTION_OPTIONS = frozenset(
    (
        "host",
        "port",
        "path",
        "db",
        "username",
        "password",
        "client_name",
        "credential_provider",
        "socket_keepalive",
        "socket_keepalive_options",
        "socket_type",
        "connection_pool",
    )
)
"""What is taken over from a configured pool; time-outs, retries and protocol are our own."""

ASYNC_CONNECTIONS: dict[type, type[Any]] = {
    connections.Connection: aconnections.Connection,
    connections.SSLConnection: aconnections.SSLConnection,
    connections.UnixDomainSocketConnection: aconnections.UnixDomainSocketConnection,
}


class RedisStore(Store):
    """A store on one Redis or Valkey server, named by a django-redis cache alias or a URL.

    `timeout` bounds one call in seconds, connecting included. Raises ValueError unless exactly one
    of `cache_alias` and `url` is given.
    """

    def __init__(
        self,
        *,
        cache_alias: str | None = None,
        url: str | None = None,
        timeout: float = 0.1,
        protocol: Protocol | None = None,
    ) -> None:
        self.timeout = timeout
        self.protocol = protocol or Protocol()
        if url is not None and cache_alias is None:
            pool = connections.ConnectionPool.from_url(url)
        elif cache_alias is not None and url is None:
            pool = get_redis_connection(cache_alias, write=True).connection_pool
        else:
            raise ValueError("RedisStore takes either cache_alias or url")
        self._class = pool.connection_class
        self._options = {
            key: value
            for key, value in pool.connection_kwargs.items()
            if key in CONNECTION_OPTIONS or key.startswith("ssl")
        } | {"protocol": 2, "socket_timeout": timeout, "socket_connect_timeout": timeout}
        self._idle: deque[tuple[Any, float]] = deque()
        self._aidle: WeakKeyDictionary[Any, deque[tuple[Any, float]]] = WeakKeyDictionary()
        _STORES.add(self)

    def execute(self, plan: Plan) -> Reply:
        return protocol.parse_reply(plan, self._run(self.protocol.acquire(plan)))

    async def aexecute(self, plan: Plan) -> Reply:
        return protocol.parse_reply(plan, await self._arun(self.protocol.acquire(plan)))

    def refund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        self._run(self.protocol.refund(charges, now, charged_at))

    async def arefund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        await self._arun(self.protocol.refund(charges, now, charged_at))

    def reset(self, subject: str) -> None:
        self._run(self.protocol.reset(subject))

    async def areset(self, subject: str) -> None:
        await self._arun(self.protocol.reset(subject))

    def ping(self) -> None:
        self.command("PING")

    async def aping(self) -> None:
        async with self._aconnection() as connection:
            await connection.send_command("PING")
            await connection.read_response()

    def revision(self) -> str:
        key = self.protocol.revision_key
        token = self.command("GET", key)
        if token is None:
            self.command("SET", key, uuid4().hex, "NX", "EX", protocol.REVISION_TTL)
            token = self.command("GET", key)
        return str(token, "ascii")

    def announce_policy(self) -> None:
        self.command("SET", self.protocol.revision_key, uuid4().hex, "EX", protocol.REVISION_TTL)

    def announce_subjects(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            key = self.protocol.subject_revision_key(subject)
            self.command("SET", key, uuid4().hex, "EX", protocol.SUBJECT_REVISION_TTL)

    def command(self, *words: str | bytes | int) -> Any:
        """Return the server's answer to one command; raises StoreUnavailable."""
        with self._connection() as connection:
            connection.send_command(*words)
            return connection.read_response()

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        while self._idle:
            self._idle.pop()[0].disconnect()

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        idle = self._aidle.pop(asyncio.get_running_loop(), deque())
        while idle:
            await idle.pop()[0].disconnect()

    def forget_connections(self) -> None:
        """Start a forked process without its parent's connections."""
        self._idle = deque()
        self._aidle = WeakKeyDictionary()

    def _run(self, call: Call) -> Any:
        with self._connection() as connection:
            connection.send_command(*_evalsha(call))
            try:
                return connection.read_response()
            except NoScriptError:
                connection.send_command(*_eval(call))
                return connection.read_response()

    async def _arun(self, call: Call) -> Any:
        async with self._aconnection() as connection:
            await connection.send_command(*_evalsha(call))
            try:
                return await connection.read_response()
            except NoScriptError:
                await connection.send_command(*_eval(call))
                return await connection.read_response()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = None
        try:
            connection = self._take()
            yield connection
        except (RedisError, OSError) as error:
            if connection is not None:
                connection.disconnect()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        except BaseException:
            if connection is not None:
                connection.disconnect()
            raise
        self._idle.append((connection, time.monotonic()))
        if len(self._idle) > MAX_IDLE:
            self._idle.popleft()[0].disconnect()

    def _take(self) -> Any:
        try:
            connection, since = self._idle.pop()
        except IndexError:
            connection = self._class(**self._options, retry=Retry(NoBackoff(), 0))
        else:
            if time.monotonic() - since > IDLE_SECONDS and _is_closed(connection):
                connection.disconnect()
        connection.connect()
        return connection

    @asynccontextmanager
    async def _aconnection(self) -> AsyncIterator[Any]:
        idle = self._aidle.setdefault(asyncio.get_running_loop(), deque())
        connection = None
        try:
            async with asyncio.timeout(self.timeout):
                connection = await self._atake(idle)
                yield connection
        except (RedisError, OSError) as error:
            if connection is not None:
                await connection.disconnect(nowait=True)
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        except BaseException:
            if connection is not None:
                await connection.disconnect(nowait=True)
            raise
        idle.append((connection, time.monotonic()))
        if len(idle) > MAX_IDLE:
            await idle.popleft()[0].disconnect(nowait=True)

    async def _atake(self, idle: deque[tuple[Any, float]]) -> Any:
        try:
            connection, since = idle.pop()
        except IndexError:
            options = {**self._options, "retry": AsyncRetry(NoBackoff(), 0)}
            connection = ASYNC_CONNECTIONS[self._class](**options)
        else:
            if time.monotonic() - since > IDLE_SECONDS and await _ais_closed(connection):
                await connection.disconnect(nowait=True)
        await connection.connect()
        return connection


_STORES: WeakSet[RedisStore] = WeakSet()


def _forget_connections() -> None:
    for store in list(_STORES):
        store.forget_connections()


register_at_fork(after_in_child=_forget_connections)


def _evalsha(call: Call) -> tuple[Any, ...]:
    return ("EVALSHA", call.script.digest, len(call.keys), *call.keys, *call.arguments)


def _eval(call: Call) -> tuple[Any, ...]:
    return ("EVAL", call.script.text, len(call.keys), *call.keys, *call.arguments)


def _is_closed(connection: Any) -> bool:
    """Return whether the server closed an idle connection, or left something unread on it."""
    try:
        return bool(connection.can_read(timeout=0))
    except (RedisError, OSError):
        return True


async def _ais_closed(connection: Any) -> bool:
    try:
        return bool(await connection.can_read_destructive())
    except (RedisError, OSError):
        return True
