"""Print what one active client costs in Redis: `python -m tests.benchmarks.memory`.

For each algorithm, and for the policies of tier free together, CLIENTS clients make one request;
what the server's memory has grown by is divided among them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.protocol import ACQUIRE, Protocol
from tests.servers import ValkeyProcess

CLIENTS = 50_000

BATCH = 200

MINUTE = QuotaPolicy("t", 60, 60, Algorithm.TOKEN_BUCKET, burst=100)
DAY = QuotaPolicy("t", 5000, 86_400, Algorithm.SLIDING_WINDOW_COUNTER)

CASES: list[tuple[str, list[QuotaPolicy], int]] = [
    ("fixed window", [QuotaPolicy("t", 60, 3600, Algorithm.FIXED_WINDOW)], 1),
    ("sliding window counter", [QuotaPolicy("t", 60, 3600)], 1),
    ("token bucket", [QuotaPolicy("t", 60, 3600, Algorithm.TOKEN_BUCKET)], 1),
    (
        "sliding window log, 1 request",
        [QuotaPolicy("t", 60, 3600, Algorithm.SLIDING_WINDOW_LOG)],
        1,
    ),
    (
        "sliding window log, 60 requests",
        [QuotaPolicy("t", 60, 3600, Algorithm.SLIDING_WINDOW_LOG)],
        60,
    ),
    ("tier, minute and day together", [MINUTE, DAY], 1),
]


def bytes_per_client(server: ValkeyProcess, policies: Sequence[QuotaPolicy], cost: int) -> float:
    """Return by how many bytes each client makes the server's memory grow."""
    protocol = Protocol()
    with server.client() as client:
        client.script_load(ACQUIRE.text)
        before = client.info("memory")["used_memory"]
        pipeline = client.pipeline(transaction=False)
        for number in range(CLIENTS):
            subject = f"user:{number}"
            charges = [Charge(subject, policy, cost) for policy in policies]
            call = protocol.acquire(Plan(tuple(charges)))
            keys = [*call.keys, *call.arguments]
            pipeline.execute_command("EVALSHA", call.script.digest, len(call.keys), *keys)
            if number % BATCH == BATCH - 1:
                pipeline.execute()
        pipeline.execute()
        used = client.info("memory")["used_memory"] - before
        space = client.info("keyspace")["db0"]
        if space["expires"] != space["keys"]:
            raise AssertionError(f"some keys never expire: {space}")
        return float(used) / CLIENTS


def main() -> None:
    for name, policies, cost in CASES:
        with ValkeyProcess() as server:  # a new one: what is freed is not given back at once
            size = bytes_per_client(server, policies, cost)
        sys.stdout.write(f"{name:<35}{size:>8.0f} bytes\n")


if __name__ == "__main__":
    main()
