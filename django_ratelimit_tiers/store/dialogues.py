"""Commands on the connections of an event loop: one at a time, answered or given up in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from django_ratelimit_tiers.store.deadlines import (
    CLOSED,
    INCOMPLETE,
    OVER,
    Command,
    is_readable,
    new_reader,
    packed,
)

GOODBYE_SECONDS = 1.0
"""How long a connection may take to close; the system would give it half a minute."""


class Dialogue(asyncio.Protocol):
    """Takes an open transport over from the library's stream, to send commands and get answers.

    A stream wakes its reader for every piece; here the caller goes on once, with the whole answer.
    There is nothing to drain: whoever sent a command waits for its answer before the next.
    """

    def __init__(self, transport: Any) -> None:
        self.is_over = False
        self._transport = transport
        self._stream = transport.get_protocol()  # who closes the stream waits there for its end
        self._answers = new_reader()
        self._answer: asyncio.Future[Any] | None = None
        transport.set_protocol(self)

    async def ask(self, command: bytes, deadline: float) -> Any:
        """Return the answer to a command; raises it if it is an error."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(OVER)
        if self.is_over:
            raise ConnectionError(CLOSED)
        loop = asyncio.get_running_loop()
        answer = self._answer = loop.create_future()
        self._transport.write(command)
        # As `Until` does for the many waits of connecting: once time is up, what has arrived is
        # handed on first, since a loop that was held up is late for both.
        limit = loop.call_later(left, loop.call_soon, _give_up, answer)
        try:
            return await answer
        finally:
            limit.cancel()
            self._answer = None

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked: the next answer would be taken for another's
            self.is_over = True
            return
        self._answers.feed(data)
        try:
            answer = self._answers.gets()
        except Exception as error:  # it speaks another protocol
            answer = error
        if answer is not INCOMPLETE:
            _settle(self._answer, answer)

    def eof_received(self) -> bool | None:
        self._end()
        return self._stream.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        self._stream.connection_lost(error)

    def _end(self) -> None:
        self.is_over = True
        if self._answer is not None:
            _settle(self._answer, ConnectionError(CLOSED))


class Asked:
    """Gives an asynchronous connection of the client library the same way to ask."""

    since = 0.0  # when a call took it last

    _writer: Any

    async def open(self) -> None:
        """Connect, and leave the library's way to use a connection for a shorter one."""
        await self.connect()  # type: ignore[attr-defined]
        self._dialogue = Dialogue(self._writer.transport)

    def ask(self, command: Command, deadline: float) -> Any:
        """Return the answer to a command, to be awaited; raises what the client library raises."""
        written = command if type(command) is bytes else packed(command)
        return self._dialogue.ask(written, deadline)

    def is_readable(self) -> bool:
        """Return whether it is closed, or has something on it that nobody read."""
        return self._dialogue.is_over or is_readable(self._writer.get_extra_info("socket"))

    async def close(self) -> None:
        """Say good-bye, as TLS does, but let go of the connection if nobody answers."""
        transport = self._writer.transport
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.disconnect()  # type: ignore[attr-defined]
        except TimeoutError:
            transport.abort()

    async def drop(self) -> None:
        """Let go of the connection at once, as the other end may never read what is left."""
        if self._writer is not None:
            self._writer.transport.abort()
        await self.disconnect(nowait=True)  # type: ignore[attr-defined]


def _give_up(answer: asyncio.Future[Any]) -> None:
    _settle(answer, TimeoutError(OVER))


def _settle(answer: asyncio.Future[Any], given: Any) -> None:
    if answer.done():
        return
    if isinstance(given, Exception):
        answer.set_exception(given)
    else:
        answer.set_result(given)
