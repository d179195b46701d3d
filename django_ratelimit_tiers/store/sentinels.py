"""Sentinels: those who know which server is the primary of a service now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.connections import Server, in_turn


class Sentinels:
    """A locator of the primary; each sentinel gets its share of the time, so one may hang.

    One that has lost touch with the others names a former primary for ever. So an address that has
    just failed is taken only where no sentinel names another.
    """

    def __init__(self, service: str, servers: Sequence[Server]) -> None:
        self._question = "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service
        self._servers = tuple(servers)
        self._named: dict[str, Any] | None = None
        self._doubted: dict[str, Any] | None = None

    def doubt(self) -> None:
        """Note that the address that was named last has failed."""
        self._doubted = self._named

    def locate(self, deadline: float) -> dict[str, Any]:
        """Return host and port; the sentinel that knew is asked first the next time."""
        doubted, named = self._doubted, None
        for server, until in in_turn(self._servers, deadline):
            try:
                found = server.run(self._question, until)
            except (StoreUnavailable, ResponseError):
                continue
            if found:
                named = _address(found)
                if named != doubted:
                    self._prefer(server)
                    return self._agreed(named)
        return self._agreed(doubted if named else None)

    async def alocate(self, deadline: float) -> dict[str, Any]:
        """Return host and port as the first sentinel that knows names them."""
        doubted, named = self._doubted, None
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
                    named = _address(found)
                    if named != doubted:
                        return self._agreed(named)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return self._agreed(doubted if named else None)

    def _prefer(self, server: Server) -> None:
        if self._servers[0] is not server:
            others = (other for other in self._servers if other is not server)
            self._servers = (server, *others)

    def _agreed(self, address: dict[str, Any] | None) -> dict[str, Any]:
        if address is None:
            raise ConnectionError(f"no sentinel names a primary of {self._question[-1]!r}")
        if address == self._doubted:  # no sentinel knows better
            self._doubted = None
        self._named = address
        return address


def server_of(pool: Any) -> Server:
    """Return the server that a pool of the client library leads to, found by sentinels or not."""
    if not hasattr(pool, "sentinel_manager"):
        return Server(pool)
    sentinels = [Server(client.connection_pool) for client in pool.sentinel_manager.sentinels]
    return Server(pool, Sentinels(pool.service_name, sentinels))


def _address(found: Sequence[bytes]) -> dict[str, Any]:
    return {"host": str(found[0], "ascii"), "port": int(found[1])}
