"""A circuit breaker, so that a dead store is asked rarely and found again by itself."""

from __future__ import annotations

import logging
import random
import time
from threading import Lock

from django_ratelimit_tiers.signals import store_recovered, store_unavailable

logger = logging.getLogger(__name__)

COOL_DOWN_SECONDS = 1.0
"""How long a store that failed is not asked; each process waits up to half as long again."""


class Breaker:
    """Open from the first failure until a probe succeeds; one per process, shared by its threads.

    One failure is enough: a call that failed has cost its client the whole time-out, and the next
    one would too. While open, one caller in each cool-down may probe and the others do not wait.
    """

    def __init__(self, cool_down: float = COOL_DOWN_SECONDS) -> None:
        self._cool_down = cool_down
        self._open = False
        self._next_probe = 0.0
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        """Whether the store is taken to be unavailable."""
        return self._open

    def allows(self) -> bool:
        """Return whether the caller may ask the store; a caller let through is the probe."""
        if not self._open:
            return True
        with self._lock:
            if time.monotonic() < self._next_probe:
                return False
            self._schedule_probe()
            return True

    def failed(self, error: Exception) -> None:
        """Note a failure."""
        with self._lock:
            opened, self._open = not self._open, True
            self._schedule_probe()
        if opened:
            logger.error("the store of rate limits is unavailable: %s", error)
            store_unavailable.send_robust(Breaker, error=error)

    def succeeded(self) -> None:
        """Note an answer."""
        if not self._open:
            return
        with self._lock:
            closed, self._open = self._open, False
        if closed:
            logger.warning("the store of rate limits answers again")
            store_recovered.send_robust(Breaker)

    def _schedule_probe(self) -> None:
        jitter = random.uniform(1, 1.5)  # noqa: S311 - spreads processes, protects nothing
        self._next_probe = time.monotonic() + self._cool_down * jitter
