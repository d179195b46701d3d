"""The servers of a cluster, and which of them serves a slot now."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.connections import Server, in_turn
from django_ratelimit_tiers.store.deadlines import Command

MOST_REDIRECTIONS = 5
"""How often one command follows slots that move while it is sent."""

Address = tuple[str, int]


class Nodes:
    """What is known of a cluster, learned from any of its servers and from redirections."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        options = pool.connection_kwargs
        self._seed = options.get("host", "localhost"), int(options.get("port", 6379))
        self._servers: dict[Address, Server] = {self._seed: Server(pool)}
        self._owners: dict[int, Address] = {}
        self._informant: Server | None = None

    def owner(self, slot: int, deadline: float) -> Server:
        """Return the server of a slot; raises StoreUnavailable if none is known to serve it."""
        address = self._owners.get(slot)
        if address is None:
            for server, until in in_turn(self._informants(), deadline):
                with suppress(StoreUnavailable, ResponseError):
                    told = server.run(("CLUSTER", "SLOTS"), until)
                    address = self._learn(server, told).get(slot)
                if address is not None:  # a server that has left the cluster knows none
                    break
        return self._at(address, slot)

    async def aowner(self, slot: int, deadline: float) -> Server:
        """Return the server of a slot; raises StoreUnavailable if none is known to serve it."""
        address = self._owners.get(slot)
        if address is None:
            for server, until in in_turn(self._informants(), deadline):
                with suppress(StoreUnavailable, ResponseError):
                    told = await server.arun(("CLUSTER", "SLOTS"), until)
                    address = self._learn(server, told).get(slot)
                if address is not None:  # a server that has left the cluster knows none
                    break
        return self._at(address, slot)

    def server(self, address: Address) -> Server:
        """Return the server at an address."""
        if address not in self._servers:
            host, port = address
            server = Server(self._pool, host=host, port=port)
            self._servers = {**self._servers, address: server}
        return self._servers[address]

    def moved(self, slot: int, address: Address) -> None:
        """Note that a slot is served at another address, as others may be."""
        self._owners = {slot: address}

    def forget(self) -> None:
        """Learn the cluster anew before the next command."""
        self._owners = {}

    def close(self) -> None:
        """Close the idle connections."""
        for server in self._servers.values():
            server.close()

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        for server in self._servers.values():
            await server.aclose()

    def _informants(self) -> Sequence[Server]:
        """Return all servers, and last the one whose word had to be doubted.

        One that has lost touch with the others names a former primary for ever.
        """
        return sorted(self._servers.values(), key=lambda server: server is self._informant)

    def _learn(self, informant: Server, ranges: Sequence[Any]) -> dict[int, Address]:
        """Return the owners as a server tells them; other threads may forget them at once."""
        owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_replicas in ranges:
            address = (str(host, "ascii") if host else self._seed[0]), int(port)
            owners.update(dict.fromkeys(range(first, last + 1), address))
        self._owners, self._informant = owners, informant
        return owners

    def _at(self, address: Address | None, slot: int) -> Server:
        if address is None:
            raise StoreUnavailable(f"no node of the cluster serves slot {slot}")
        return self.server(address)


class Slot:
    """The primary of one slot, wherever it is: it takes commands as a `Server` does."""

    def __init__(self, nodes: Nodes, number: int) -> None:
        self._nodes = nodes
        self._number = number

    def run(self, command: Command, deadline: float) -> Any:
        """Return the answer to a command; a node that redirects has not carried it out."""
        before: tuple[Command, ...] = ()
        server = self._nodes.owner(self._number, deadline)
        for _ in range(MOST_REDIRECTIONS):
            try:
                return server.run(command, deadline, *before)
            except StoreUnavailable:
                self._nodes.forget()
                raise
            except ResponseError as error:
                server, before = self._redirected(error)
        raise StoreUnavailable("the nodes of the cluster redirect in a circle")

    async def arun(self, command: Command, deadline: float) -> Any:
        """Return the answer to a command; a node that redirects has not carried it out."""
        before: tuple[Command, ...] = ()
        server = await self._nodes.aowner(self._number, deadline)
        for _ in range(MOST_REDIRECTIONS):
            try:
                return await server.arun(command, deadline, *before)
            except StoreUnavailable:
                self._nodes.forget()
                raise
            except ResponseError as error:
                server, before = self._redirected(error)
        raise StoreUnavailable("the nodes of the cluster redirect in a circle")

    def close(self) -> None:
        """Leave the connections open: all parts share them."""

    async def aclose(self) -> None:
        """Leave the connections open: all parts share them."""

    def _redirected(self, error: ResponseError) -> tuple[Server, tuple[Command, ...]]:
        """Return where a reply redirects to; raises the error when it is about something else."""
        kind, *where = str(error).split() or [""]
        if isinstance(error, AskError):  # a class of its own in some versions of the library
            kind, where = "MOVED" if isinstance(error, MovedError) else "ASK", str(error).split()
        if kind not in ("MOVED", "ASK"):
            if kind == "CLUSTERDOWN" or isinstance(error, ClusterDownError):
                self._nodes.forget()
            raise error
        host, _, port = where[-1].rpartition(":")
        address = host or self._nodes._seed[0], int(port)
        if kind == "ASK":
            return self._nodes.server(address), (("ASKING",),)
        self._nodes.moved(self._number, address)
        return self._nodes.server(address), ()
