"""Connections to a server, held by one caller at a time, on which every wait ends at a deadline.

The client library gives each step of a call its own time-out: resolving, connecting, every piece
of a reply. Here one deadline bounds them all. A connection is taken from a stack of idle ones, or
opened: nobody waits for somebody else's, and there is no pool that could be exhausted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from os import register_at_fork
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from redis import connection as connections
from redis.asyncio import connection as aconnections
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.deadlines import OVER, Bounded, Command, connecting
from django_ratelimit_tiers.store.dialogues import Asked
from django_ratelimit_tiers.store.encryption import AsyncTlsConnection, TlsConnection, context_of
from django_ratelimit_tiers.store.loops import LoopConnections, Until, others_first

IDLE_SECONDS = 1.0
"""A connection that was not used for longer is looked at: the server may have closed it."""

MAX_IDLE = 64
"""Connections kept open for threads when no call needs them."""

TAKEN_OVER = frozenset(
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
    )
)
"""What is taken over from a configured pool; time-outs, retries and protocol are our own."""


class Locator(Protocol):
    """Knows the host and port of a server that may move."""

    def locate(self, deadline: float) -> dict[str, Any]: ...

    async def alocate(self, deadline: float) -> dict[str, Any]: ...

    def doubt(self) -> None: ...


class Commanded(Protocol):
    """What takes commands and answers them by a deadline."""

    def run(self, command: Command, deadline: float) -> Any: ...

    async def arun(self, command: Command, deadline: float) -> Any: ...

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


class Server:
    """One server, reached as a pool of the client library is configured to reach it.

    `locator` is asked for the address before each connection is opened. Raises StoreUnavailable, or
    ResponseError where the server answers with an error. A command is never sent twice.
    """

    def __init__(self, pool: Any, locator: Locator | None = None, **address: Any) -> None:
        base = next(base for base in KINDS if issubclass(pool.connection_class, base))
        self._class, self._aclass = KINDS[base]
        self._options = {
            key: value
            for key, value in pool.connection_kwargs.items()
            if key in TAKEN_OVER or key.startswith("ssl")
        } | {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": None, **address}
        if base is connections.SSLConnection:
            self._options["context"] = context_of(pool)
        self._locator = locator
        self._idle: deque[Any] = deque()
        self._aidle: WeakKeyDictionary[Any, LoopConnections] = WeakKeyDictionary()
        self._distrusted = 0.0  # connections used last before then may lead nowhere
        _SERVERS.add(self)

    def run(self, command: Command, deadline: float, *before: Command) -> Any:
        """Return the answer to a command; `before` are commands that must come before it."""
        connection = None
        try:
            connection = self._take(deadline)
            for other in before:
                connection.ask(other)
            answer = connection.ask(command)
        except ResponseError as error:
            if connection is not None:
                self._give_back(connection)
            if isinstance(error, ReadOnlyError):
                self._distrust()
            raise
        except BaseException as error:
            if connection is not None:
                connection.disconnect()
            if not isinstance(error, RedisError | OSError):  # whoever gave up blames no server
                raise
            self._distrust()
            self.close()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        self._give_back(connection)
        return answer

    async def arun(self, command: Command, deadline: float, *before: Command) -> Any:
        """Return the answer to a command; `before` are commands that must come before it."""
        loop = asyncio.get_running_loop()
        of_loop = self._aidle.get(loop) or await self._begin_on(loop)
        begin = time.monotonic()
        async with of_loop.turns:
            if self._distrusted > begin:
                raise StoreUnavailable("the server failed while this call waited for its turn")
            deadline += time.monotonic() - begin
            return await self._aexchange(of_loop, deadline, command, before)

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        with suppress(IndexError):  # other threads take from them, too
            while self._idle:
                self._idle.pop().disconnect()

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        of_loop = self._aidle.get(asyncio.get_running_loop())
        if of_loop is not None:
            await of_loop.close()

    def forget_connections(self) -> None:
        """Start a forked process without its parent's connections."""
        self._idle = deque()
        _OF_PARENTS.extend(self._aidle.items())
        self._aidle = WeakKeyDictionary()

    async def _aexchange(
        self, of_loop: LoopConnections, deadline: float, command: Command, before: Iterable[Command]
    ) -> Any:
        connection = None
        try:
            connection = await self._areuse(of_loop)
            if connection is None:
                deadline += await others_first()
                connection = await self._aopen(deadline)
            for other in before:
                await connection.ask(other, deadline)
            answer = await connection.ask(command, deadline)
        except ResponseError as error:
            if connection is not None:
                of_loop.idle.append(connection)  # never more than MOST_AT_ONCE: it had a turn
            if isinstance(error, ReadOnlyError):
                self._distrust()
            raise
        except BaseException as error:
            if connection is not None:
                await connection.drop()
            if not isinstance(error, RedisError | OSError):  # whoever gave up blames no server
                raise
            self._distrust()
            await of_loop.drop()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        of_loop.idle.append(connection)  # never more than MOST_AT_ONCE: it had a turn
        return answer

    def _distrust(self) -> None:
        self._distrusted = time.monotonic()
        if self._locator is not None:
            self._locator.doubt()

    def _take(self, deadline: float) -> Any:
        now = time.monotonic()
        if now >= deadline:
            raise TimeoutError(OVER)
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            since, connection.since = connection.since, now
            fresh = now - since <= IDLE_SECONDS
            if since > self._distrusted and (fresh or not connection.is_readable()):
                connection.deadline = deadline
                return connection
            connection.disconnect()
        address = self._locator.locate(deadline) if self._locator else {}
        with connecting():
            connection = self._class(**self._options | address, retry=Retry(NoBackoff(), 0))
            connection.since, connection.deadline = now, deadline
            try:
                connection.open()
            except BaseException:
                connection.disconnect()
                raise
        return connection

    def _give_back(self, connection: Any) -> None:
        self._idle.append(connection)
        if len(self._idle) > MAX_IDLE:
            self._idle.popleft().disconnect()

    async def _areuse(self, of_loop: LoopConnections) -> Any:
        now = time.monotonic()
        while of_loop.idle:
            connection = of_loop.idle.pop()
            since, connection.since = connection.since, now
            fresh = now - since <= IDLE_SECONDS
            if since > self._distrusted and (fresh or not connection.is_readable()):
                return connection
            await connection.drop()
        return None

    async def _aopen(self, deadline: float) -> Any:
        now = time.monotonic()
        async with Until(deadline):
            address = await self._locator.alocate(deadline) if self._locator else {}
            options = self._options | address
            with connecting():
                connection = self._aclass(**options, retry=AsyncRetry(NoBackoff(), 0))
                connection.since = now
                try:
                    await connection.open()
                except BaseException:
                    await connection.drop()
                    raise
            return connection

    async def _begin_on(self, loop: Any) -> LoopConnections:
        for other in filter(None, (known() for known in self._aidle.keyrefs())):
            if other.is_closed():  # its generators were not: nobody took it out
                self._aidle.pop(other, None)
        of_loop = self._aidle[loop] = LoopConnections()
        await of_loop.close_with(loop, self._aidle)
        return of_loop


