"""Plans as keys and arguments of the scripts, and replies as outcomes.

Everything here is pure and shared by every way to reach a server.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from struct import Struct
from typing import Any, NamedTuple

from django_ratelimit_tiers.core.algorithms import CounterState
from django_ratelimit_tiers.core.plans import Plan, Reply, Stale, outcome
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode

CHARGE = Struct("<HHBB8sIQII")
"""One charge: number of its counter, place of its subject's counters among the keys, algorithm,
mode, counter id, limit, window, capacity, cost."""

RECORD = Struct("<8sIQIQ")
"""One counter: its id, when it expires, and `last`, `current` and `previous` of its state."""

NOW = Struct("<Q")
"""The time of a decision, in microseconds."""

LENGTH = Struct("<I")
"""The length of a label that follows."""

ALGORITHM_CODES = {
    Algorithm.FIXED_WINDOW: 1,
    Algorithm.SLIDING_WINDOW_LOG: 2,
    Algorithm.SLIDING_WINDOW_COUNTER: 3,
    Algorithm.TOKEN_BUCKET: 4,
}
MODE_CODES = {Mode.ENFORCE: 1, Mode.SHADOW: 2, Mode.OFF: 3}

ANY = "*"
"""Stands for a revision that need not be compared."""

STALE = 0
"""Begins a reply that names newer revisions and decided nothing."""

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
        """Return the script made of these files of this package, in order.

        A line `-- @name` in one of them gives way to the file of that name.
        """
        return cls(b"\n".join(map(_lua, names)))


def _lua(name: str) -> bytes:
    text = (files(__package__) / "lua" / f"{name}.lua").read_bytes()
    return INSERTION.sub(lambda found: _lua(found[1].decode()), text)


INSERTION = re.compile(rb"^ *-- @(\w+)$", re.MULTILINE)

ACQUIRE = Script.load("counters", "acquire")
REFUND = Script.load("counters", "refund")
RESET = Script.load("counters", "reset")


class Call(NamedTuple):
    """One invocation of a script; `counters` has the number of each charge's counter, from 1."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | bytes]
    counters: tuple[int, ...] = ()

    @property
    def evalsha(self) -> tuple[str | bytes | int, ...]:
        """The words of the command for a server that knows the script."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments)

    @property
    def eval(self) -> tuple[str | bytes | int, ...]:
        """The words of the command that brings the script along."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments)


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
    bounds: str = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__  # written once here: they are sent with every call
        put(self, "revision_key", f"{self.prefix}:revision")
        put(self, "counts_key", f"{self.prefix}:counts")
        put(self, "bounds", f"{self.cardinality} {self.count_ttl} {self.sample}")

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
        keys, places = self._counters(plan.charges, [self.revision_key])
        packed, counters = _packed(plan.charges, places, plan.form)
        for subject in plan.subject_revisions:
            keys.append(self.subject_revision_key(subject))
        keys.append(self.counts_key)
        arguments: list[str | bytes] = [
            packed,
            ANY if plan.revision is None else plan.revision,
            "1" if plan.spend else "0",
            "" if plan.now is None else str(plan.now),
            self.bounds,
            _packed_labels(plan.labels),
            plan.detail.encode(errors="replace"),
            *plan.subject_revisions.values(),
        ]
        return Call(ACQUIRE, keys, arguments, counters)

    def refund(self, charges: Sequence[Charge], now: int | None, charged_at: int | None) -> Call:
        keys, places = self._counters(charges, [])
        packed, _ = _packed(charges, places, None)
        arguments: list[str | bytes] = [
            packed,
            "" if now is None else str(now),
            "" if charged_at is None else str(charged_at),
        ]
        return Call(REFUND, keys, arguments)

    def reset(self, subject: str) -> Call:
        return Call(RESET, [self.counters_key(subject)], [])

    def _counters(
        self, charges: Sequence[Charge], keys: list[str]
    ) -> tuple[list[str], tuple[int, ...]]:
        """Add the key of each subject's counters, and return the place of each charge's."""
        places: dict[str, int] = {}
        for charge in charges:
            if charge.subject not in places:
                keys.append(self.counters_key(charge.subject))
                places[charge.subject] = len(keys)
        return keys, tuple([places[charge.subject] for charge in charges])


def parse_reply(plan: Plan, call: Call, reply: bytes | list[Any]) -> Reply:
    """Return what the acquire script answered to this plan."""
    told, *others = reply if isinstance(reply, list) else [reply]
    if told == STALE:
        revision, *of_subjects = map(bytes.decode, others)
        subjects = dict(zip(plan.subject_revisions, of_subjects, strict=True))
        return Reply((), 0, Stale(revision, subjects))
    waits = iter(others)  # none where everything fits
    (now,) = NOW.unpack_from(told)
    outcomes = []
    for charge, number in zip(plan.charges, call.counters, strict=True):
        at = NOW.size + RECORD.size * (number - 1)
        _, _, last, current, previous = RECORD.unpack_from(told, at)
        settled = CounterState(last, current, previous)
        outcomes.append(outcome(charge, next(waits, 0), settled))
    return Reply(tuple(outcomes), now)


def _packed(
    charges: Sequence[Charge], places: tuple[int, ...], form: Hashable
) -> tuple[bytes, tuple[int, ...]]:
    """Return charges as the scripts read them, and the numbers of their counters."""
    if form is None:
        return _pack(charges, places)
    key = form, places
    known = _PACKED.get(key)
    if known is None:
        if len(_PACKED) >= MOST_PACKED:
            _PACKED.clear()
        known = _PACKED[key] = _pack(charges, places)
    return known


def _pack(charges: Sequence[Charge], places: tuple[int, ...]) -> tuple[bytes, tuple[int, ...]]:
    counters: dict[tuple[int, bytes], int] = {}
    numbers, packed = [], []
    for charge, place in zip(charges, places, strict=True):
        policy = charge.policy
        number = counters.setdefault((place, policy.counter_id), len(counters) + 1)
        numbers.append(number)
        packed.append(
            CHARGE.pack(
                number,
                place,
                ALGORITHM_CODES[policy.algorithm],
                MODE_CODES[policy.mode],
                policy.counter_id,
                policy.requests,
                policy.window,
                policy.capacity,
                charge.cost,
            )
        )
    return b"".join(packed), tuple(numbers)


MOST_PACKED = 4096

_PACKED: dict[Hashable, tuple[bytes, tuple[int, ...]]] = {}
"""What plans of one form have in common, by the places of their subjects among the keys."""


@lru_cache(maxsize=4096)
def _packed_labels(labels: tuple[str, ...]) -> bytes:
    texts = [label.encode(errors="replace") for label in labels]
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)
