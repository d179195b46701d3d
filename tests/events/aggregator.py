"""Aggregates again and again until it is killed: `python -m tests.events.aggregator`."""

from __future__ import annotations

import sys

import django


def main() -> None:
    django.setup()
    from django_ratelimit_tiers.events.aggregation import aggregate_throttle_events  # noqa: PLC0415

    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        print(aggregate_throttle_events(now=int(line)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
