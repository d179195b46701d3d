"""What one process has counted since it last told the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.refusals import Counts, SampledRefusal

ACCOUNT = "account:"
"""Begins the subject under which the requests of a service account are counted, by its id."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one subject was allowed and refused; `hourly_limit` is what an hour allows it, or 0."""

    allowed: int
    refused: int
    hourly_limit: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Usage by subject, who was seen from which network, and the day quotas that run short.

    `refusals` are those that were decided in the process, without the store, and `sample` has the
    newest of all in full. A teller numbers its tallies upwards, so that the store recognizes one
    that it is told twice.
    """

    usage: Mapping[str, Usage] = field(default_factory=dict)
    sightings: Collection[tuple[str, str]] = ()
    quotas: Collection[DayQuota] = ()
    refusals: Counts = field(default_factory=dict)
    sample: Sequence[SampledRefusal] = ()
    teller: str = field(default_factory=lambda: token_hex(8), compare=False)
    number: int = field(default=1, compare=False)

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.usage or self.sightings or self.quotas or self.refusals or self.sample)
