"""What an attack from a million addresses takes of the server's memory and of a process's.

    python -m tests.benchmarks.spoofing --addresses 1000000

Half of the addresses are IPv4, half are IPv6 and each of those in a /64 of its own. Each makes a
request, and every tenth a second one that is refused, on a Valkey of its own. A tenth of them go
through the middleware in this process, whose memory is measured, the rest straight to the store's
script. Ends with status 1 when a bound does not hold.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path

import django
import redis
from django.core.management import call_command

from django_ratelimit_tiers.core.policies import Algorithm
from tests.memory import resident_bytes, server_bytes
from tests.servers import ValkeyProcess, wait_until

MOST_PER_SUBJECT = 200
"""Bytes of a subject with the two policies of a tier, overhead of the server included."""

MOST_FOR_SAMPLE = 5_000_000
"""Bytes of the sample of refusals, usage and scripts."""

MOST_PER_MINUTE = 1_000_000
"""Bytes of the counts of a minute of refusals."""

DAY = 86_400
BATCH = 1000
EXPIRY_SECONDS = 60


@dataclass(frozen=True)
class Spoofing:
    """What was found; `before`, `used`, `peak` and `after` are the server's memory in bytes."""

    addresses: int
    refused: int
    before: int
    used: int
    peak: int
    after: int
    keys: int
    eternal_keys: int
    longest_ttl: int
    keys_left: int
    minutes: int
    fields: int
    counted: int

    @property
    def per_subject(self) -> float:
        return (self.used - self.before) / self.addresses

    @property
    def bound(self) -> int:
        """How much the server's memory may grow by."""
        counts = MOST_FOR_SAMPLE + self.minutes * MOST_PER_MINUTE
        return self.addresses * MOST_PER_SUBJECT + counts

    def exceeded(self) -> list[str]:
        """Return which bounds do not hold, in words."""
        bounds = {
            "the server's memory": self.used - self.before <= self.bound,
            "the peak of the server's memory": self.peak - self.before <= 1.5 * self.bound,
            "every key expires": self.eternal_keys == 0,
            "no key lives longer than two days and an hour": self.longest_ttl <= 2 * DAY + 3660,
            "one key for each subject, and few others": self.keys < self.addresses + 1000,
            "every key is gone once it expires": self.keys_left == 0,
            "expired memory is given back": self.after - self.before <= MOST_FOR_SAMPLE,
            "fields of counts": self.fields <= self.minutes * (2000 + 1),
            "every refusal is counted": self.counted == self.refused,
        }
        return [name for name, holds in bounds.items() if not holds]


def limit_anonymous() -> None:
    """Give anonymous clients two policies as they are installed, but a bucket of one."""
    from tests.policies import limit_tier  # noqa: PLC0415 (Django must be ready)

    bucket = {"requests": 1, "period": 60, "algorithm": Algorithm.TOKEN_BUCKET.value, "burst": 1}
    counter = Algorithm.SLIDING_WINDOW_COUNTER.value
    limit_tier("anonymous", bucket, {"requests": 500, "period": DAY, "algorithm": counter})


def visit(numbers: range) -> int:
    """Send the requests of these addresses to this process; returns how many were refused."""
    from django.core.handlers.base import BaseHandler  # noqa: PLC0415
    from django.test import RequestFactory, override_settings  # noqa: PLC0415

    from django_ratelimit_tiers.policy.limiter import limiter  # noqa: PLC0415

    refused, requests, handler = 0, RequestFactory(), BaseHandler()
    ours = ["django_ratelimit_tiers.middleware.RateLimitMiddleware"]
    with override_settings(MIDDLEWARE=ours):
        handler.load_middleware()
        for number in asking(numbers):
            request = requests.get("/plain/", REMOTE_ADDR=address(number))
            refused += handler.get_response(request).status_code == 429
    limiter().teller.tell()
    return refused


def charge(numbers: range, client: redis.Redis) -> int:
    """Charge these addresses by the store's own calls, many at a time."""
    from django_ratelimit_tiers.core.addresses import address_subject  # noqa: PLC0415
    from django_ratelimit_tiers.core.plans import Plan  # noqa: PLC0415
    from django_ratelimit_tiers.core.policies import Charge  # noqa: PLC0415
    from django_ratelimit_tiers.policy.assignments import AssignmentCache  # noqa: PLC0415
    from django_ratelimit_tiers.policy.snapshots import build_snapshot  # noqa: PLC0415
    from django_ratelimit_tiers.store.protocol import Protocol, parse_reply  # noqa: PLC0415
    from django_ratelimit_tiers.store.scripts import ACQUIRE  # noqa: PLC0415
    from tests.benchmarks.pipelines import answers  # noqa: PLC0415

    protocol, refused = Protocol(), 0
    policies = build_snapshot("", AssignmentCache()).tiers["anonymous"].policies
    labels = tuple(f"{policy.name}\0anonymous\0GET plain/" for policy in policies)
    client.script_load(ACQUIRE.text)
    for some in batched(asking(numbers)):
        plans = []
        for number in some:
            at = address(number)
            subject = address_subject(at, 64)
            charges = tuple(Charge(subject, policy) for policy in policies)
            plans.append(Plan(charges, labels=labels))
        calls, layouts = zip(*map(protocol.acquire, plans), strict=True)
        decisions = map(parse_reply, plans, layouts, answers(client, calls))
        refused += sum(not decision.allowed for decision in decisions)
    return refused


