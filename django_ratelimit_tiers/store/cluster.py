"""Counters in a Redis or Valkey cluster.

The keys are divided into PARTS, each with a hash tag of its own, so that everything one script
needs lies in one slot: the counters of a subject, the revisions, and the counts of refusals. To
each part the cluster is a single server; what only holds within one part is said in `execute`.
The cluster client of the client library is not used: it retries, and bounds no whole call.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4
from zlib import crc32

from redis.connection import ConnectionPool
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.plans import Plan, StalePlan
from django_ratelimit_tiers.core.policies import Charge, Mode
from django_ratelimit_tiers.core.refusals import Counts, RefusalKey
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.agreements import agreed_revision
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.examination import examine_server
from django_ratelimit_tiers.store.findings import Finding
from django_ratelimit_tiers.store.nodes import Nodes, Slot
from django_ratelimit_tiers.store.protocol import REVISION_TTL, Protocol
from django_ratelimit_tiers.store.redis import RedisStore
from django_ratelimit_tiers.store.server_records import ServerRecords

PARTS = 16
"""Into how many slots the keys are divided; as many primaries can share the work."""

Request = tuple["Part", str, tuple[Any, ...], dict[str, Any]]
"""A method of a part to be called, by its synchronous name."""


class Part(RedisStore):
    """The store of one part."""

    def __init__(self, nodes: Nodes, tag: str, whole: Protocol, timeout: float) -> None:
        prefix = f"{whole.prefix}:{{{tag}}}"
        cardinality = max(1, whole.cardinality // PARTS)
        self.timeout = timeout
        self.protocol = replace(whole, prefix=prefix, cardinality=cardinality)
        self.records = ServerRecords(self.command, self.acommand, self.protocol)
        self._server = Slot(nodes, key_slot(prefix.encode()))


@dataclass(frozen=True, slots=True)
class Share:
    """What of a plan concerns one part, and the places of its charges in the plan."""

    part: Part
    places: tuple[int, ...]
    plan: Plan


class RedisClusterStore(Store):
    """A store on the cluster that the server at `url` belongs to.

    `timeout` bounds each call to a part, in seconds, connecting and redirections included.
    """

    def __init__(self, *, url: str, timeout: float = 0.1, protocol: Protocol | None = None) -> None:
        self._nodes = Nodes(ConnectionPool.from_url(url))
        whole = protocol or Protocol()
        self._parts = [Part(self._nodes, tag, whole, timeout) for tag in _tags()]
        self.records = ClusterRecords(self._parts)

    def execute(self, plan: Plan) -> Decision:
        """Decide a plan in one call for each part that its subjects lie in.

        Parts are charged in the order of the charges; when one refuses, or gives no answer, what
        the earlier ones charged is given back. In between others may see it charged.
        """
        return _drive(self._decide(plan))  # type: ignore[no-any-return]

    async def aexecute(self, plan: Plan) -> Decision:
        return await _adrive(self._decide(plan))  # type: ignore[no-any-return]

    def refund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        _drive(self._give_back(charges, now=now, charged_at=charged_at))

    async def arefund(
        self, charges: Sequence[Charge], *, now: int | None = None, charged_at: int | None = None
    ) -> None:
        await _adrive(self._give_back(charges, now=now, charged_at=charged_at))

    def reset(self, subject: str) -> None:
        self._part_of(subject).reset(subject)

    async def areset(self, subject: str) -> None:
        await self._part_of(subject).areset(subject)

    def ping(self) -> bool:
        for part in self._parts:
            part.ping()
        return True

    async def aping(self) -> bool:
        for part in self._parts:
            await part.aping()
        return True

    def examine(self) -> Iterator[Finding]:
        for number, part in enumerate(self._parts, 1):
            where = f"Part {number} of the store"
            yield from examine_server(part, part.command, part.timeout, where)

    def revision(self) -> str:
        """Return the token that all parts have; where they differ, they are given a new one."""
        return agreed_revision(self._parts)

    def announce_policy(self) -> None:
        token = uuid4().hex
        for part in self._parts:
            part.command("SET", part.protocol.revision_key, token, "EX", REVISION_TTL)

    def announce_subjects(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            self._part_of(subject).announce_subjects([subject])

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._nodes.close()

    async def aclose(self) -> None:
        """Close the idle connections of the running event loop."""
        await self._nodes.aclose()

    def _part_of(self, subject: str) -> Part:
        return self._parts[crc32(subject.encode(errors="surrogatepass")) % PARTS]

    def _shares(self, plan: Plan) -> Iterator[Share]:
        parts = list(dict.fromkeys(self._part_of(subject) for subject in plan.subjects))
        if len(parts) <= 1:
            part = parts[0] if parts else self._parts[0]
            yield Share(part, tuple(range(len(plan.charges))), plan)
            return
        for part in parts:
            places = tuple(
                place
                for place, charge in enumerate(plan.charges)
                if self._part_of(charge.subject) is part
            )
            known = plan.subject_revisions.items()
            yield Share(
                part,
                places,
                replace(
                    plan,
                    charges=tuple(plan.charges[place] for place in places),
                    labels=tuple(plan.labels[place] for place in places) if plan.labels else (),
                    subject_revisions={s: r for s, r in known if self._part_of(s) is part},
                    form=None if plan.form is None else (plan.form, places),
                ),
            )

    def _decide(self, plan: Plan) -> Generator[Request, Any, Decision]:
        answered: list[tuple[Share, Decision]] = []
        shares = list(self._shares(plan))
        now = plan.now
        for share in shares:
            try:
                asked = share.plan if now == share.plan.now else replace(share.plan, now=now)
                decision: Decision = yield share.part, "execute", (asked,), {}
            except (StoreUnavailable, StalePlan):
                yield from _undo(answered)
                raise
            now = decision.now  # one clock for all parts, so that a refund finds what was charged
            answered.append((share, decision))
            if plan.spend and decision.refusing:
                yield from _undo(answered[:-1])
                answered = yield from self._look(shares, answered[-1])
                break
        outcomes = {
            place: outcome
            for share, decision in answered
            for place, outcome in zip(share.places, decision.outcomes, strict=True)
        }
        return Decision(tuple(outcomes[place] for place in sorted(outcomes)), now or 0)

    def _look(
        self, shares: Sequence[Share], refused: tuple[Share, Decision]
    ) -> Generator[Request, Any, list[tuple[Share, Decision]]]:
        """Return what every part says now that nothing is charged: the numbers of a refusal.

        When a part does not answer it stays a refusal, with the numbers that are known by then.
        """
        answers = [refused]
        with suppress(StoreUnavailable):
            for share in shares:
                if share is not refused[0]:
                    look = replace(
                        share.plan,
                        spend=False,
                        now=refused[1].now,
                        revision=None,
                        subject_revisions={},
                    )
                    answers.append((share, (yield share.part, "execute", (look,), {})))
        return answers

    def _give_back(
        self, charges: Sequence[Charge], **times: int | None
    ) -> Generator[Request, Any, None]:
        for share in self._shares(Plan(tuple(charges))):
            yield share.part, "refund", (share.plan.charges,), times


class ClusterRecords(ServerRecords):
    """Records whose refusals are counted in every part; all else is in the first."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__(parts[0].command, parts[0].acommand, parts[0].protocol)
        self._parts = [part.records for part in parts]

    def minutes(self) -> list[int]:
        return sorted({minute for part in self._parts for minute in part.minutes()})

    def counts(self, minute: int) -> Counts:
        counts: dict[RefusalKey, int] = {}
        for part in self._parts:
            for key, count in part.counts(minute).items():
                counts[key] = counts.get(key, 0) + count
        # Looked at last: of a minute that is being forgotten some parts are missing.
        return {} if self._command("EXISTS", self._written_key(minute)) else counts

    def forget_minute(self, minute: int) -> None:
        self._command("SET", self._written_key(minute), 1, "EX", self._protocol.count_ttl)
        for part in self._parts:
            part.forget_minute(minute)

    def _written_key(self, minute: int) -> str:
        return f"{self._base}:{minute}:written"


