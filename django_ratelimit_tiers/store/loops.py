"""What is kept for one event loop and closed when that loop ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary


class LoopConnections:
    """The idle connections of one event loop, closed when it ends as `asyncio.run` ends one.

    A loop that ends so closes the generators that have begun in it, and this waits in one.
    """

    def __init__(self) -> None:
        self.idle: deque[tuple[Any, float]] = deque()

    async def close(self) -> None:
        """Close the connections; more may follow."""
        while self.idle:
            await self.idle.pop()[0].disconnect(nowait=True)

    async def close_with(self, loop: Any, known: LoopsConnections) -> None:
        """Close the connections when the loop ends."""
        self._waiting = self._wait(loop, known)
        await anext(self._waiting)

    async def _wait(self, loop: Any, known: LoopsConnections) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            known.pop(loop, None)
            while self.idle:
                await self.idle.pop()[0].disconnect()


LoopsConnections = WeakKeyDictionary[Any, LoopConnections]


async def of_running_loop(known: LoopsConnections) -> LoopConnections:
    """Return the connections of the running loop."""
    loop = asyncio.get_running_loop()
    of_loop = known.get(loop)
    if of_loop is None:
        of_loop = known[loop] = LoopConnections()
        await of_loop.close_with(loop, known)
    return of_loop
