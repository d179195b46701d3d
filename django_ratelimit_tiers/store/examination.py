"""What can be wrong with a server of counters, in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from secrets import token_hex
from typing import Any

from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.findings import Finding

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
"""The first version of each server that has everything the scripts need."""

SAFE_EVICTION = ("noeviction", "volatile-ttl")
"""Eviction policies that do not forget counters while they matter most."""

SLOW_SHARE = 0.25
"""The part of the time-out above which an ordinary call is a warning."""

RIGHTS = "Give its user the rights that the documentation of this package lists."

REASONS = {
    "OutOfMemory": "It is full: raise maxmemory, or see what else it keeps. Counters expire by "
    "themselves; until then ON_STORE_FAILURE decides.",
    "MISCONF": "It cannot write to its disk: look at its log, or switch persistence off.",
    "NOREPLICAS": "Look at its replicas, or lower min-replicas-to-write.",
}
"""What to do about an error that says nothing of rights, by a word in it."""

Command = Callable[..., Any]


def examine_server(
    store: Store, command: Command, timeout: float, where: str = "The store"
) -> Iterator[Finding]:
    """Yield what is found by sending a server commands.

    Where nothing else is wrong, charges of every kind are tried on a made-up subject.
    """
    findings = list(_findings(command, timeout, where))
    yield from findings
    if not any(finding.is_wrong for finding in findings):
        yield _rehearsal(store, where)


def _findings(command: Command, timeout: float, where: str) -> Iterator[Finding]:
    try:
        seconds = _latency(command)
    except StoreUnavailable as error:
        advice = "Look at its address, password and network, and whether it runs at all."
        yield Finding(f"{where} does not answer: {error}", True, advice)
        return
    slow = seconds > SLOW_SHARE * timeout
    yield Finding(
        f"{where} answers in {seconds * 1000:.1f} ms; STORE_TIMEOUT is {timeout * 1000:.0f} ms.",
        slow,
        "Bring it nearer, or raise STORE_TIMEOUT.",
    )
    yield _scripts(command, where)
    yield from _server(command, where)


def _latency(command: Command) -> float:
    """Return the median time of some calls, the one that connects left out."""
    command("PING")
    taken = []
    for _ in range(9):
        started = time.perf_counter()
        command("PING")
        taken.append(time.perf_counter() - started)
    return sorted(taken)[4]


def _scripts(command: Command, where: str) -> Finding:
    try:
        command("EVAL", "return redis.call('TIME')", 0)
    except StoreUnavailable as error:
        return Finding(f"{where} runs no scripts: {error}", True, _advice(error))
    return Finding(f"{where} runs scripts.")


def _rehearsal(store: Store, where: str) -> Finding:
    subject = f"check:{token_hex(8)}"
    try:
        for algorithm in Algorithm:
            charges = [Charge(subject, QuotaPolicy("check", 10, 60, algorithm))]
            for _ in range(2):  # the first writes a value, the second changes it
                store.acquire(charges)
            store.refund(charges)
        store.reset(subject)
    except StoreUnavailable as error:
        return Finding(f"{where} takes no charges: {error}", True, _advice(error))
    return Finding(f"{where} takes charges.")


def _advice(error: StoreUnavailable) -> str:
    """Return what to do about a server that answers, but does not do as it is told."""
    return next((advice for word, advice in REASONS.items() if word in str(error)), RIGHTS)


def _server(command: Command, where: str) -> Iterator[Finding]:
    try:
        about = _parsed(command("INFO", "server")) | _parsed(command("INFO", "memory"))
        about |= _parsed(command("INFO", "replication"))
    except StoreUnavailable:
        yield Finding(f"{where} does not tell its version: INFO is not allowed.")
        return
    kind = "valkey" if "valkey_version" in about else "redis"
    version = about.get(f"{kind}_version", "0")
    oldest = OLDEST[kind]
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    yield Finding(
        f"{where} is {kind.title()} {version}.",
        numbers < oldest,
        f"Use {kind.title()} {oldest[0]}.{oldest[1]} or later.",
    )
    policy = about.get("maxmemory_policy", "noeviction")
    yield Finding(
        f"{where} has the eviction policy {policy}.",
        policy not in SAFE_EVICTION and about.get("maxmemory", "0") != "0",
        "Counters that are evicted let their clients start anew: use a server of their own with "
        "noeviction, or volatile-ttl where they share one.",
    )
    if about.get("role") == "slave":
        advice = "Name the primary, or let sentinels name it."
        yield Finding(f"{where} is a replica and takes no charges.", True, advice)


def _parsed(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
