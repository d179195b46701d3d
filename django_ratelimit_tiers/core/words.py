"""Times, numbers and names from outside, in words for people."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b

from django_ratelimit_tiers.core.verdicts import MINUTE

LONGEST_NAME = 80
"""Characters of a subject or address that an explanation shows at most."""


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
