"""Encrypted connections of the client library, which have one SSL context for each configured pool.

The library makes a context for each connection. That reads every certificate the system trusts and
takes longer than half a call may, so of several connections at once none would open in time.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from redis import connection as connections
from redis.asyncio import connection as aconnections

from django_ratelimit_tiers.store.deadlines import Bounded
from django_ratelimit_tiers.store.dialogues import Asked

OCSP = ("ssl_validate_ocsp", "ssl_ocsp")
"""How those options begin that no shared context can hold: the library sees to them itself."""


class SharedContext:
    """An SSL context for many connections, as the client library makes it of `ssl_*` options."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = {
            key: value
            for key, value in options.items()
            if key.startswith("ssl") and not key.startswith(OCSP)
        }
        self._context: ssl.SSLContext | None = None
        with suppress(Exception):  # made now, in nobody's time; the first call says what is wrong
            self.get()

    def get(self) -> ssl.SSLContext:
        """Return the context; what it is made of is read once."""
        if self._context is None:
            self._context = self._make()
        return self._context

    def _make(self) -> ssl.SSLContext:
        # The library makes it while it wraps a socket; one that leads nowhere shakes no hands.
        connection: Any = connections.SSLConnection(**self.options)
        with socket.socket() as nowhere, connection._wrap_socket_with_ssl(nowhere) as wrapped:
            return wrapped.context  # type: ignore[no-any-return]


def context_of(pool: Any) -> SharedContext:
    """Return the context of all connections that are opened as a pool is configured."""
    if pool not in _CONTEXTS:
        _CONTEXTS[pool] = SharedContext(pool.connection_kwargs)
    return _CONTEXTS[pool]


class TlsConnection(Bounded, connections.SSLConnection):
    """An encrypted connection for threads."""

    def __init__(self, *, context: SharedContext, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        if self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        return self._context.get().wrap_socket(sock, server_hostname=self.host)


class AsyncTlsConnection(Asked, aconnections.SSLConnection):
    """An encrypted connection for event loops, where the library knows fewer options."""

    def __init__(self, *, context: SharedContext, **options: Any) -> None:
        others = {key: value for key, value in options.items() if key not in context.options}
        # A client of the library, as of a sentinel, names what is not asked for, too.
        super().__init__(**{k: v for k, v in others.items() if v or not k.startswith(OCSP)})
        self.ssl_context: Any = context


_CONTEXTS: WeakKeyDictionary[Any, SharedContext] = WeakKeyDictionary()
