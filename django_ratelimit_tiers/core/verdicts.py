"""What every detector answers, and how a minute or a stranger's name is put into words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

MINUTE = 60
"""Seconds in a minute: detectors count time in whole minutes since the Unix epoch."""

LONGEST_NAME = 80
"""Characters of a subject or address that an explanation shows at most."""


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


def clock(minute: int) -> str:
    """Return a minute since the epoch as a readable UTC time."""
    return universal(datetime.fromtimestamp(minute * MINUTE, UTC))


def universal(at: datetime) -> str:
    """Return a time as readable UTC; one without a time zone is taken for local time."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def shown(name: str) -> str:
    """Return a name from outside on one line, printable and not longer than LONGEST_NAME."""
    cut = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return "".join(letter if letter.isprintable() else "�" for letter in cut)


def distinct(name: str) -> str:
    """Return a name as it is shown, with its digest if that is not all of it: no two are alike."""
    found = shown(name)
    if found == name:
        return name
    return f"{found} ({blake2b(name.encode(errors='surrogatepass'), digest_size=4).hexdigest()})"


def number(value: float) -> str:
    """Return a number for people: thousands apart, one decimal only where it matters."""
    return f"{value:,.1f}" if value < 10 and value != int(value) else f"{value:,.0f}"
