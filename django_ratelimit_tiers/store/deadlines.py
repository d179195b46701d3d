"""Connections of the client library on which every wait ends at a deadline."""

from __future__ import annotations

import time
from typing import Any


class BoundedSocket:
    """A socket on which every operation ends by the deadline of its connection."""

    __slots__ = ("_connection", "_socket")

    def __init__(self, socket: Any, connection: Any) -> None:
        self._socket, self._connection = socket, connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, *arguments: Any) -> bytes:
        return self._in_time().recv(*arguments)  # type: ignore[no-any-return]

    def recv_into(self, *arguments: Any) -> int:
        return self._in_time().recv_into(*arguments)  # type: ignore[no-any-return]

    def sendall(self, *arguments: Any) -> None:
        self._in_time().sendall(*arguments)

    def _in_time(self) -> Any:
        left = self._connection.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the call is over")
        self._socket.settimeout(left)
        return self._socket


class Bounded:
    """Makes a connection of the client library end every wait at its `deadline`."""

    deadline = 0.0

    def _connect(self) -> BoundedSocket:
        return BoundedSocket(super()._connect(), self)  # type: ignore[misc]

    @property
    def socket_timeout(self) -> float | None:
        """Seconds until the deadline."""
        return max(self.deadline - time.monotonic(), 0.001)

    @socket_timeout.setter
    def socket_timeout(self, seconds: float | int | None) -> None:
        """Ignore the library's own time-out."""

    socket_connect_timeout = socket_timeout
