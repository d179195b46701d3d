"""Plans as keys and arguments of the scripts, and replies as outcomes.

Everything here is pure and shared by every way to reach a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files
from struct import Struct

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.plans import Plan, Reply, Stale
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode

CHARGE = Struct("<BBB8sIQII")
"""One charge: subject, algorithm, mode, counter id, limit, window, capacity, cost."""

ALGORITHM_CODES = {
    Algorithm.FIXED_WINDOW: 1,
    Algorithm.SLIDING_WINDOW_LOG: 2,
    Algorithm.SLIDING_WINDOW_COUNTER: 3,
    Algorithm.TOKEN_BUCKET: 4,
}
MODE_CODES = {Mode.ENFORCE: 1, Mode.SHADOW: 2, Mode.OFF: 3}

ANY = "*"
"""Stands for a revision that need not be compared."""

STALE = 1
"""The status of a reply that names newer revisions and decided nothing."""

REVISION_TTL = 30 * 86_400
"""Seconds to live of the policy revision: a lost one costs one look at the database."""

SUBJECT_REVISION_TTL = 3600
"""Seconds to live of a subject's revision; looked-up tiers must be forgotten sooner."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest by which the server knows it."""

    text: bytes
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text, usedforsecurity=False).hexdigest())

    @classmethod
    def load(cls, *names: str) -> Script:
        """Return the script made of these files of this package, in order."""
        folder = files(__package__) / "lua"
        return cls(b"\n".join((folder / f"{name}.lua").read_bytes() for name in names))


ACQUIRE = Script.load("counters", "acquire")
REFUND = Script.load("counters", "refund")
RESET = Script.load("counters", "reset")


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of a script."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | bytes]


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

    @property
    def revision_key(self) -> str:
        return f"{self.prefix}:revision"

    @property
    def counts_key(self) -> str:
        return f"{self.prefix}:counts"

    def counters_key(self, subject: str) -> str:
        return f"{self.prefix}:{{{subject}}}"

    def subject_of(self, counters_key: str) -> str:
        """Return whose counters a key names; anything else is returned as it is."""
        start = f"{self.prefix}:{{"
        is_counters = counters_key.startswith(start) and counters_key.endswith("}")
        return counters_key[len(start) : -1] if is_counters else counters_key

    def subject_revision_key(self, subject: str) -> str:
        return f"{self.prefix}:{{{subject}}}:revision"

    def acquire(self, plan: Plan) -> Call:
        subjects = plan.subjects
        keys = [self.revision_key, self.counts_key]
        known = []
        for subject in subjects:
            keys += self.counters_key(subject), self.subject_revision_key(subject)
            known.append(plan.subject_revisions.get(subject, ANY))
        arguments: list[str | bytes] = [
            "1" if plan.spend else "0",
            "" if plan.now is None else str(plan.now),
            ANY if plan.revision is None else plan.revision,
            _packed(plan.charges, subjects),
            f"{self.cardinality} {self.count_ttl} {self.sample}",
            *known,
            *(plan.labels or ("",) * len(plan.charges)),
            plan.detail.encode(errors="replace"),
        ]
        return Call(ACQUIRE, keys, arguments)

    def refund(self, charges: Sequence[Charge], now: int | None, charged_at: int | None) -> Call:
        subjects = Plan(tuple(charges)).subjects
        arguments: list[str | bytes] = [
            "" if now is None else str(now),
            "" if charged_at is None else str(charged_at),
            _packed(charges, subjects),
        ]
        return Call(REFUND, [self.counters_key(subject) for subject in subjects], arguments)

    def reset(self, subject: str) -> Call:
        return Call(RESET, [self.counters_key(subject)], [])


def parse_reply(plan: Plan, reply: Sequence[int | bytes]) -> Reply:
    """Return what the acquire script answered to this plan."""
    if reply[0] == STALE:
        revision, *of_subjects = (_text(token) for token in reply[1:])
        subjects = dict(zip(plan.subjects, of_subjects, strict=True))
        return Reply((), 0, Stale(revision, subjects))
    _, now, *numbers = map(int, reply)
    of_charges = iter(numbers)  # four each
    rows = zip(plan.charges, of_charges, of_charges, of_charges, of_charges, strict=True)
    outcomes = [
        Outcome(charge, bool(allowed), remaining, reset_after, waiting or None)
        for charge, allowed, remaining, reset_after, waiting in rows
    ]
    return Reply(tuple(outcomes), now)


def _packed(charges: Iterable[Charge], subjects: Mapping[str, int]) -> bytes:
    packed = []
    for charge in charges:
        policy = charge.policy
        packed.append(
            CHARGE.pack(
                subjects[charge.subject],
                ALGORITHM_CODES[policy.algorithm],
                MODE_CODES[policy.mode],
                policy.counter_id,
                policy.requests,
                policy.window,
                policy.capacity,
                charge.cost,
            )
        )
    return b"".join(packed)


def _text(token: int | bytes) -> str:
    return token.decode() if isinstance(token, bytes) else str(token)
