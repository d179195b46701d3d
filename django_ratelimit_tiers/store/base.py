"""What a store of counters must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from asgiref.sync import sync_to_async

from django_ratelimit_tiers.core.decisions import Decision, Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.store.findings import Finding
from django_ratelimit_tiers.store.records import Records


class Store(ABC):
    """Where counters live.

    Every method raises StoreUnavailable when the store gives no answer. Times are integer
    microseconds since the epoch; `now=None` is the store's own clock. The asynchronous twins wrap
    the synchronous methods in a thread unless a store has better.
    """

    shared: ClassVar[bool] = True
    """Whether every process of the site sees the same counters and revisions."""

    records: Records
    """What was refused and used, until the database has it."""

    @abstractmethod
    def execute(self, plan: Plan) -> Decision:
        """Decide a plan in one round trip; raises StalePlan."""

    async def aexecute(self, plan: Plan) -> Decision:
        return await sync_to_async(self.execute, thread_sensitive=False)(plan)

    def acquire(self, charges: Sequence[Charge], *, now: int | None = None) -> tuple[Outcome, ...]:
        """Charge all enforced policies or none, and return one outcome for each charge."""
        return self.execute(Plan(tuple(charges), now=now)).outcomes

    async def aacquire(
        self, charges: Sequence[Charge], *, now: int | None = None
    ) -> tuple[Outcome, ...]:
        return (await self.aexecute(Plan(tuple(charges), now=now))).outcomes

    def peek(self, charges: Sequence[Charge], *, now: int | None = None) -> tuple[Outcome, ...]:
        """Return what `acquire` would answer, without spending."""
        return self.execute(Plan(tuple(charges), now=now, spend=False)).outcomes

    async def apeek(
        self, charges: Sequence[Charge], *, now: int | None = None
    ) -> tuple[Outcome, ...]:
        return (await self.aexecute(Plan(tuple(charges), now=now, spend=False))).outcomes

    @abstractmethod
    def refund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        """Give back charges made at `charged_at`, or the newest ones when that is not known."""

    async def arefund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        await sync_to_async(self.refund, thread_sensitive=False)(
            charges, now=now, charged_at=charged_at
        )

    @abstractmethod
    def reset(self, subject: str) -> None:
        """Forget everything that a subject has used."""

    async def areset(self, subject: str) -> None:
        await sync_to_async(self.reset, thread_sensitive=False)(subject)

    @abstractmethod
    def ping(self) -> bool:
        """Return True, or raise StoreUnavailable when the store does not answer."""

    async def aping(self) -> bool:
        return await sync_to_async(self.ping, thread_sensitive=False)()

    def examine(self) -> Iterator[Finding]:
        """Yield what is worth knowing about the store before traffic finds it out."""
        yield from ()

    def close(self) -> None:  # noqa: B027 - a store without connections closes nothing
        """Close what is idle; the store can still be used, and opens it again."""

    @abstractmethod
    def revision(self) -> str:
        """Return the token of the current policy edition; a store without one makes one."""

    @abstractmethod
    def announce_policy(self) -> None:
        """Make every plan stale that was made with the policy edition until now."""

    @abstractmethod
    def announce_subjects(self, subjects: Iterable[str]) -> None:
        """Make every plan stale that was made with the tier these subjects had until now."""
