"""A clock that stands still, for whatever takes one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """A clock that only tests move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now
