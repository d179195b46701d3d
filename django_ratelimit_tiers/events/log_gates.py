"""A bound on the lines that a log gets in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import floor
from threading import Lock


class LogGate:
    """Lets so many lines pass in a second, and counts those left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed = self._left_out = 0
        self._ends = 0.0
        self._lock = Lock()

    def passes(self, most: int) -> tuple[bool, int]:
        """Return whether one more line passes, and how many were left out before this second."""
        with self._lock:
            left_out, now = 0, self._clock()
            if now >= self._ends:
                left_out, self._left_out = self._left_out, 0
                self._ends, self._passed = floor(now) + 1, 0
            if self._passed < most:
                self._passed += 1
                return True, left_out
            self._left_out += 1
            return False, left_out

    def leaves_out(self, most: int) -> bool:
        """Return whether one more line is left out, and count it if so.

        Where it is not, nothing is counted: `passes` is asked next.
        """
        with self._lock:
            if self._passed < most or self._clock() >= self._ends:
                return False
            self._left_out += 1
            return True
