"""Time of finding the rules for a path: how it grows with the rules and with the path.

Run it with `python -m tests.benchmarks.match`.
"""

from __future__ import annotations

import sys
from timeit import repeat

from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.rulesets import RuleSet

PATHS = {
    "a literal rule": "/api/v1/resource3/search/",
    "a rule with wildcards": "/api/v1/resource3/17/items/4",
    "no rule": "/static/css/site.css",
    "8,000 slashes": "/" * 8_000,
    "one segment of 64,000 letters": "/api/v1/" + "a" * 64_000,
    "2,000 segments that match": "/api/v1/resource3/files" + "/a" * 2_000,
}
ROUNDS = 20_000


def rule_set(size: int) -> RuleSet:
    """Return a set of so many rules by path, of four shapes in turn."""
    shapes = (
        "/api/v1/resource{}/search",
        "/api/v1/resource{}/*/items/*",
        "/api/v1/resource{}/files/**",
        "/api/*/resource{}/search",
    )
    paths = (shapes[number % 4].format(number // 4) for number in range(size))
    return RuleSet(Rule(id=number, name=path, path=path) for number, path in enumerate(paths))


def microseconds(rules: RuleSet, path: str) -> float:
    """Return the best time of one match."""
    return min(repeat(lambda: rules.match("GET", path), number=ROUNDS, repeat=5)) / ROUNDS * 1e6


def main() -> None:
    """Print one line for each kind of path."""
    few, many = rule_set(16), rule_set(10_000)
    write = sys.stdout.write
    write(f"{'path':32}{'16 rules':>12}{'10,000 rules':>16}{'ratio':>8}\n")
    for name, path in PATHS.items():
        small, large = microseconds(few, path), microseconds(many, path)
        write(f"{name:32}{small:>9.2f} us{large:>13.2f} us{large / small:>8.2f}\n")


if __name__ == "__main__":
    main()
