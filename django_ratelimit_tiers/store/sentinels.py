"""Sentinels: those who know which server is the primary of a service now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.connections import Server, in_turn


class Sentinels:
    """A locator of the primary; each sentinel gets its share of the time, so one may hang."""

    def __init__(self, service: str, servers: Sequence[Server]) -> None:
        self._question = "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service
        self._servers = tuple(servers)

    def locate(self, deadline: float) -> dict[str, Any]:
        """Return host and port; the sentinel that knew is asked first the next time."""
        for server, until in in_turn(self._servers, deadline):
            try:
                found = server.run(self._question, until)
            except (StoreUnavailable, ResponseError):
                continue
            if found:
                self._prefer(server)
                return _address(found)
        raise self._unknown()

    async def alocate(self, deadline: float) -> dict[str, Any]:
        """Return host and port as the first sentinel that knows names them."""
        asked = [
            asyncio.create_task(server.arun(self._question, deadline)) for server in self._servers
        ]
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    found = await answer
                except (StoreUnavailable, ResponseError):
                    continue
                if found:
                    return _address(found)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise self._unknown()

    def _prefer(self, server: Server) -> None:
        if self._servers[0] is not server:
            others = (other for other in self._servers if other is not server)
            self._servers = (server, *others)

    def _unknown(self) -> ConnectionError:
        return ConnectionError(f"no sentinel names a primary of {self._question[-1]!r}")


def server_of(pool: Any) -> Server:
    """Return the server that a pool of the client library leads to, found by sentinels or not."""
    if not hasattr(pool, "sentinel_manager"):
        return Server(pool)
    sentinels = [Server(client.connection_pool) for client in pool.sentinel_manager.sentinels]
    return Server(pool, Sentinels(pool.service_name, sentinels))


def _address(found: Sequence[bytes]) -> dict[str, Any]:
    return {"host": str(found[0], "ascii"), "port": int(found[1])}
