"""Clients of a site, and what they saw."""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.servers import HOST

PATHS = ["/plain/", "/api/search/?q=a", "/api/items/7/", "/async/", "/about/nowhere/", "/en/about/"]

YEAR_LIMIT = re.compile(r'"anonymous-31622400s";q=(\d+)')


@dataclass
class Seen:
    """What clients saw; `charged` and `unsure` count by address.

    A response with numbers was charged exactly once. One without was answered while the store was
    away: its charge may have been made before the answer was lost, or not at all.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    charged: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    broken: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, address: str, status: int, headers: dict[str, str], seconds: float) -> None:
        self.statuses[status] += 1
        self.seconds.append(seconds)
        if "ratelimit" not in headers:
            self.unsure[address] += 1
        elif status == 429:
            self.refused += 1
        else:
            self.charged[address] += 1

    def merge(self, other: Seen) -> None:
        self.statuses += other.statuses
        self.charged += other.charged
        self.unsure += other.unsure
        self.refused += other.refused
        self.broken += other.broken
        self.seconds += other.seconds


def ask(port: int, path: str, address: str) -> tuple[int, dict[str, str]]:
    """Return the status and the header fields of one request."""
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    try:
        connection.request("GET", path, headers={"X-Forwarded-For": address})
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


class ClientThread(threading.Thread):
    """Sends one request after the other until it is told to stop."""

    def __init__(self, number: int, port: int, addresses: int, strangers: float = 0) -> None:
        super().__init__(daemon=True)
        self.seen = Seen()
        self._number = number
        self._strangers = strangers
        self._port = port
        self._addresses = [f"10.0.{number}.{n}" for n in range(1, addresses + 1)]
        self._random = random.Random(number)
        self._stop_asking = threading.Event()

    def run(self) -> None:
        while not self._stop_asking.is_set():
            address = self._address()
            path = self._random.choice(PATHS)
            started = time.monotonic()
            try:
                status, headers = ask(self._port, path, address)
            except (OSError, http.client.HTTPException):
                self.seen.broken += 1
                self.seen.unsure[address] += 1
                continue
            self.seen.add(address, status, headers, time.monotonic() - started)

    def _address(self) -> str:
        """Return one of the client's addresses or, for a share of the requests, one never seen."""
        if self._random.random() >= self._strangers:
            return self._random.choice(self._addresses)
        number = len(self.seen.seconds)
        if number % 2:
            return f"2001:db8:{self._number << 8 | number >> 16:x}:{number & 0xFFFF:x}::1"
        return f"10.{64 + self._number}.{number >> 8 & 255}.{number & 255}"

    def finish(self) -> Seen:
        self._stop_asking.set()
        self.join()
        return self.seen
