"""A proxy before a server that breaks what passes through it, and counts it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.servers import HOST, free_port

RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER by which a close sends a reset."""

Reply = Callable[["FaultProxy", socket.socket, bytes], None]


def whole(_proxy: FaultProxy, client: socket.socket, reply: bytes) -> None:
    """Pass a reply on as it is."""
    client.sendall(reply)


def reset_in_the_middle(_proxy: FaultProxy, client: socket.socket, reply: bytes) -> None:
    """Pass half of a reply on and reset the connection."""
    client.sendall(reply[: len(reply) // 2])
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def one_byte_at_a_time(proxy: FaultProxy, client: socket.socket, reply: bytes) -> None:
    """Pass a reply on so slowly that every byte comes in time, but the last does not."""
    for place in range(len(reply)):
        client.sendall(reply[place : place + 1])
        time.sleep(proxy.pause_seconds)


class FaultProxy:
    """Forwards connections to a port of this machine; `reply` says how answers come back.

    `opened` counts connections and `sent` the pieces that clients sent.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = free_port()
        self.reply: Reply = whole
        self.pause_seconds = 0.1
        self.opened = self.sent = 0
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def traffic(self) -> tuple[int, int]:
        """How much was asked of the server so far."""
        return self.opened, self.sent

    def listen(self) -> None:
        """Accept connections (again)."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def refuse(self) -> None:
        """Close the port and every connection."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """Close every connection; new ones are welcome."""
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.opened += 1
            try:
                server = socket.create_connection((HOST, self.target))
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            for pump in (self._requests, self._replies):
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(65_536):
                self.sent += 1
                server.sendall(piece)
        self._end(client, server)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := server.recv(65_536):
                self.reply(self, client, piece)
        self._end(client, server)

    def _end(self, *ended: socket.socket) -> None:
        for one in ended:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._sockets.discard(one)
