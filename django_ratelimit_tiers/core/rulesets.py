"""All the rules of one revision, compiled for quick answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django_ratelimit_tiers.core.patterns import Pattern, parse_pattern
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.tries import Trie


class RulesByMethod:
    """Some rules, told apart by the methods that they name; `HEAD` counts as `GET`.

    `named` has those on each method that a rule names, `others` those on every other method.
    """

    __slots__ = ("named", "others")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.others = tuple(rule for rule in rules if not rule.methods)
        named = {method for rule in rules for method in rule.methods}
        if "GET" in named:
            named.add("HEAD")
        self.named = {
            method: tuple(rule for rule in rules if _covers(rule, method)) for method in named
        }


class RuleSet:
    """The rules in force, found by path or by route, in the order in which they were given.

    Rules that are off are left out. Raises ValueError for a rule whose path cannot be parsed, or
    that has not exactly one of a path and a view name.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rule for rule in rules if rule.mode is not Mode.OFF)
        for rule in self.rules:
            if bool(rule.path) == bool(rule.view_name):
                raise ValueError(f"rule {rule.name!r}: give either a path or a view name")
        by_path = [rule for rule in self.rules if rule.path]
        self._by_path = Trie(
            [_pattern(rule) for rule in by_path],
            lambda indexes: RulesByMethod([by_path[index] for index in indexes]),
        )

    def match(self, method: str, path: str) -> tuple[Rule, ...]:
        """Return the rules by path that cover a request, whatever it resolves to.

        `path` is Django's `path_info`, as it is. A rule without methods covers `OPTIONS`, too; for
        a CORS preflight the caller leaves such rules out.
        """
        found = self._by_path.find(path)
        return found.named.get(method, found.others)


def _pattern(rule: Rule) -> Pattern:
    try:
        return parse_pattern(rule.path)
    except ValueError as error:
        raise ValueError(f"rule {rule.name!r}: {error}") from None


def _covers(rule: Rule, method: str) -> bool:
    names = ("HEAD", "GET") if method == "HEAD" else (method,)
    return not rule.methods or not rule.methods.isdisjoint(names)
