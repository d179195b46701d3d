"""Refusals and usage on a Redis or Valkey server.

All keys begin with the key of the counts, which the script that decides counts into.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from secrets import token_hex
from typing import Any

from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.refusals import (
    SEPARATOR,
    Counts,
    RefusalKey,
    SampledRefusal,
    parse_key,
    parse_sample,
    printable,
    written_sample,
)
from django_ratelimit_tiers.core.sightings import Sighting
from django_ratelimit_tiers.core.tallies import ACCOUNT, Tally, Usage
from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.store.protocol import Protocol
from django_ratelimit_tiers.store.records import (
    BACKLOG,
    BUSIEST,
    MOST_QUOTAS,
    MOST_SEEN,
    SEEN_SECONDS,
    SEEN_TTL,
    USAGE_TTL,
    Records,
)
from django_ratelimit_tiers.store.scripts import Script

ADD = Script.load("tally")

GIVE_LOCK = Script.load("give_lock")
LOCK_THOUGH_FULL = Script.load("lock_though_full")
RENEW_LOCK = Script.load("renew_lock")
TAKE_SAMPLE = Script.load("take_sample")

FULL = "OutOfMemoryError"

WRONG_TYPE = "WRONGTYPE"

FIELDS = 1000
"""About how many fields of a minute are in one answer: as HSCAN sees fit."""

PAGE = 100
"""Sampled refusals in one answer: each may be two kilobytes, and answers have a time-out."""

Command = Callable[..., Any]


class ServerRecords(Records):
    """Records on a server, asked by a function that sends one command and returns its answer.

    `acommand` is the same for event loops.
    """

    def __init__(self, command: Command, acommand: Command, protocol: Protocol) -> None:
        self._command = command
        self._acommand = acommand
        self._protocol = protocol
        self._base = protocol.counts_key

    def now(self) -> int:
        return int(self._command("TIME")[0])

    def minutes(self) -> list[int]:
        return [int(minute) for minute in self._read("ZRANGE", f"{self._base}:minutes", 0, -1)]

    def counts(self, minute: int) -> Counts:
        counts: dict[RefusalKey, int] = {}
        for field, count in self._fields(f"{self._base}:{minute}").items():
            if (key := parse_key(self._with_subject(_text(field)))) is not None:
                counts[key] = counts.get(key, 0) + int(count)
        return counts

    def forget_minute(self, minute: int) -> None:
        self._command("DEL", f"{self._base}:{minute}")
        self._command("ZREM", f"{self._base}:minutes", minute)

    def sample(self) -> list[SampledRefusal]:
        keys = f"{self._base}:sample", f"{self._base}:sample:taken"
        length = int(self._command("EVAL", TAKE_SAMPLE.text, 2, *keys))
        pages = (
            self._command("LRANGE", keys[1], start, start + PAGE - 1)
            for start in range(0, length, PAGE)
        )
        found = (parse_sample(_text(entry)) for page in pages for entry in page)
        return [refusal for refusal in found if refusal is not None]

    def forget_sample(self) -> None:
        self._command("DEL", f"{self._base}:sample:taken")

    def add(self, tally: Tally) -> None:
        self._command(*self._adding(tally))

    async def aadd(self, tally: Tally) -> None:
        await self._acommand(*self._adding(tally))

    def _adding(self, tally: Tally) -> tuple[str | bytes | int, ...]:
        limits = BUSIEST, MOST_SEEN, SEEN_SECONDS, SEEN_TTL, USAGE_TTL, MOST_QUOTAS
        protocol = self._protocol
        counting = protocol.cardinality, protocol.count_ttl, protocol.sample
        written, number = json.dumps(self._written(tally)), (tally.teller, tally.number)
        keys = self._base, f"{self._base}:minutes"
        return "EVAL", ADD.text, 2, *keys, written, *limits, *counting, BACKLOG, *number

    def hours(self) -> list[int]:
        return [int(hour) for hour in self._read("ZRANGE", f"{self._base}:hours", 0, -1)]

    def usage(self, hour: int) -> Mapping[str, Usage]:
        key = f"{self._base}:usage:{hour}"
        totals = _pairs(self._read("ZREVRANGE", key, 0, -1, "WITHSCORES"))
        refused = dict(_pairs(self._read("HGETALL", f"{key}:refused")))
        limits = dict(_pairs(self._read("HGETALL", f"{key}:limits")))
        found = {}
        for subject, total in totals:
            turned_away = int(refused.get(subject, 0))
            allowed = max(0, int(float(total)) - turned_away)
            usage = Usage(allowed, turned_away, int(limits.get(subject, 0)))
            found[printable(_text(subject))] = usage
        return found

    def forget_hour(self, hour: int) -> None:
        key = f"{self._base}:usage:{hour}"
        for name in (key, f"{key}:refused", f"{key}:limits"):
            self._command("DEL", name)
        self._command("ZREM", f"{self._base}:hours", hour)

    def accounts_used(self) -> Mapping[str, int]:
        found = _pairs(self._read("HGETALL", f"{self._base}:accounts"))
        return {_text(account): int(at) for account, at in found}

    def sightings(self, start: int, end: int) -> Collection[Sighting]:
        first = start + -start % SEEN_SECONDS
        found = set()
        for begins in range(first, end, SEEN_SECONDS):
            found.update(self._read("SMEMBERS", f"{self._base}:seen:{begins}"))
        pairs = (_text(member).rpartition(" ") for member in found)
        return [Sighting(printable(subject), network) for subject, _, network in pairs]

    def quotas(self) -> Sequence[DayQuota]:
        quotas = []
        for name, numbers in _pairs(self._read("HGETALL", f"{self._base}:quotas")):
            subject, _, policy = _text(name).rpartition(" ")
            used, limit, window = map(int, numbers.split())
            quotas.append(DayQuota(subject, policy, limit, used, window))
        return quotas

    def forget_quotas(self, quotas: Collection[DayQuota]) -> None:
        names = [_quota_name(quota) for quota in quotas]
        if names:
            self._command("HDEL", f"{self._base}:quotas", *names)

    def take_lock(self, name: str, seconds: int) -> str | None:
        token = token_hex(16)
        key = self._lock_key(name)
        try:
            taken = self._command("SET", key, token, "NX", "EX", seconds)
        except StoreUnavailable as error:
            if not str(error).startswith(FULL):
                raise
            try:
                taken = self._command("EVAL", LOCK_THOUGH_FULL.text, 1, key, token, seconds)
            except StoreUnavailable:
                raise error from None
        return token if taken else None

    def give_lock(self, name: str, token: str) -> None:
        self._command("EVAL", GIVE_LOCK.text, 1, self._lock_key(name), token)

    def renew_lock(self, name: str, token: str, seconds: int) -> bool:
        return bool(self._command("EVAL", RENEW_LOCK.text, 1, self._lock_key(name), token, seconds))

    def _read(self, command: str, key: str, *words: str | int) -> Any:
        """Return the answer to a command that reads a key.

        A value of another type, which somebody else has put there, gives way, as in the scripts:
        what is waiting behind it would never be written.
        """
        try:
            return self._command(command, key, *words)
        except StoreRefused as error:
            if WRONG_TYPE not in str(error):
                raise
        self._command("DEL", key)
        return self._command(command, key, *words)

    def _fields(self, key: str) -> dict[bytes, bytes]:
        """Return a hash that nobody writes any more, a part at a time; empty if it goes meanwhile.

        A minute may have a million fields, which no answer brings within its time-out. Somebody who
        forgets it has written it, and a part of it would be written over that.
        """
        found: dict[bytes, bytes] = {}
        cursor: Any = 0
        while True:
            answer = self._read("HSCAN", key, cursor, "COUNT", FIELDS)
            if not isinstance(answer, list) or len(answer) != 2:
                raise StoreUnavailable("the server answered with no part of a hash")
            cursor, part = answer
            found.update(_pairs(part))
            if int(cursor) == 0:
                break
        return found if int(self._read("HLEN", key)) == len(found) else {}

    def _lock_key(self, name: str) -> str:
        return f"{self._base}:lock:{name}"

    def _with_subject(self, text: str) -> str:
        """Put the subject where the script wrote the key of its counters."""
        head, separator, subject = text.rpartition(SEPARATOR)
        return head + separator + self._protocol.subject_of(subject)

    def _written(self, tally: Tally) -> dict[str, Any]:
        accounts = filter(_is_account, tally.usage)
        return {
            "usage": {
                subject: (usage.allowed, usage.refused, usage.hourly_limit)
                for subject, usage in tally.usage.items()
            },
            "accounts": [subject.removeprefix(ACCOUNT) for subject in accounts],
            "seen": [f"{subject} {network}" for subject, network in tally.sightings],
            "quotas": {
                _quota_name(quota): f"{quota.used} {quota.limit} {quota.window}"
                for quota in tally.quotas
            },
            "refusals": [
                [SEPARATOR.join((*key[:-1], "")), key.subject, count]  # tally.lua may put OTHERS
                for key, count in tally.refusals.items()
            ],
            "sample": [written_sample(refusal) for refusal in tally.sample],
        }


def _is_account(subject: str) -> bool:
    return subject.startswith(ACCOUNT)


def _quota_name(quota: DayQuota) -> str:
    return f"{quota.subject} {quota.policy}"


def _pairs(answer: Any) -> list[tuple[bytes, bytes]]:
    """Return a flat answer as pairs; raises StoreUnavailable for an answer of another shape."""
    if not isinstance(answer, list) or len(answer) % 2:
        raise StoreUnavailable(f"the server answered with {type(answer).__name__}, not with pairs")
    return list(zip(answer[::2], answer[1::2], strict=True))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
