"""The connections of one event loop, and how many calls it makes at once."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

MOST_AT_ONCE = 16
"""Calls that one loop has under way to one server, and so its connections; the others wait."""


class Until:
    """Raises TimeoutError in its block at a time (monotonic seconds), but not before answers.

    A loop that something else holds up is late for its timers and its sockets alike. Timers come
    first then, so this one waits until what has arrived was handed on: the store answered in time.
    """

    __slots__ = ("_deadline", "_has_ended", "_limit", "_timer")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._limit = asyncio.timeout(None)
        self._has_ended = False

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        loop = asyncio.get_running_loop()
        left = max(0.0, self._deadline - time.monotonic())
        self._timer = loop.call_later(left, loop.call_soon, self._expire)

    async def __aexit__(self, *failure: Any) -> None:
        self._has_ended = True
        self._timer.cancel()
        await self._limit.__aexit__(*failure)

    def _expire(self) -> None:
        if not self._has_ended:
            self._limit.reschedule(0)


async def others_first() -> float:
    """Let the loop do all that is waiting by now, and return the seconds that it took.

    To connect takes several turns of the loop. Among many tasks a call would spend its time-out on
    waiting for those turns, and the store would be blamed. A call on an open connection takes one
    turn and need not come here.
    """
    begin = time.monotonic()
    await asyncio.sleep(0)
    return time.monotonic() - begin


class LoopConnections:
    """The idle connections of one event loop, closed when it ends as `asyncio.run` ends one.

    Such a loop closes the generators that were begun on it, and this one waits in a generator.
    """

    def __init__(self) -> None:
        self.idle: deque[Any] = deque()
        self.turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def close(self) -> None:
        """Close the idle connections together, and wait for it: TLS says good-bye first."""
        closing, self.idle = self.idle, deque()
        await asyncio.gather(*(connection.close() for connection in closing))

    async def drop(self) -> None:
        """Let go of the idle connections at once, as the other end may never answer."""
        while self.idle:
            await self.idle.pop().drop()

    async def close_with(self, loop: Any, known: WeakKeyDictionary[Any, LoopConnections]) -> None:
        self._waiting = self._wait(loop, known)
        await anext(self._waiting)

    async def _wait(
        self, loop: Any, known: WeakKeyDictionary[Any, LoopConnections]
    ) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            known.pop(loop, None)
            await self.close()
