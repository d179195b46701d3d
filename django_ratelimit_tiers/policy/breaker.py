"""A circuit breaker, so that a dead store is asked rarely and found again by itself."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.events.log_gates import LogGate
from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.signals import store_recovered, store_unavailable
from django_ratelimit_tiers.store.base import Store

logger = logging.getLogger(__name__)

COOL_DOWN_SECONDS = 1.0
"""How long a store that failed is not asked; each process waits up to half as long again."""


class Breaker:
    """Lets calls through until one fails, then one at a time, after a cool-down, until one works.

    It is a context manager around a single call; entering raises StoreUnavailable while the store
    is not to be asked. One failure is enough to open it: that call has cost its client the whole
    time-out, and the next one would, too. Shared by the threads of a process; none ever waits.
    """

    def __init__(
        self, cool_down: float = COOL_DOWN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cool_down = cool_down
        self.clock = clock
        self._gate = LogGate(clock)
        self._open = self._probing = False
        self._next_probe = 0.0
        self._lock = Lock()
        self.recoveries = 0

    @property
    def is_open(self) -> bool:
        """Whether the store is taken to be unavailable."""
        return self._open

    def __enter__(self) -> None:
        if self._open and not self._may_probe():
            raise StoreUnavailable("the store failed a moment ago and is not asked yet")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            if self._open:
                self._close()
        elif isinstance(error, StoreRefused):
            self._close()
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
            opened, self._open, self._probing = not self._open, True, False
            self._next_probe = self.clock() + self._cool_down * jitter
        if opened:
            logger.error("the store of rate limits is unavailable: %s", error)
            store_unavailable.send_robust(Breaker, error=error)

    def _close(self) -> None:
        with self._lock:
            closed, self._open, self._probing = self._open, False, False
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

    def run(self) -> Any:
        with self._breaker:
            return self._run(*self._arguments)

    async def arun(self) -> Any:
        with self._breaker:
            return await self._arun(*self._arguments)


class GuardedStore:
    """A store as flows ask it; the breaker notices its failures."""

    def __init__(self, store: Store, breaker: Breaker) -> None:
        self._store = store
        self._breaker = breaker

    def execution(self, plan: Plan) -> Guarded:
        """Return the pause in which a plan is decided."""
        return Guarded(self._breaker, self._store.execute, self._store.aexecute, plan)

    def refund(self, charges: Sequence[Charge], charged_at: int) -> Guarded:
        """Return the pause in which charges are given back."""
        refund = partial(self._store.refund, charges, charged_at=charged_at)
        arefund = partial(self._store.arefund, charges, charged_at=charged_at)
        return Guarded(self._breaker, refund, arefund)
