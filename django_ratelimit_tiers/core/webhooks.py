"""Where a webhook may be, and what is asked for there."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

MOST_URL = 500
"""The length of the targets of notices in the database."""

PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"[\w.-]+ | [0-9a-f:.]+ (% \w+)?", re.VERBOSE)
_PRINTABLE = re.compile(r"[!-~]*")


class Webhook(NamedTuple):
    """A host, its port, and the path and query that are asked for there."""

    is_tls: bool
    host: str
    port: int
    target: str


def parse_webhook(url: str) -> Webhook:
    """Return where a URL leads; raises ValueError, with what would be right, if nowhere.

    Hosts of one word are right: many a chat server of a site's own network has no other name.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme not in PORTS or not _is_host(host) or port == 0 or len(url) > MOST_URL:
        raise ValueError(
            f"Write an http or https URL with a host, of {MOST_URL} characters at most."
        )
    if parts.username is not None or parts.password is not None:
        message = "A user and a password are never sent: leave them out, and give a secret."
        raise ValueError(message)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if re.search(r"\s", url) or not _PRINTABLE.fullmatch(target):
        raise ValueError("Write spaces, and characters that are not ASCII, as their bytes: %20.")
    if not _may_be_at(host):
        raise ValueError(f"{host} is no address for a webhook.")
    return Webhook(parts.scheme == "https", host, port or PORTS[parts.scheme], target)


def is_allowed(address: str) -> bool:
    """Return whether a webhook may be at an address: not link-local, multicast or unspecified."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = mapped or parsed
    return not (parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


def _is_host(text: str) -> bool:
    try:
        text.encode("idna")  # as it is looked up
    except UnicodeError:
        return False
    return _HOST.fullmatch(text) is not None


def _may_be_at(host: str) -> bool:
    try:
        return is_allowed(host)
    except ValueError:  # a name: its addresses are looked at when something is sent
        return True
