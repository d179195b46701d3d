"""Many values in lists that one query can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 250
"""Of so many causes, users or subjects the database is asked at once: there may be thousands."""


def batches(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield values AT_ONCE at a time, as `itertools.batched` of Python 3.12 does."""
    left = iter(values)
    while some := list(islice(left, AT_ONCE)):
        yield some
