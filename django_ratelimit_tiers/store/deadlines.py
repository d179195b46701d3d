"""Connections of the client library on which every wait ends at a deadline.

The library opens a connection, with everything that takes: TLS, users, databases. Commands on it
are written and answers read here, with the library's own codec: the machinery that its connections
put around the two system calls takes longer than they do (`make bench`, one decision).
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

from hiredis import Reader, pack_command
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import InvalidResponse, RedisError

Words = tuple[str | bytes | int, ...]

MOST_READ = 65_536
"""Bytes of an answer that are read at once."""

INCOMPLETE = False
"""What a reader says that needs more bytes; no answer of this protocol is false."""


class BoundedSocket:
    """A socket on which every operation ends by the deadline of its connection."""

    __slots__ = ("_connection", "_socket")

    def __init__(self, socket: Any, connection: Any) -> None:
        self._socket, self._connection = socket, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, *arguments: Any) -> bytes:
        return self.in_time().recv(*arguments)  # type: ignore[no-any-return]

    def recv_into(self, *arguments: Any) -> int:
        return self.in_time().recv_into(*arguments)  # type: ignore[no-any-return]

    def sendall(self, *arguments: Any) -> None:
        self.in_time().sendall(*arguments)

    def in_time(self) -> Any:
        """Return the socket for one operation, which ends by the deadline."""
        left = self._connection.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the call is over")
        self._socket.settimeout(left)
        return self._socket


class Bounded:
    """Makes a connection of the client library end every wait at its `deadline`."""

    deadline = 0.0

    _sock: Any  # the library takes the socket of _connect for its own
    _answers: Reader | None = None

    def ask(self, words: Words) -> Any:
        """Return the answer to a command; raises what the client library raises."""
        self._sock.in_time().sendall(pack_command(words))  # type: ignore[arg-type]
        answers = self._answers = self._answers or new_reader()
        answer: Any = INCOMPLETE
        while answer is INCOMPLETE:
            answers.feed(self._sock.in_time().recv(MOST_READ) or _closed())
            answer = answers.gets()
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def _connect(self) -> BoundedSocket:
        return BoundedSocket(super()._connect(), self)  # type: ignore[misc]

    @property
    def socket_timeout(self) -> float | None:
        """Seconds until the deadline."""
        return max(self.deadline - time.monotonic(), 0.001)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | int | None) -> None:
        """Ignore the library's own time-out."""

    socket_connect_timeout = socket_timeout


class Asked:
    """Gives an asynchronous connection of the client library the same way to ask.

    The caller bounds the time.
    """

    _reader: Any
    _writer: Any
    _answers: Reader | None = None

    async def ask(self, words: Words) -> Any:
        """Return the answer to a command; raises what the client library raises."""
        self._writer.write(pack_command(words))  # type: ignore[arg-type]
        await self._writer.drain()
        answers = self._answers = self._answers or new_reader()
        answer: Any = INCOMPLETE
        while answer is INCOMPLETE:
            answers.feed(await self._reader.read(MOST_READ) or _closed())
            answer = answers.gets()
        if isinstance(answer, RedisError):
            raise answer
        return answer


def new_reader() -> Reader:
    """Return a reader of answers, which gives errors as the client library does."""
    return Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)


def _closed() -> NoReturn:
    raise Disconnected("the server closed the connection")
