"""Plans as calls of the scripts, and replies as decisions.

Everything here is pure and shared by every way to reach a server.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from django_ratelimit_tiers.core.algorithms import standings
from django_ratelimit_tiers.core.decisions import Decision, Grant
from django_ratelimit_tiers.core.plans import Plan, StalePlan, outcome
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.core.tuples import filled
from django_ratelimit_tiers.store.layouts import HEADER, Layout, layout_of, pack_charges
from django_ratelimit_tiers.store.scripts import ACQUIRE, REFUND, RESET, Call, written

ANY = b"*"
"""Stands for a revision that need not be compared."""

STALE = 0
"""Begins a reply that names newer revisions and decided nothing."""

REVISION_TTL = 30 * 86_400
"""Seconds to live of the policy revision: a lost one costs one look at the database."""

SUBJECT_REVISION_TTL = 3600
"""Seconds to live of a subject's revision; looked-up tiers must be forgotten sooner."""

MOST_LAYOUTS = 4096
"""How many layouts one protocol remembers."""

Prepared: TypeAlias = "tuple[Protocol, Call, Layout]"
"""Who made it of a plan, the call that decides that, and how its reply is read."""


@dataclass(slots=True)
class Memory:
    """What was worked out for plans of one policy revision, or of none."""

    revision: str | None = None
    layouts: dict[Hashable, Layout] = field(default_factory=dict)

    def turn_to(self, revision: str | None) -> None:
        """Forget what was for plans of another revision: nobody makes those any more."""
        if revision is not None and revision != self.revision:
            self.revision = revision
            self.layouts.clear()


@dataclass(frozen=True, slots=True)
class Protocol:
    """The key names and limits that one store uses.

    A subject's keys share a hash tag, and no two subjects or kinds of key are written alike: the
    counters' key ends with the tag, every other key of a subject goes on after it.
    """

    prefix: str = "rlt"
    cardinality: int = 2000
    count_ttl: int = 86_400
    sample: int = 1000
    revision_key: str = field(init=False)
    counts_key: str = field(init=False)
    memory: Memory = field(init=False, repr=False, compare=False, default_factory=Memory)

    def __post_init__(self) -> None:
        object.__setattr__(self, "revision_key", f"{self.prefix}:revision")
        object.__setattr__(self, "counts_key", f"{self.prefix}:counts")

    def counters_key(self, subject: str) -> str:
        return f"{self.prefix}:{{{subject}}}"

    def subject_of(self, counters_key: str) -> str:
        """Return whose counters a key names; anything else is returned as it is."""
        start = f"{self.prefix}:{{"
        is_counters = counters_key.startswith(start) and counters_key.endswith("}")
        return counters_key[len(start) : -1] if is_counters else counters_key

    def subject_revision_key(self, subject: str) -> str:
        return f"{self.prefix}:{{{subject}}}:revision"

    def acquire(self, plan: Plan) -> tuple[Call, Layout]:
        """Return the call that decides a plan, and how its reply is read."""
        prepared: Prepared | None = plan.prepared
        if prepared is None or prepared[0] is not self:
            prepared = self._prepare(plan)
        _, call, layout = prepared
        return call, layout

    def refund(self, charges: Sequence[Charge], now: int | None, charged_at: int | None) -> Call:
        of_subjects: dict[str, list[Charge]] = {}
        for charge in charges:
            of_subjects.setdefault(charge.subject, []).append(charge)
        return Call.of(
            REFUND,
            [self.counters_key(subject).encode() for subject in of_subjects],
            pack_charges([charge for some in of_subjects.values() for charge in some]),
            b"" if now is None else b"%d" % now,
            b"" if charged_at is None else b"%d" % charged_at,
        )

    def reset(self, subject: str) -> Call:
        return Call.of(RESET, [self.counters_key(subject).encode()])

    def _prepare(self, plan: Plan) -> Prepared:
        self.memory.turn_to(plan.revision)
        known = plan.subject_revisions
        numbers: dict[str, int] = {}
        grouping = [numbers.setdefault(charge.subject, len(numbers)) for charge in plan.charges]
        layout = self._layout(plan, tuple(grouping))
        words: list[int | bytes] = []
        for subject in numbers:
            key = self.counters_key(subject).encode()
            words += len(key), key
        for subject in known:
            key = self.subject_revision_key(subject).encode()
            words += len(key), key
        given, now = (0, 0) if plan.now is None else (1, plan.now)
        words.append(HEADER.pack(plan.spend, layout.last_place, given, now))
        revision = ANY if plan.revision is None else written_token(plan.revision)
        after = written(revision, *map(written_token, known.values()))
        prepared = self, Call(ACQUIRE, layout.template % tuple(words) + after), layout
        object.__setattr__(plan, "prepared", prepared)
        return prepared

    def _layout(self, plan: Plan, grouping: tuple[int, ...]) -> Layout:
        if plan.form is None:
            return self._new_layout(plan, grouping)
        key = plan.form, grouping, len(plan.subject_revisions)
        layouts = self.memory.layouts
        layout = layouts.get(key)
        if layout is None:
            if len(layouts) >= MOST_LAYOUTS:
                layouts.clear()
            layout = layouts[key] = self._new_layout(plan, grouping)
        return layout

    def _new_layout(self, plan: Plan, grouping: tuple[int, ...]) -> Layout:
        keys = self.counts_key.encode(), self.revision_key.encode()
        return layout_of(plan, grouping, keys, (self.cardinality, self.count_ttl))


def token(value: bytes) -> str:
    """Return a revision that a server holds; any bytes are one, whoever wrote them."""
    return value.decode(errors="surrogateescape")


def written_token(revision: str) -> bytes:
    """Return a revision as a server holds it."""
    return revision.encode(errors="surrogateescape")


def parse_reply(plan: Plan, layout: Layout, reply: Any) -> Decision:
    """Return what the acquire script decided on this plan; raises StalePlan."""
    _, _, states_of, counters, quotas = layout
    if type(reply) is bytes:
        told = states_of.unpack(reply)
        grant = filled(Grant, (plan.charges, standings(counters, told), quotas))
        return filled(Decision, (grant, told[0], None, "", (), True))
    states, *waits = reply
    if states == STALE:
        revision, *of_subjects = map(token, waits)
        subjects = dict(zip(plan.subject_revisions, of_subjects, strict=True))
        raise StalePlan(revision, subjects)
    told = states_of.unpack(states)
    outcomes = [
        outcome(charge, waiting, *told[part])
        for charge, waiting, (_, part) in zip(plan.charges, waits, counters, strict=True)
    ]
    return Decision(tuple(outcomes), told[0])
