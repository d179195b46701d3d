"""What processes take of memory."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import redis


def resident_bytes(pid: int) -> int:
    """Return the memory of a process, 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def server_bytes(client: redis.Redis) -> int:
    """Return the memory that a Redis or Valkey says it uses."""
    return int(client.info("memory")["used_memory"])


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


@contextmanager
def counted_objects() -> Iterator[Callable[[], int]]:
    """Yield what tells how many blocks of memory this process keeps that it has taken since."""

    others = [tracemalloc.Filter(False, name) for name in (__file__, tracemalloc.__file__)]

    def kept() -> int:
        gc.collect()
        snapshot = tracemalloc.take_snapshot().filter_traces(others)
        return sum(found.count for found in snapshot.statistics("filename"))

    # What was remembered before would be replaced by what is traced, and its tuples used again,
    # which is not: both look as if the process grew.
    for cache in filter(_is_our_cache, gc.get_objects()):
        cache.cache_clear()
    gc.collect()
    tracemalloc.start(1)
    try:
        yield kept
    finally:
        tracemalloc.stop()


LRU_CACHE = type(lru_cache(lambda: None))
PACKAGE = "django_ratelimit_tiers."


def _is_our_cache(found: Any) -> bool:
    if type(found) is not LRU_CACHE:  # not isinstance(), which wakes the lazy objects of Django
        return False
    is_bounded = found.cache_parameters()["maxsize"] is not None
    return is_bounded and str(found.__module__).startswith(PACKAGE)
