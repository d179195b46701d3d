"""What an attack costs in Redis and until it is in the database.

    python -m tests.benchmarks.refusals --refusals 1000000 --addresses 200000

A Valkey and an SQLite file of its own; every refusal is the call that a request makes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import redis
from django.core.management import call_command

from tests.memory import server_bytes
from tests.servers import ValkeyProcess

BATCH = 500


@dataclass(frozen=True)
class Attack:
    """What was found."""

    refusals: int
    addresses: int
    seconds: float
    keys: int
    fields: int
    sampled: int
    bytes_of_counts: int
    bytes_of_server: int
    counted: int
    rows: int
    aggregation_seconds: float


def attack(refusals: int, addresses: int, client: redis.Redis) -> Attack:
    """Refuse so many requests from so many addresses, and write them to the database."""
    from django.db.models import Sum  # noqa: PLC0415 (Django must be ready)

    from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events  # noqa: PLC0415
    from django_ratelimit_tiers.models import ThrottleCount  # noqa: PLC0415
    from django_ratelimit_tiers.store.configured import configured_store  # noqa: PLC0415

    records = configured_store().records
    before = server_bytes(client)
    seconds = timed(lambda: refuse(refusals, addresses, client))
    after = server_bytes(client)
    keys = [key.decode() for key in client.scan_iter("rlt:counts*", count=1000)]
    minutes = records.minutes()
    fields = sum(client.hlen(f"rlt:counts:{minute}") for minute in minutes)
    sampled = client.llen("rlt:counts:sample")
    of_counts = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
    later = records.now() + 120
    taken = timed(lambda: aggregate_throttle_events(now=later))
    counted = ThrottleCount.objects.aggregate(total=Sum("count"))["total"]
    rows = ThrottleCount.objects.count()
    sizes = len(keys), fields, sampled, of_counts, after - before
    return Attack(refusals, addresses, seconds, *sizes, counted, rows, taken)


def refuse(refusals: int, addresses: int, client: redis.Redis) -> None:
    """Ask for more than a policy ever has: each request is refused, and nothing else is kept.

    The calls are the store's own, sent many at a time.
    """
    from django_ratelimit_tiers.core.decisions import Outcome  # noqa: PLC0415
    from django_ratelimit_tiers.core.plans import Plan  # noqa: PLC0415
    from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy  # noqa: PLC0415
    from django_ratelimit_tiers.core.tallies import Tally  # noqa: PLC0415
    from django_ratelimit_tiers.events.samples import Sample  # noqa: PLC0415
    from django_ratelimit_tiers.store.configured import configured_store  # noqa: PLC0415
    from django_ratelimit_tiers.store.protocol import Protocol  # noqa: PLC0415
    from django_ratelimit_tiers.store.scripts import ACQUIRE  # noqa: PLC0415
    from tests.benchmarks.pipelines import answers  # noqa: PLC0415

    protocol, policy = Protocol(), QuotaPolicy("anonymous-minute", 1, 60)
    client.script_load(ACQUIRE.text)
    labels = ("anonymous-minute\0anonymous\0GET api/search/\0",)
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0"
    for first in range(0, refusals, BATCH):
        calls, sample = [], Sample()
        for number in range(first, min(first + BATCH, refusals)):
            at = number % addresses
            address = f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}"
            charge = Charge(f"ip:{address}", policy, 2)
            calls.append(protocol.acquire(Plan((charge,), labels=labels))[0])
            told = f"{number:016x}", 7, "GET", address, "/api/search/", agent
            sample.add(Outcome(charge, False, 0, 0, 1), labels[0], number, told)
        answers(client, calls)
        tally = Tally(sample=sample.take(), teller="benchmark", number=first + 1)
        configured_store().records.add(tally)


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds that something took."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Run with a server and a database of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refusals", type=int, default=1_000_000)
    parser.add_argument("--addresses", type=int, default=200_000)
    options = parser.parse_args()
    with ValkeyProcess() as valkey, tempfile.TemporaryDirectory() as directory:
        os.environ["REDIS_URL"] = valkey.url
        os.environ["RATELIMIT_TIERS"] = '{"STORE_TIMEOUT": 10}'
        os.environ["DATABASE_URL"] = f"sqlite:///{Path(directory) / 'bench.sqlite3'}"
        os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
        django.setup()
        call_command("migrate", verbosity=0)
        with valkey.client() as client:
            found = attack(options.refusals, options.addresses, client)
    for line in report(found):
        print(line)  # noqa: T201


def report(found: Attack) -> list[str]:
    """Return what was found, in lines."""
    rate = found.refusals / found.seconds
    return [
        f"refusals            {found.refusals:,} from {found.addresses:,} addresses",
        f"refused in          {found.seconds:,.1f} s ({rate:,.0f} a second, one connection)",
        f"keys for counts     {found.keys}: {found.fields:,} fields, {found.sampled:,} events",
        f"memory for counts   {found.bytes_of_counts / 1e6:,.2f} MB (MEMORY USAGE of these keys)",
        f"memory of server    {found.bytes_of_server / 1e6:,.2f} MB more than before",
        f"aggregated in       {found.aggregation_seconds:,.2f} s into {found.rows:,} rows",
        f"counted             {found.counted:,}",
    ]


if __name__ == "__main__":
    main()
