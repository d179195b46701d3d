"""Who was seen from where: one subject from many addresses, many subjects from one address."""

from __future__ import annotations

from dataclasses import dataclass

from django_ratelimit_tiers.core.verdicts import Verdict
from django_ratelimit_tiers.core.words import number, shown

MOST_ADDRESSES = 20
"""From how many addresses in an hour one subject is rotating them."""

MOST_SUBJECTS = 25
"""How many subjects in an hour make an address a farm."""

MOST_NEW_SUBJECTS = 10
"""How many subjects never seen before in an hour make an address a farm."""

TIMES_USUAL = 3
"""Where many are usual, only so many times as many are abnormal."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A subject (`user:42`, `key:<digest>`) and a network that it was seen in.

    That is an IPv4 address, or as much of an IPv6 one as the setting IPV6_PREFIX says.
    """

    subject: str
    network: str


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
