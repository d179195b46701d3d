"""What every detector answers."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60
"""Seconds in a minute: detectors count time in whole minutes since the Unix epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a detector found in one minute.

    `minute` is counted from the Unix epoch. `value` is None when it is not known; it is abnormal
    from `threshold` on, `level` is what would be usual. `explanation` is one plain sentence. `unit`
    tells apart what one detector counts by turns, as users and new users.
    """

    minute: int
    value: float | None
    level: float
    threshold: float
    explanation: str
    unit: str = ""

    @property
    def abnormal(self) -> bool:
        """Whether the value has reached the threshold."""
        return self.value is not None and self.value >= self.threshold
