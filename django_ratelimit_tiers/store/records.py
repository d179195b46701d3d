"""What a store keeps of refusals and usage until the database has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from asgiref.sync import sync_to_async

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.refusals import Counts, SampledRefusal
from django_ratelimit_tiers.core.sightings import Sighting
from django_ratelimit_tiers.core.tallies import Tally, Usage

MINUTE, HOUR = 60, 3600
"""Seconds."""

MARGIN = 5
"""Seconds after the end of a minute or hour before it is taken to be over."""

BUSIEST = 1000
"""Subjects whose usage of an hour is kept; past that it is estimated (Space-Saving)."""

SEEN_SECONDS = 600
"""The length of time that one set of sightings covers."""

MOST_SEEN = 5000
"""Sightings kept of that time; past that a random one gives way."""

SEEN_TTL = 4 * HOUR
"""How long sightings are kept."""

USAGE_TTL = 2 * 86_400
"""How long usage waits to be read."""

MOST_QUOTAS = 5000
"""Day quotas running short that are kept."""

BACKLOG = 60
"""Minutes waiting to be read after which refusals are no longer counted by subject."""


class Records(ABC):
    """Refusals and usage, from the moment they are counted until the database has them.

    Every method raises StoreUnavailable when the store gives no answer. Times are epoch seconds of
    the store's clock; a minute or hour is named by its first second. Reading removes nothing:
    whoever has committed what was read says so.
    """

    @abstractmethod
    def now(self) -> int:
        """Return the store's clock."""

    @abstractmethod
    def minutes(self) -> list[int]:
        """Return the minutes with refusals, the oldest first."""

    @abstractmethod
    def counts(self, minute: int) -> Counts:
        """Return the refusals of a minute."""

    @abstractmethod
    def forget_minute(self, minute: int) -> None:
        """Remove a minute that the database has."""

    @abstractmethod
    def sample(self) -> list[SampledRefusal]:
        """Return the sampled refusals that are to be forgotten next."""

    @abstractmethod
    def forget_sample(self) -> None:
        """Remove the sampled refusals that were returned last."""

    @abstractmethod
    def add(self, tally: Tally) -> None:
        """Add what a process has counted."""

    async def aadd(self, tally: Tally) -> None:
        """Do what `add` does, on an event loop."""
        await sync_to_async(self.add, thread_sensitive=False)(tally)

    @abstractmethod
    def hours(self) -> list[int]:
        """Return the hours with usage, the oldest first."""

    @abstractmethod
    def usage(self, hour: int) -> Mapping[str, Usage]:
        """Return the usage of the busiest subjects of an hour."""

    @abstractmethod
    def forget_hour(self, hour: int) -> None:
        """Remove an hour that the database has."""

    @abstractmethod
    def accounts_used(self) -> Mapping[str, int]:
        """Return when each service account was last seen, by its id."""

    @abstractmethod
    def sightings(self, start: int, end: int) -> Collection[Sighting]:
        """Return the sightings in the sets that begin at `start` or later, but before `end`."""

    @abstractmethod
    def quotas(self) -> Sequence[DayQuota]:
        """Return the day quotas that ran short in the last two days."""

    @abstractmethod
    def forget_quotas(self, quotas: Collection[DayQuota]) -> None:
        """Remove quotas whose window is over."""

    @abstractmethod
    def take_lock(self, name: str, seconds: int) -> str | None:
        """Take a lock and return the token to give it back with, None if it is held."""

    @abstractmethod
    def give_lock(self, name: str, token: str) -> None:
        """Give a lock back, unless it has expired and is held by another."""

    @abstractmethod
    def renew_lock(self, name: str, token: str, seconds: int) -> bool:
        """Hold a lock for so long from now; returns False if it has been lost."""

    @contextmanager
    def lock(self, name: str, seconds: int) -> Iterator[Lease | None]:
        """Hold a lock; yields None where another holds it. Expires if the holder dies."""
        token = self.take_lock(name, seconds)
        try:
            yield Lease(self, name, token, seconds) if token is not None else None
        finally:
            if token is not None:
                self.give_lock(name, token)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lock that is held, for so many seconds from the last renewal."""

    records: Records
    name: str
    token: str
    seconds: int

    def renew(self) -> bool:
        """Hold the lock for longer; returns False if it has expired and was lost."""
        return self.records.renew_lock(self.name, self.token, self.seconds)


def closed(times: Sequence[int], length: int, now: int) -> list[int]:
    """Return those minutes or hours that are surely over."""
    return [time for time in times if time + length + MARGIN <= now]
