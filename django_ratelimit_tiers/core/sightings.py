"""Who was seen from where: one subject from many addresses, many subjects from one address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from django_ratelimit_tiers.core.verdicts import Verdict, number, shown

MOST_ADDRESSES = 20
"""From how many addresses in an hour one subject is rotating them."""

MOST_SUBJECTS = 25
"""How many subjects in an hour make an address a farm."""

MOST_NEW_SUBJECTS = 10
"""How many subjects never seen before in an hour make an address a farm."""

TIMES_USUAL = 3
"""Where many are usual, only so many times as many are abnormal."""

IPV6_PREFIX = 64
"""Bits of an IPv6 address that name one network: what a single customer is given at least."""

UNREADABLE = "unreadable"
"""The network of everything that is no address, so that garbage counts once."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One request of a subject (`user:42`, `key:<digest>`) from an address."""

    subject: str
    address: str
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class SubjectNetworks:
    """The networks that one subject came from, and from how many it usually does (0: unknown)."""

    subject: str
    networks: frozenset[str]
    usual: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkSubjects:
    """The subjects that came from one network, and how many usually do (0: unknown).

    `new` are those among them that were never seen before anywhere.
    """

    network: str
    subjects: frozenset[str]
    new: frozenset[str] = frozenset()
    usual: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationVerdict(Verdict):
    """Whether a subject comes from unusually many networks."""

    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmingVerdict(Verdict):
    """Whether unusually many subjects, or new ones, come from one network."""

    network: str


def network_of(address: str, ipv6_prefix: int = IPV6_PREFIX) -> str:
    """Return the IPv4 address itself or the IPv6 network, UNREADABLE for what is neither."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return UNREADABLE
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    host_bits = 128 - ipv6_prefix
    return f"{IPv6Address(int(parsed) >> host_bits << host_bits)}/{ipv6_prefix}"


def networks_by_subject(
    sightings: Iterable[Sighting], ipv6_prefix: int = IPV6_PREFIX
) -> tuple[SubjectNetworks, ...]:
    """Group sightings of users and API keys by subject, the most travelled first."""
    seen = defaultdict(set)
    for sighting in sightings:
        if _is_somebody(sighting.subject):
            seen[sighting.subject].add(network_of(sighting.address, ipv6_prefix))
    ordered = sorted(seen.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(SubjectNetworks(subject, frozenset(networks)) for subject, networks in ordered)


def subjects_by_network(
    sightings: Iterable[Sighting], ipv6_prefix: int = IPV6_PREFIX
) -> tuple[NetworkSubjects, ...]:
    """Group sightings of users and API keys by network, the most crowded first."""
    seen = defaultdict(set)
    new = defaultdict(set)
    for sighting in sightings:
        if not _is_somebody(sighting.subject):
            continue
        network = network_of(sighting.address, ipv6_prefix)
        seen[network].add(sighting.subject)
        if sighting.is_new:
            new[network].add(sighting.subject)
    ordered = sorted(seen.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(
        NetworkSubjects(network, frozenset(subjects), frozenset(new[network]))
        for network, subjects in ordered
    )


def ip_rotation(seen: SubjectNetworks, minute: int, most: int = MOST_ADDRESSES) -> RotationVerdict:
    """Judge the networks of one subject during the hour that ends with `minute`.

    Abnormal from `most` networks on, or TIMES_USUAL its usual number if that is more.
    """
    value = len(seen.networks)
    threshold = max(most, TIMES_USUAL * seen.usual)
    return RotationVerdict(
        subject=seen.subject,
        minute=minute,
        value=value,
        level=seen.usual,
        threshold=threshold,
        explanation=(
            f"{shown(seen.subject)} came from at least {number(value)} addresses in an hour; "
            f"usual is {number(seen.usual)}, and from {number(threshold)} on it is abnormal."
        ),
    )


def account_farming(
    seen: NetworkSubjects,
    minute: int,
    most: int = MOST_SUBJECTS,
    most_new: int = MOST_NEW_SUBJECTS,
) -> FarmingVerdict:
    """Judge the subjects of one network during the hour that ends with `minute`.

    Abnormal from `most` subjects on (or TIMES_USUAL the usual number if that is more: an office or
    a mobile carrier), or from `most_new` new ones on, whichever is exceeded further.
    """
    known = (len(seen.subjects), seen.usual, max(most, TIMES_USUAL * seen.usual), "users or keys")
    new = (len(seen.new), 0.0, float(most_new), "new users or keys")
    value, level, threshold, noun = max(known, new, key=lambda count: count[0] / count[2])
    return FarmingVerdict(
        network=seen.network,
        minute=minute,
        value=value,
        level=level,
        threshold=threshold,
        unit=noun,
        explanation=(
            f"At least {number(value)} {noun} came from {shown(seen.network)} in an hour; "
            f"usual is {number(level)}, and from {number(threshold)} on it is abnormal."
        ),
    )


def _is_somebody(subject: str) -> bool:
    """Whether a subject is a user or an API key, not an address or everybody."""
    return subject.startswith(("user:", "key:"))
