"""Connections of the client library on which every wait ends at a deadline.

The library opens a connection, with everything that takes: TLS, users, databases. Commands on it
are written and answers read here, with the library's own codec: the machinery that its connections
put around the system calls takes longer than they do (`make bench`, one decision).
"""

from __future__ import annotations

import _socket
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident, main_thread
from typing import Any, NoReturn

from hiredis import Reader, pack_command
from redis.connection import DefaultParser
from redis.exceptions import InvalidResponse, RedisError

Words = tuple[str | bytes | int, ...]

Command = Words | bytes
"""A command in words, or as it is sent."""

MOST_READ = 65_536
"""Bytes of an answer that are read at once."""

AWAKE_SECONDS = 0.0002
"""How long a call looks for its answer before it sleeps: waking up may take longer than a store
nearby takes to answer. Linux lets an idle virtual processor look for work as long before it halts
(`guest_halt_poll_ns`)."""

ALONE_SECONDS = 1.0
"""How long the main thread has to be the only one that calls before it looks for answers."""

MOST_ASLEEP = 63
"""The most calls in a row that sleep at once, when answers have come later than AWAKE_SECONDS."""

INCOMPLETE = False
"""What a reader returns until an answer is whole; no answer of this protocol is false."""

OF_SCRIPT = re.compile(r"^ERR Error running script \(call to f_\w+\): (@user_script: ?\d+: )+-?")
"""What Redis before 7.0 puts before the error of a command that a script called."""

CLOSED = "the server closed the connection"
OVER = "the time for the call is over"


class Caller:
    """Knows whether one thread alone makes calls: only then may it look for answers.

    While a thread looks, no other runs Python: none that makes calls as well, and no event loop of
    the main thread.
    """

    def __init__(self) -> None:
        self._thread, self._is_main, self._since = 0, False, 0.0

    def is_alone(self, now: float) -> bool:
        """Return whether the main thread calls, and no other has for ALONE_SECONDS."""
        thread = get_ident()
        if thread != self._thread:
            self._thread, self._is_main = thread, thread == main_thread().ident
            self._since = now
        return self._is_main and now - self._since > ALONE_SECONDS


_caller = Caller()


class BoundedSocket:
    """A socket on which every operation ends by the deadline of its connection."""

    __slots__ = ("_connection", "_socket")

    def __init__(self, socket: Any, connection: Any) -> None:
        self._socket, self._connection = socket, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self.in_time().recv(size, flags)  # type: ignore[no-any-return]

    def recv_into(self, *arguments: Any) -> int:
        return self.in_time().recv_into(*arguments)  # type: ignore[no-any-return]

    def sendall(self, data: Any) -> None:
        self.in_time().sendall(data)

    def in_time(self) -> Any:
        """Return the socket for one operation, which ends by the deadline."""
        left = self._connection.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(OVER)
        self._socket.settimeout(left)
        return self._socket


class PolledSocket:
    """The same for a socket of the operating system, with the least that a command takes.

    It never blocks, and sends at once what goes into its buffer: nearly always all of it. The one
    wait, for the answer, is a `poll`; where the answer comes soon, several that do not sleep. A
    `recv` that the system ends by itself (SO_RCVTIMEO) would save that call, but Python begins it
    anew after a signal, and a timer would prolong it for ever.
    """

    __slots__ = (
        "_asleep",
        "_connection",
        "_naps",
        "_poll",
        "_recv",
        "_send",
        "close",
        "fileno",
        "shutdown",
    )

    def __init__(self, socket: Any, connection: Any) -> None:
        socket.setblocking(False)
        self._connection = connection
        self._asleep = self._naps = 0
        self._send, self._recv = socket.send, socket.recv
        self._poll = _poll_of(socket, select.POLLIN)
        self.close, self.fileno, self.shutdown = socket.close, socket.fileno, socket.shutdown

    @staticmethod
    def suits(socket: Any) -> bool:
        """Return whether nothing but the system sends and receives: no TLS, no greenlets."""
        kind: Any = type(socket)
        plain = _socket.socket
        return hasattr(select, "poll") and (kind.send, kind.recv) == (plain.send, plain.recv)

    def sendall(self, data: Any) -> None:
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Look for something to receive without sleeping at first.

        Where that took long, the store is far away, or something else needed the processor: then
        more and more calls sleep at once before one looks again.
        """
        poll, clock, is_there = self._poll, time.monotonic, None
        now = clock()
        if not _caller.is_alone(now):
            pass
        elif self._asleep:
            self._asleep -= 1
        else:
            end = now + AWAKE_SECONDS
            while not (is_there := poll(0)) and clock() < end:
                pass
            self._asleep = self._naps = 0 if clock() < end else min(2 * self._naps + 1, MOST_ASLEEP)
        if not is_there:
            self._wait(poll)
        return self._recv(size, flags)  # type: ignore[no-any-return]

    def _send_rest(self, rest: memoryview) -> None:
        poll = _poll_of(self, select.POLLOUT)
        while rest:
            self._wait(poll)
            rest = rest[self._send(rest) :]

    def _wait(self, poll: Callable[[float], object]) -> None:
        left = self._connection.deadline - time.monotonic()
        if left <= 0 or not poll(left * 1000):
            raise TimeoutError(OVER)


class Bounded:
    """Makes a connection of the client library end every wait at its `deadline`."""

    deadline = 0.0
    since = 0.0  # when a call took it last

    _sock: Any  # the library takes the socket of _connect for its own

    def open(self) -> None:
        """Connect, and leave the library's way to use a connection for a shorter one."""
        self.connect()  # type: ignore[attr-defined]
        socket = self._sock.in_time()
        if PolledSocket.suits(socket):
            self._sock = PolledSocket(socket, self)
        self._answers = new_reader()

    def ask(self, command: Command) -> Any:
        """Return the answer to a command; raises what the client library raises."""
        sock, answers = self._sock, self._answers
        sock.sendall(command if type(command) is bytes else packed(command))
        answer: Any = INCOMPLETE
        while answer is INCOMPLETE:
            answers.feed(sock.recv(MOST_READ) or _closed())
            answer = answers.gets()
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def is_readable(self) -> bool:
        """Return whether it is closed, or has something on it that nobody read."""
        return self._sock is None or is_readable(self._sock)

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


@contextmanager
def connecting() -> Iterator[None]:
    """Turn whatever the look-up of an address or a password raises into a failed connection."""
    try:
        yield
    except (RedisError, OSError):
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def packed(command: Command) -> bytes:
    """Return a command in words as it is sent."""
    written: bytes = pack_command(command)  # type: ignore[arg-type]
    return written


def new_reader() -> Reader:
    """Return a reader of answers, which gives errors as the client library does."""
    return Reader(protocolError=InvalidResponse, replyError=_error)


def _error(text: str) -> Exception:
    error: Exception = DefaultParser.parse_error(OF_SCRIPT.sub("", text, 1))  # type: ignore[no-untyped-call]
    return error


def is_readable(socket: Any) -> bool:
    """Return whether the other end closed a socket, or sent something that nobody read."""
    if not hasattr(select, "poll"):  # eventlet takes it away: nobody can tell
        return True
    return bool(_poll_of(socket, select.POLLIN)(0))


def _closed() -> NoReturn:
    raise ConnectionError(CLOSED)


def _poll_of(socket: Any, event: int) -> Callable[[float], list[tuple[int, int]]]:
    """Return what waits so many milliseconds for something to happen on a socket."""
    poll = select.poll()
    poll.register(socket.fileno(), event)
    return poll.poll
