"""A circuit breaker, so that a dead store is asked rarely and found again by itself."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from threading import Lock
from types import TracebackType
from typing import Any

from django_ratelimit_tiers.core.plans import StalePlan
from django_ratelimit_tiers.events.log_gates import LogGate
from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.signals import store_recovered, store_unavailable

logger = logging.getLogger(__name__)

COOL_DOWN_SECONDS = 1.0
"""How long a store that failed is not asked; each process waits up to half as long again."""


class Breaker:
    """Lets calls through until one fails, then one at a time, after a cool-down, until one works.

    It is a context manager around a single call; entering raises StoreUnavailable while the store
    is not to be asked. It `is_open` while the store is taken to be unavailable. One failure is
    enough to open it: that call has cost its client the whole time-out, and the next one would,
    too. Shared by the threads of a process; none ever waits.
    """

    def __init__(
        self, cool_down: float = COOL_DOWN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cool_down = cool_down
        self.clock = clock
        self._gate = LogGate(clock)
        self.is_open = self._probing = False
        self._next_probe = 0.0
        self._lock = Lock()
        self.recoveries = 0

    def __enter__(self) -> None:
        if self.is_open:
            self.ask_leave()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.heed(error)
        elif self.is_open:
            self.close()

    def ask_leave(self) -> None:
        """Raise StoreUnavailable unless an open breaker may try whether the store answers."""
        if not self._may_probe():
            raise StoreUnavailable("the store failed a moment ago and is not asked yet")

    def heed(self, error: BaseException) -> None:
        """Note how a call has ended that decided nothing."""
        if isinstance(error, StalePlan):
            self.close()
        elif isinstance(error, StoreRefused):
            self.close()
            if self._gate.passes(most=1)[0]:
                logger.error("the store could not make a call: %s", error)
        elif isinstance(error, StoreUnavailable):
            self._fail(error)
        else:  # the caller was cancelled: nothing is known of the store
            self._probing = False

    def _may_probe(self) -> bool:
        with self._lock:
            if self._probing or self.clock() < self._next_probe:
                return False
            self._probing = True
            return True

    def _fail(self, error: StoreUnavailable) -> None:
        jitter = random.uniform(1, 1.5)  # noqa: S311 - spreads processes, protects nothing
        with self._lock:
            opened, self.is_open, self._probing = not self.is_open, True, False
            self._next_probe = self.clock() + self._cool_down * jitter
        if opened:
            logger.error("the store of rate limits is unavailable: %s", error)
            store_unavailable.send_robust(Breaker, error=error)

    def close(self) -> None:
        """Note that the store has answered."""
        with self._lock:
            closed, self.is_open, self._probing = self.is_open, False, False
            self.recoveries += closed
        if closed:
            logger.warning("the store of rate limits answers again")
            store_recovered.send_robust(Breaker)


class Guarded:
    """A pause in which a flow asks the store; the breaker notices when that fails."""

    __slots__ = ("_arguments", "_arun", "_breaker", "_run")

    def __init__(
        self,
        breaker: Breaker,
        run: Callable[..., Any],
        arun: Callable[..., Awaitable[Any]],
        *arguments: Any,
    ) -> None:
        self._breaker, self._run, self._arun = breaker, run, arun
        self._arguments = arguments

    # What `with self._breaker` does, written out, as every request comes here.

    def run(self) -> Any:
        breaker = self._breaker
        if breaker.is_open:
            breaker.ask_leave()
        try:
            answer = self._run(*self._arguments)
        except BaseException as error:
            breaker.heed(error)
            raise
        if breaker.is_open:
            breaker.close()
        return answer

    async def arun(self) -> Any:
        breaker = self._breaker
        if breaker.is_open:
            breaker.ask_leave()
        try:
            answer = await self._arun(*self._arguments)
        except BaseException as error:
            breaker.heed(error)
            raise
        if breaker.is_open:
            breaker.close()
        return answer