def in_turn(servers: Sequence[Server], deadline: float) -> Iterator[tuple[Server, float]]:
    """Yield servers one by one, each with the end of its share of the time that is left."""
    for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
        now = time.monotonic()
        yield server, now + (deadline - now) / left


class TcpConnection(Bounded, connections.Connection): ...


class UnixConnection(Bounded, connections.UnixDomainSocketConnection): ...


class AsyncTcpConnection(Asked, aconnections.Connection): ...


class AsyncUnixConnection(Asked, aconnections.UnixDomainSocketConnection): ...


KINDS: dict[type, tuple[type[Any], type[Any]]] = {
    connections.SSLConnection: (TlsConnection, AsyncTlsConnection),
    connections.UnixDomainSocketConnection: (UnixConnection, AsyncUnixConnection),
    connections.AbstractConnection: (TcpConnection, AsyncTcpConnection),
}

_SERVERS: WeakSet[Server] = WeakSet()

# Event loops, and connections on them, that a forked process inherited. It keeps them: a stream
# that is thrown away closes itself, and that takes it out of the epoll the two processes share.
_OF_PARENTS: list[tuple[Any, LoopConnections]] = []


def _forget_connections() -> None:
    for server in list(_SERVERS):
        server.forget_connections()


register_at_fork(after_in_child=_forget_connections)
