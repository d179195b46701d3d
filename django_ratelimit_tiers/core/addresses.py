"""The address a request comes from: the peer's, or the client's if trusted proxies name it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Generic, TypeVar

Owner = TypeVar("Owner")

UNKNOWN = "0.0.0.0"  # noqa: S104 - nothing is bound to it
"""The address of a peer that has none, as behind a Unix socket: all of them are one client.

`TRUSTED_PROXIES` may list it, when a proxy is what connects to the socket.
"""

MAX_HOPS = 100
"""The most proxies walked over; the walk stops at the last of them."""

MAX_LENGTH = 100
"""The most characters of an address with its port, brackets and zone."""

_NODE = re.compile(
    r"""
    \s* (?:
        \[ (?P<bracketed> [0-9A-Fa-f:.]+ ) (?: % [^\]]* )? \] (?: : {port} )?
      | (?P<v4> [0-9.]+ ) (?: : {port} )?
      | (?P<v6> [0-9A-Fa-f:.]+ ) (?: % .* )?
    ) \s*
    """.replace("{port}", r"(?: [0-9]{1,5} | _[A-Za-z0-9._-]+ )"),
    re.VERBOSE | re.ASCII,
)
"""A node of RFC 7239, section 6, without its quotes; `X-Forwarded-For` writes them alike."""

_PARAMETER = re.compile(
    r"""
    \s* (?P<name> [^\s=;,"]+ ) = (?: "(?P<quoted> (?: [^"\\] | \\. )* )" | (?P<token> [^\s;,"]* ) )
    \s* (?: ; | \Z )
    """,
    re.VERBOSE,
)
"""One parameter of an element of `Forwarded` (RFC 7239, section 4)."""


@dataclass(frozen=True, slots=True)
class _Address:
    text: str
    version: int
    number: int


@dataclass(frozen=True, slots=True)
class Networks:
    """Networks as sorted ranges of numbers that do not touch, by the version of the protocol."""

    starts: Mapping[int, Sequence[int]]
    ends: Mapping[int, Sequence[int]]

    def __bool__(self) -> bool:
        return any(self.starts.values())

    @property
    def cover_all(self) -> bool:
        """Whether every address of one version of the protocol is in them."""
        return any(
            (first, last) == (0, 2**bits - 1)
            for version, bits in ((4, 32), (6, 128))
            for first, last in zip(self.starts[version], self.ends[version], strict=True)
        )

    def contains(self, address: str) -> bool:
        """Whether an address is in one of the networks; what is no address is in none."""
        parsed = _parse(address)
        return parsed is not None and self._hold(parsed)

    def _hold(self, address: _Address) -> bool:
        index = bisect_right(self.starts[address.version], address.number) - 1
        return index >= 0 and address.number <= self.ends[address.version][index]


class NetworkMap(Generic[Owner]):
    """Finds whose networks an address is in, however many there are."""

    def __init__(self, owned: Sequence[tuple[Networks, Owner]]) -> None:
        self._starts: dict[int, list[int]] = {4: [-1], 6: [-1]}
        self._owners: dict[int, list[tuple[Owner, ...]]] = {4: [()], 6: [()]}
        for version, starts in self._starts.items():
            turns: dict[int, set[int]] = defaultdict(set)
            for place, (networks, _) in enumerate(owned):
                for first in networks.starts[version]:
                    turns[first].add(place)
                for last in networks.ends[version]:
                    turns[last + 1].add(place)
            places: set[int] = set()
            for number in sorted(turns):
                places = places ^ turns[number]
                starts.append(number)
                self._owners[version].append(tuple(owned[place][1] for place in sorted(places)))

    def owners(self, address: str) -> tuple[Owner, ...]:
        """Return the owners in the order in which they were given."""
        parsed = _parse(address)
        if parsed is None:
            return ()
        place = bisect_right(self._starts[parsed.version], parsed.number) - 1
        return self._owners[parsed.version][place]


def parse_networks(texts: Sequence[str]) -> Networks:
    """Return the networks that are written as CIDRs or as single addresses.

    Raises ValueError, with the text that is not one.
    """
    if isinstance(texts, str):
        raise ValueError(f"networks must be a list, such as [{texts!r}], not one string")
    return _networks(tuple(texts))


def client_address(
    remote_addr: str,
    headers: Mapping[str, str],
    *,
    trusted_proxies: Sequence[str] | Networks | int,
    header: str = "X-Forwarded-For",
) -> str:
    """Return the canonical address of the client that a request comes from.

    The header counts only when the peer is a trusted proxy. It is walked from the right over
    trusted proxies to the first hop that is not one; what cannot be read as an address stops the
    walk at the last hop that could. `trusted_proxies` may also be the number of proxies that every
    request passes, whatever their addresses. `header` is `Forwarded` (RFC 7239), a list like
    `X-Forwarded-For`, or one address like `X-Real-IP`.

    A peer without an address is `UNKNOWN`. Raises ValueError only for wrong `trusted_proxies`.
    """
    client = _parse(remote_addr) or _UNKNOWN
    if isinstance(trusted_proxies, int):
        return _walk_hops(client, _hops(headers, header), trusted_proxies).text
    if not trusted_proxies:
        return client.text
    proxies = (
        trusted_proxies
        if isinstance(trusted_proxies, Networks)
        else parse_networks(trusted_proxies)
    )
    if not proxies._hold(client):
        return client.text
    for hop in _hops(headers, header):
        if hop is None:
            break
        client = hop
        if not proxies._hold(client):
            break
    return client.text


def address_subject(address: str, ipv6_prefix: int = 64) -> str:
    """Return the subject that an address is counted under: `ip:192.0.2.7`, `ip:2001:db8::/64`.

    IPv6 addresses are grouped by their first `ipv6_prefix` bits, since a network of them is given
    to one customer. Raises ValueError for a prefix that is not from 1 to 128.
    """
    if not 1 <= ipv6_prefix <= 128:
        raise ValueError(f"ipv6_prefix must be from 1 to 128, not {ipv6_prefix}")
    parsed = _parse(address) or _UNKNOWN
    if parsed.version == 4:
        return f"ip:{parsed.text}"
    rest = 128 - ipv6_prefix
    return f"ip:{IPv6Address(parsed.number >> rest << rest)}/{ipv6_prefix}"


def _walk_hops(client: _Address, hops: Iterator[_Address | None], proxies: int) -> _Address:
    if proxies < 0 or isinstance(proxies, bool):
        raise ValueError(f"trusted_proxies must be a number of proxies from 0, not {proxies!r}")
    for _, hop in zip(range(proxies), hops, strict=False):
        if hop is None:
            break
        client = hop
    return client


def _hops(headers: Mapping[str, str], header: str) -> Iterator[_Address | None]:
    """Yield the hops that a header names, nearest first; None is one that cannot be read."""
    read = _forwarded_for if header.lower() == "forwarded" else _parse
    for element in _elements(_value(headers, header)):
        yield read(element)


def _value(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is not None:
        return value
    name = name.lower()
    return ",".join(value for other, value in headers.items() if other.lower() == name)


def _elements(value: str) -> Iterator[str]:
    """Yield the elements of a list from the right; a comma within quotes separates nothing.

    Read from the right, a quote that a client left open cannot swallow what proxies appended.
    """
    if not value:
        return
    element = ""
    for piece in reversed(value.rsplit(",", MAX_HOPS)):
        element = f"{piece},{element}" if element else piece
        if not _has_open_quote(element):
            yield element
            element = ""
    if element:
        yield element


def _has_open_quote(element: str) -> bool:
    if '"' not in element:
        return False
    return element.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 1


def _forwarded_for(element: str) -> _Address | None:
    nodes = []
    end = 0
    while end < len(element):
        parameter = _PARAMETER.match(element, end)
        if parameter is None:
            return None
        end = parameter.end()
        if parameter["name"].lower() == "for":
            quoted = parameter["quoted"]
            nodes.append(parameter["token"] if quoted is None else quoted.replace("\\", ""))
    return _parse(nodes[0]) if len(nodes) == 1 else None


def _parse(text: str) -> _Address | None:
    return _read(text) if len(text) <= MAX_LENGTH else None


@lru_cache(maxsize=8192)
def _read(text: str) -> _Address | None:
    node = _NODE.fullmatch(text)
    if node is None:
        return None
    try:
        address = ip_address(node["bracketed"] or node["v4"] or node["v6"])
    except ValueError:
        return None
    if address.version == 4 and not node["v4"]:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return _Address(str(address), address.version, int(address))


_UNKNOWN = _Address(UNKNOWN, 4, int(IPv4Address(UNKNOWN)))


@lru_cache(maxsize=64)
def _networks(texts: tuple[str, ...]) -> Networks:
    ranges: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for text in texts:
        network = _network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
        ranges[network.version].append((first, last))
    merged = {version: _merge(sorted(found)) for version, found in ranges.items()}
    return Networks(
        {version: [first for first, _ in found] for version, found in merged.items()},
        {version: [last for _, last in found] for version, found in merged.items()},
    )


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text.strip())
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{text!r} is not a network such as 10.0.0.0/8: {error}") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
