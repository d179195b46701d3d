"""What requests are charged, whoever makes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import refusal_label
from django_ratelimit_tiers.core.rules import Count, IdentifyBy, Rule


def is_reservation(rule: Rule | None) -> bool:
    """Return whether what a rule charges is given back unless the response is a failure."""
    return rule is not None and rule.count is Count.FAILED


def _counts_by_field(rule: Rule | None) -> bool:
    return rule is not None and rule.identify_by is IdentifyBy.FIELD


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

    It `reads_body` if whom it charges depends on the body of the request. Raises ValueError for a
    cost that no counter can hold. It `rehearses` if a policy in shadow mode is among its own.
    """

    items: tuple[Item, ...] = ()
    rules: tuple[Rule | None, ...] = field(init=False)
    rule_ids: frozenset[int] = field(init=False)
    labels: tuple[str, ...] = field(init=False)
    charged: tuple[tuple[Rule | None, QuotaPolicy, int], ...] = field(init=False)
    has_reservations: bool = field(init=False)
    reads_body: bool = field(init=False)
    rehearses: bool = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "rules", tuple(item.rule for item in self.items))
        put(self, "rule_ids", frozenset(rule.id for rule in self.rules if rule is not None))
        put(self, "labels", tuple(item.label for item in self.items))
        put(self, "has_reservations", any(map(is_reservation, self.rules)))
        put(self, "reads_body", any(map(_counts_by_field, self.rules)))
        put(self, "rehearses", any(item.policy.mode is Mode.SHADOW for item in self.items))
        for item in self.items:
            Charge("", item.policy, item.cost)  # checked once here, not for each request
        charged = tuple((item.rule, item.policy, item.cost) for item in self.items)
        put(self, "charged", charged)  # bare tuples are taken apart in a fraction of the time


class Bill(NamedTuple):
    """What one request is charged at one stage, by the order of the tariff's items."""

    charges: tuple[Charge, ...]
    tariff: Tariff


NOTHING = Bill((), Tariff())
"""The bill of a request that is charged nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class RuleGroup:
    """The rules on requests that are alike.

    `turns` are the times (epoch seconds, ascending) at which some of them begin or cease to be
    active. `acts_early` is whether one of them can exempt or be charged before the client is known,
    and `exempts` whether one can exempt.
    """

    rules: tuple[Rule, ...]
    turns: tuple[float, ...] = ()
    acts_early: bool = field(init=False)
    exempts: bool = field(init=False)

    def __post_init__(self) -> None:
        put, rules = object.__setattr__, self.rules
        put(self, "acts_early", any(rule.acts_early for rule in rules))
        put(self, "exempts", any(rule.exempt for rule in rules))

    def acts_beyond(self, charged_rules: frozenset[int]) -> bool:
        """Return whether another rule than these acts early."""
        return self.acts_early and any(
            rule.acts_early and rule.id not in charged_rules for rule in self.rules
        )

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> RuleGroup:
        """Return rules as a group in which none is twice."""
        once = tuple({rule.id: rule for rule in rules}.values())
        times = (time for rule in once for time in (rule.starts_at, rule.ends_at))
        return cls(once, tuple(sorted({time for time in times if time is not None})))

    def active(self, now: float) -> RuleGroup:
        """Return those that are active at a time (epoch seconds), a group without turns."""
        return RuleGroup(tuple(rule for rule in self.rules if rule.is_active(now)))


def items_of(
    policies: Iterable[QuotaPolicy], rule: Rule | None, tier: str, endpoint: str, cost: int
) -> list[Item]:
    """Return the items of a rule's policies, or of a tier's, whose refusals are counted so."""
    name = rule.name if rule else ""
    return [
        Item(policy, rule, refusal_label(policy.name, tier, endpoint, name), cost)
        for policy in policies
    ]
