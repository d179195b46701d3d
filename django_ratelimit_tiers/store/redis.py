"""Counters in Redis or Valkey.

Each call is one EVALSHA on a connection that the caller has to itself. No command is ever retried:
a charge that was sent may have been made. Only a server that says it does not know the script, and
so ran nothing, is sent the text.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from django_redis import get_redis_connection
from redis.connection import ConnectionPool
from redis.exceptions import NoScriptError, ResponseError, TryAgainError

from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.store import protocol
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.connections import Commanded
from django_ratelimit_tiers.store.examination import examine_server
from django_ratelimit_tiers.store.findings import Finding
from django_ratelimit_tiers.store.locations import check_database
from django_ratelimit_tiers.store.protocol import Protocol
from django_ratelimit_tiers.store.scripts import Call
from django_ratelimit_tiers.store.sentinels import server_of
from django_ratelimit_tiers.store.server_records import ServerRecords

OF_ONE_CALL = ("WRONGTYPE", "TRYAGAIN")
"""Error replies that say something about the keys of a call and nothing about the server."""

ELSEWHERE = "non local key"
"""What a script is told whose subject's keys are at two nodes, since their slot is moving."""


class RedisStore(Store):
    """A store on one Redis or Valkey server, named by a django-redis cache alias or a URL.

    `timeout` bounds one call in seconds, connecting included. Raises ValueError unless exactly one
    of `cache_alias` and `url` is given.
    """

    def __init__(
        self,
        *,
        cache_alias: str | None = None,
        url: str | None = None,
        timeout: float = 0.1,
        protocol: Protocol | None = None,
    ) -> None:
        if url is not None and cache_alias is None:
            pool = ConnectionPool.from_url(url)
            check_database(url)
        elif cache_alias is not None and url is None:
            pool = get_redis_connection(cache_alias, write=True).connection_pool
        else:
            raise ValueError("RedisStore takes either cache_alias or url")
        self.timeout = timeout
        self.protocol = protocol or Protocol()
        self.records = ServerRecords(self.command, self.acommand, self.protocol)
        self._server: Commanded = server_of(pool)

    def execute(self, plan: Plan) -> Decision:
        call, layout = self.protocol.acquire(plan)
        return protocol.parse_reply(plan, layout, self._run(call))

    async def aexecute(self, plan: Plan) -> Decision:
        call, layout = self.protocol.acquire(plan)
        return protocol.parse_reply(plan, layout, await self._arun(call))

    def refund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        self._run(self.protocol.refund(charges, now, charged_at))

    async def arefund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        await self._arun(self.protocol.refund(charges, now, charged_at))

    def reset(self, subject: str) -> None:
        self._run(self.protocol.reset(subject))

    async def areset(self, subject: str) -> None:
        await self._arun(self.protocol.reset(subject))

    def ping(self) -> bool:
        self.command("PING")
        return True

    async def aping(self) -> bool:
        await self.acommand("PING")
        return True

    def examine(self) -> Iterator[Finding]:
        yield from examine_server(self, self.command, self.timeout)

    def revision(self) -> str:
        key = self.protocol.revision_key
        try:
            token = self.command("GET", key)
        except StoreRefused:  # another program's value: it is written over
            self.announce_policy()
            token = self.command("GET", key)
        if token is None:
            self.command("SET", key, uuid4().hex, "NX", "EX", protocol.REVISION_TTL)
            token = self.command("GET", key)
        return protocol.token(token)

    def announce_policy(self) -> None:
        self.command("SET", self.protocol.revision_key, uuid4().hex, "EX", protocol.REVISION_TTL)

    def announce_subjects(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            key = self.protocol.subject_revision_key(subject)
            self.command("SET", key, uuid4().hex, "EX", protocol.SUBJECT_REVISION_TTL)

    def command(self, *words: str | bytes | int) -> Any:
        """Return the server's answer to one command."""
        try:
            return self._server.run(words, time.monotonic() + self.timeout)
        except ResponseError as error:
            raise _store_error(error) from error

    async def acommand(self, *words: str | bytes | int) -> Any:
        """Return the server's answer to one command."""
        try:
            return await self._server.arun(words, time.monotonic() + self.timeout)
        except ResponseError as error:
            raise _store_error(error) from error

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._server.close()

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        await self._server.aclose()

    def _run(self, call: Call) -> Any:
        deadline = time.monotonic() + self.timeout
        try:
            try:
                return self._server.run(call.evalsha, deadline)
            except NoScriptError:
                return self._server.run(call.eval, deadline)
        except ResponseError as error:
            raise _store_error(error) from error

    async def _arun(self, call: Call) -> Any:
        try:
            try:
                return await self._server.arun(call.evalsha, time.monotonic() + self.timeout)
            except NoScriptError:  # the wait for a turn may have taken longer than a call may
                return await self._server.arun(call.eval, time.monotonic() + self.timeout)
        except ResponseError as error:
            raise _store_error(error) from error


def _store_error(error: ResponseError) -> StoreUnavailable:
    is_told = str(error).startswith(OF_ONE_CALL) or ELSEWHERE in str(error)
    of_one_call = is_told or isinstance(error, TryAgainError)
    kind = StoreRefused if of_one_call else StoreUnavailable
    return kind(f"{type(error).__name__}: {error}")
