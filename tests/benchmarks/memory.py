"""Print what one active client costs in Redis: `python -m tests.benchmarks.memory`.

For each algorithm, and for the policies of tier free together, CLIENTS clients make a few requests;
what the server's memory has grown by is divided among them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.store.protocol import Protocol
from django_ratelimit_tiers.store.scripts import ACQUIRE
from tests.benchmarks.pipelines import answers
from tests.memory import server_bytes
from tests.servers import ValkeyProcess

CLIENTS = 50_000

BATCH = 200

MINUTE = QuotaPolicy("t", 60, 60, Algorithm.TOKEN_BUCKET, burst=100)
DAY = QuotaPolicy("t", 5000, 86_400, Algorithm.SLIDING_WINDOW_COUNTER)

CASES: list[tuple[str, list[QuotaPolicy], int, int]] = [
    ("fixed window", [QuotaPolicy("t", 60, 3600, Algorithm.FIXED_WINDOW)], 1, 3),
    ("sliding window counter", [QuotaPolicy("t", 60, 3600)], 1, 3),
    ("token bucket", [QuotaPolicy("t", 60, 3600, Algorithm.TOKEN_BUCKET)], 1, 3),
    (
        "sliding window log, 1 request",
        [QuotaPolicy("t", 60, 3600, Algorithm.SLIDING_WINDOW_LOG)],
        1,
        1,
    ),
    (
        "sliding window log, 60 requests",
        [QuotaPolicy("t", 60, 3600, Algorithm.SLIDING_WINDOW_LOG)],
        60,
        1,
    ),
    ("tier, minute and day, 1 request", [MINUTE, DAY], 1, 1),
    ("tier, minute and day together", [MINUTE, DAY], 1, 3),
]
"""Policies, what each request costs, and how many a client makes: the first makes its value, those
after it write over it."""


def bytes_per_client(
    server: ValkeyProcess, policies: Sequence[QuotaPolicy], cost: int, requests: int
) -> float:
    """Return by how many bytes each client makes the server's memory grow."""
    protocol = Protocol()
    with server.client() as client:
        client.script_load(ACQUIRE.text)
        before = server_bytes(client)
        for first in range(0, CLIENTS, BATCH):
            subjects = [f"user:{number}" for number in range(first, first + BATCH)]
            plans = [
                Plan(tuple(Charge(subject, policy, cost) for policy in policies))
                for subject in subjects
            ]
            for _ in range(requests):
                answers(client, [protocol.acquire(plan)[0] for plan in plans])
        used = server_bytes(client) - before
        space = client.info("keyspace")["db0"]
        if space["expires"] != space["keys"]:
            raise AssertionError(f"some keys never expire: {space}")
        return used / CLIENTS


def main() -> None:
    for name, policies, cost, requests in CASES:
        with ValkeyProcess() as server:  # a new one: what is freed is not given back at once
            size = bytes_per_client(server, policies, cost, requests)
        sys.stdout.write(f"{name:<35}{size:>8.0f} bytes\n")


if __name__ == "__main__":
    main()
