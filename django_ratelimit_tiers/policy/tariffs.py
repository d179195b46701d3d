"""What a request is charged, whoever makes it: worked out once, then remembered with the snapshot.

A warm request finds the rules on it and its tariff in two dictionaries. Whatever depends on more
than path, view, method, tier and cost is worked out for the one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.core.rules import Count, Rule

REMEMBERED = 10_000
"""How many groups of rules and how many tariffs one snapshot remembers."""


def is_reservation(rule: Rule | None) -> bool:
    """Return whether what a rule charges is given back unless the response is a failure."""
    return rule is not None and rule.count is Count.FAILED


class Item(NamedTuple):
    """One policy to be charged; `rule` is the one that it comes from, None for the tier.

    `label` is what its refusal is counted under.
    """

    policy: QuotaPolicy
    rule: Rule | None
    label: str
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class Tariff:
    """What requests are charged that differ only in who makes them.

    `lasts` is whether it is remembered for the next one alike.
    """

    items: tuple[Item, ...] = ()
    lasts: bool = False
    rules: tuple[Rule | None, ...] = field(init=False)
    labels: tuple[str, ...] = field(init=False)
    has_reservations: bool = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "rules", tuple(item.rule for item in self.items))
        put(self, "labels", tuple(item.label for item in self.items))
        put(self, "has_reservations", any(map(is_reservation, self.rules)))


class Bill(NamedTuple):
    """What one request is charged at one stage, by the order of the tariff's items."""

    charges: tuple[Charge, ...]
    tariff: Tariff


NOTHING = Bill((), Tariff())
"""The bill of a request that is charged nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class RuleGroup:
    """The rules on a request; `lasts` is whether the next one alike has the same.

    `acts_early` is whether one of them can exempt or be charged before the client is known.
    """

    rules: tuple[Rule, ...]
    lasts: bool
    acts_early: bool = field(init=False)

    def __post_init__(self) -> None:
        acts_early = any(rule.acts_early for rule in self.rules)
        object.__setattr__(self, "acts_early", acts_early)

    def in_force(self, now: float, *, preflight: bool) -> RuleGroup:
        """Return those that are active at a time (epoch seconds), and for a preflight only those
        that name its method."""
        if self.lasts and not preflight:
            return self
        active = (rule for rule in self.rules if rule.is_active(now))
        named = (rule for rule in active if not preflight or "OPTIONS" in rule.methods)
        return RuleGroup(tuple(named), lasts=False)


class TariffBook:
    """The groups of rules and the tariffs that one snapshot has given so far."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], tuple[RuleGroup, Sequence[Rule], Sequence[Rule]]] = {}
        self._tariffs: dict[object, Tariff] = {}

    def group(self, on_path: Sequence[Rule], on_view: Sequence[Rule]) -> RuleGroup:
        """Return two groups of rules as one, in which none is twice.

        They are known by their identity, and kept, so that no others can come to have it.
        """
        known = self._groups.get((id(on_path), id(on_view)))
        if known is not None:
            return known[0]
        rules = tuple({rule.id: rule for rule in (*on_path, *on_view)}.values())
        group = RuleGroup(rules, lasts=not any(rule.is_timed for rule in rules))
        if len(self._groups) >= REMEMBERED:
            self._groups = {}
        self._groups[id(on_path), id(on_view)] = group, on_path, on_view
        return group

    def get(self, key: object) -> Tariff | None:
        """Return a tariff that was remembered."""
        return self._tariffs.get(key)

    def remember(self, key: object, tariff: Tariff) -> None:
        """Remember a tariff; the key holds everything that it depends on."""
        if len(self._tariffs) >= REMEMBERED:
            self._tariffs = {}
        self._tariffs[key] = tariff


def items_of(
    policies: Iterable[QuotaPolicy], rule: Rule | None, place: str, cost: int
) -> list[Item]:
    """Return the items of one owner's policies, counted under a place."""
    return [Item(policy, rule, f"{policy.name}\0{place}", cost) for policy in policies]
