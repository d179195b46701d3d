"""One POST to a webhook: http or https only, no redirect followed, bounded in time and size.

Staff with the permission to change alert rules chooses where this connects to, networks of the
site's own among them, since that is where chat servers live. Link-local addresses, where clouds
serve the secrets of their machines, are always refused; the answer's body is never read.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from threading import Timer

from django_ratelimit_tiers.core.webhooks import Webhook, is_allowed, parse_webhook

TIMEOUT = 5.0
"""Seconds for connecting, and for each part of the answer."""

DEADLINE = 15.0
"""Seconds for all of it."""

RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers that may be another one later."""


class WebhookFailed(Exception):
    """The webhook gave no good answer; it may give one later."""


class WebhookRefused(Exception):
    """The webhook refused what was sent, or its address cannot be used: no use to try again."""


def post(url: str, content: bytes, headers: Mapping[str, str]) -> None:
    """Post content; raises WebhookFailed or WebhookRefused unless the answer is 200 to 299."""
    try:
        webhook = parse_webhook(url)
    except ValueError as error:
        raise WebhookRefused(str(error)) from error
    connection = _Connection(webhook)
    deadline = Timer(DEADLINE, connection.give_up)
    deadline.daemon = True
    deadline.start()
    try:
        connection.request("POST", webhook.target, content, dict(headers))
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise WebhookFailed(f"{type(error).__name__}: {error}") from error
    except ValueError as error:
        raise WebhookRefused(str(error)) from error
    finally:
        deadline.cancel()
        connection.close()
    if 200 <= status < 300:
        return
    if status in RETRIED:
        raise WebhookFailed(f"the webhook answered {status}")
    raise WebhookRefused(f"the webhook answered {status}")


class _Connection(HTTPConnection):
    """A connection to the very address that was found to be allowed."""

    def __init__(self, webhook: Webhook) -> None:
        super().__init__(webhook.host, webhook.port, timeout=TIMEOUT)
        self._end = time.monotonic() + DEADLINE
        self._tls = ssl.create_default_context() if webhook.is_tls else None

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for address in addresses:
            if not is_allowed(address):
                raise WebhookRefused(f"{address} is no address for a webhook")
        plain = self._connect_to_one(addresses)
        try:
            tls = self._tls
            self.sock = tls.wrap_socket(plain, server_hostname=self.host) if tls else plain
        except BaseException:
            plain.close()
            raise
        self._seconds_left()  # it may have been given up before there was a socket to shut down

    def give_up(self) -> None:
        """End whatever is being waited for."""
        with suppress(AttributeError, OSError):  # there is no connection yet, or no more
            self.sock.shutdown(socket.SHUT_RDWR)

    def _connect_to_one(self, addresses: Sequence[str]) -> socket.socket:
        *others, last = addresses
        for address in others:
            with suppress(OSError):
                return self._connect_to(address)
        return self._connect_to(last)

    def _connect_to(self, address: str) -> socket.socket:
        timeout = min(TIMEOUT, self._seconds_left())
        plain = socket.create_connection((address, self.port), timeout=timeout)
        plain.settimeout(TIMEOUT)
        return plain

    def _seconds_left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long to connect")
        return left