def asking(numbers: range) -> Iterator[int]:
    """Yield who asks, in order: each once, and every tenth at once again."""
    for number in numbers:
        yield number
        if number % 10 == 0:
            yield number


def batched(numbers: Iterator[int]) -> Iterator[list[int]]:
    """Yield the numbers, many at a time."""
    while some := list(islice(numbers, BATCH)):
        yield some


def address(number: int) -> str:
    """Return an IPv4 address for an even number, and one in a /64 of its own for an odd one."""
    if number % 2 == 0:
        return str(IPv4Address((10 << 24) + number))
    network = 0x2001_0DB8 << 96
    return str(IPv6Address(network + (number << 64) + number * 0x9E37_79B9 % 2**64))


def examine(addresses: int, refused: int, before: int, client: redis.Redis) -> Spoofing:
    """Look at what an attack has left on the server, then let its keys expire."""
    memory = client.info("memory")
    space = client.info("keyspace")["db0"]
    minutes = [int(minute) for minute in client.zrange("rlt:counts:minutes", 0, -1)]
    counts = [client.hvals(f"rlt:counts:{minute}") for minute in minutes]
    longest = expire_soon(client)
    wait_until(lambda: client.dbsize() == 0, EXPIRY_SECONDS)
    return Spoofing(
        addresses=addresses,
        refused=refused,
        before=before,
        used=memory["used_memory"],
        peak=memory["used_memory_peak"],
        after=server_bytes(client),
        keys=space["keys"],
        eternal_keys=space["keys"] - space["expires"],
        longest_ttl=longest,
        keys_left=client.dbsize(),
        minutes=len(counts),
        fields=sum(map(len, counts)),
        counted=sum(int(count) for of_minute in counts for count in of_minute),
    )


def expire_soon(client: redis.Redis) -> int:
    """Let every key that expires do so now; returns the longest time a counter had, in seconds."""
    longest = 0
    for keys in batches(client):
        calls = client.pipeline(transaction=False)
        for key in keys:
            calls.ttl(key).pexpire(key, 1, xx=True)
        found = calls.execute()
        left = [ttl for key, ttl in zip(keys, found[::2], strict=True) if b"{" in key]
        longest = max(longest, *left, 0)
    return longest


def batches(client: redis.Redis) -> Iterator[list[bytes]]:
    """Yield the names of all keys, many at a time."""
    cursor, keys = client.scan(count=BATCH)
    while True:
        yield keys
        if cursor == 0:
            return
        cursor, keys = client.scan(cursor, count=BATCH)


def report(found: Spoofing) -> list[str]:
    """Return what was found, in lines."""
    megabytes = [n / 1e6 for n in (found.before, found.used, found.peak, found.after)]
    before, used, peak, after = (f"{n:,.1f}" for n in megabytes)
    return [
        f"addresses           {found.addresses:,}, requests refused {found.refused:,}",
        f"memory of server    {before} MB before, {used} at the end, {peak} at most",
        f"for each subject    {found.per_subject:.0f} bytes (all that the server grew by)",
        f"bound               {found.bound / 1e6:,.1f} MB more than before",
        f"keys                {found.keys:,}, and {found.eternal_keys:,} of them never expire",
        f"longest life        {found.longest_ttl:,} s",
        f"once they expire    {found.keys_left:,} keys, {after} MB",
        f"refusals counted    {found.counted:,} in {found.fields:,} fields",
        f"minutes             {found.minutes}",
    ]


def main() -> int:
    """Run with a server and a database of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addresses", type=int, default=1_000_000)
    options = parser.parse_args()
    logging.disable()
    with ValkeyProcess() as valkey, tempfile.TemporaryDirectory() as directory:
        os.environ |= {
            "REDIS_URL": valkey.url,
            "RATELIMIT_TIERS": '{"STORE_TIMEOUT": 10}',
            "DATABASE_URL": f"sqlite:///{Path(directory) / 'bench.sqlite3'}",
            "DJANGO_SETTINGS_MODULE": "testproject.settings",
        }
        django.setup()
        call_command("migrate", verbosity=0)
        limit_anonymous()
        with valkey.client() as client:
            before, refused, resident = server_bytes(client), 0, []
            visitors = options.addresses // 10
            for first in range(0, visitors, -(-visitors // 5)):
                refused += visit(range(first, min(first + -(-visitors // 5), visitors)))
                resident.append(f"{resident_bytes(os.getpid()) / 1e6:.1f}")
            refused += charge(range(visitors, options.addresses), client)
            found = examine(options.addresses, refused, before, client)
    for line in report(found):
        sys.stdout.write(line + "\n")
    sizes = ", ".join(resident)
    sys.stdout.write(f"memory of process   {sizes} MB after each fifth of {visitors:,} addresses\n")
    for bound in found.exceeded():
        sys.stdout.write(f"EXCEEDED: {bound}\n")
    return 1 if found.exceeded() else 0


if __name__ == "__main__":
    sys.exit(main())
