"""A proxy before a server that counts what passes: commands, and turns of question and answer."""

from __future__ import annotations

import socket
from threading import Lock, Thread
from typing import Self

from tests.servers import HOST


class CountingProxy:
    """Forwards connections to a server, and keeps the commands and the round trips they took.

    A round trip begins whenever something is sent after an answer, or first of all.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._lock = Lock()
        self.commands: list[list[bytes]] = []
        self.round_trips = 0

    @property
    def url(self) -> str:
        """The URL of the server behind this proxy."""
        return f"redis://{HOST}:{self._listener.getsockname()[1]}/0"

    def clear(self) -> None:
        """Count from nothing."""
        self.commands, self.round_trips = [], 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for one in self._sockets:
                _shut_down(one)
        for thread in self._threads:
            thread.join(timeout=10)
        for one in self._sockets:
            one.close()

    def _start(self, run: object, *arguments: object) -> None:
        thread = Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._port))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += client, server
            turns = [False]
            self._start(self._ask, client, server, turns)
            self._start(self._answer, server, client, turns)

    def _ask(self, client: socket.socket, server: socket.socket, turns: list[bool]) -> None:
        unread = b""
        while data := _received(client):
            with self._lock:
                if not turns[0]:
                    self.round_trips += 1
                turns[0] = True
                unread += data
                while (command := _parse(unread)) is not None:
                    words, length = command
                    self.commands.append(words)
                    unread = unread[length:]
            server.sendall(data)
        _shut_down(server)

    def _answer(self, server: socket.socket, client: socket.socket, turns: list[bool]) -> None:
        while data := _received(server):
            turns[0] = False
            client.sendall(data)
        _shut_down(client)


def _received(one: socket.socket) -> bytes:
    try:
        return one.recv(65_536)
    except OSError:
        return b""


def _shut_down(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _parse(data: bytes) -> tuple[list[bytes], int] | None:
    """Return the first whole command of a stream and its length, None while it is not whole."""
    head, found, _ = data.partition(b"\r\n")
    if not found:
        return None
    words = []
    at = len(head) + 2
    for _ in range(int(head[1:])):
        size, found, _ = data[at:].partition(b"\r\n")
        start = at + len(size) + 2
        if not found or len(data) < start + int(size[1:]) + 2:
            return None
        words.append(data[start : start + int(size[1:])])
        at = start + int(size[1:]) + 2
    return words, at