def _undo(answered: Collection[tuple[Share, Decision]]) -> Generator[Request, Any, None]:
    for share, decision in answered:
        charged = [
            outcome.charge
            for outcome in decision.outcomes
            if share.plan.spend and outcome.allowed and outcome.charge.policy.mode is not Mode.OFF
        ]
        if charged:
            with suppress(StoreUnavailable):
                times = {"now": decision.now, "charged_at": decision.now}
                yield share.part, "refund", (charged,), times


def _drive(requests: Generator[Request, Any, Any]) -> Any:
    answer, error = None, None
    while True:
        try:
            step = requests.throw(error) if error else requests.send(answer)
        except StopIteration as stop:
            return stop.value
        part, name, arguments, options = step
        try:
            answer, error = getattr(part, name)(*arguments, **options), None
        except (StoreUnavailable, StalePlan) as failure:
            error = failure


async def _adrive(requests: Generator[Request, Any, Any]) -> Any:
    answer, error = None, None
    while True:
        try:
            step = requests.throw(error) if error else requests.send(answer)
        except StopIteration as stop:
            return stop.value
        part, name, arguments, options = step
        try:
            answer, error = await getattr(part, f"a{name}")(*arguments, **options), None
        except (StoreUnavailable, StalePlan) as failure:
            error = failure


def _tags() -> Iterator[str]:
    """Yield hash tags whose slots are spread evenly, as slots over nodes usually are."""
    width = REDIS_CLUSTER_HASH_SLOTS // PARTS
    for first in range(0, REDIS_CLUSTER_HASH_SLOTS, width):
        number = 0
        while not first <= key_slot(f"{{{number}}}".encode()) < first + width:
            number += 1
        yield str(number)
