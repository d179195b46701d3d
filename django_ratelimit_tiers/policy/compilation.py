"""Rows of the database compiled into values that requests are decided with."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db.models import Q
from django.utils.text import slugify

from django_ratelimit_tiers.core.decisions import FailurePolicy
from django_ratelimit_tiers.core.patterns import parse_pattern
from django_ratelimit_tiers.core.policies import Algorithm, Mode, QuotaPolicy
from django_ratelimit_tiers.core.rules import Count, IdentifyBy, Rule, Scope, TierPolicies
from django_ratelimit_tiers.models import EndpointRule, RulePolicy, Tier
from django_ratelimit_tiers.models.tiers import Limit
from django_ratelimit_tiers.querysets import primary

logger = logging.getLogger(__name__)

PERIOD_WORDS = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}

TIER_COUNTER = "t"
"""The counter that the policies of all tiers share, so that a change of tier keeps the usage."""


@dataclass(frozen=True, slots=True)
class CompiledTier:
    """A tier as requests see it."""

    slug: str
    unlimited: bool
    policies: tuple[QuotaPolicy, ...]


class RuleLimit(NamedTuple):
    """A row of RulePolicy; `tier` is a slug, or None for every tier without a row of its own."""

    requests: int
    period: int
    algorithm: str
    burst: int | None
    tier: str | None


def compile_tier(tier: Tier) -> CompiledTier:
    """Return a tier with its policies prefetched."""
    policies = compile_limits(tier.policies.all(), tier.slug, TIER_COUNTER, Mode(tier.mode))
    return CompiledTier(tier.slug, tier.unlimited, () if tier.unlimited else policies)


def compile_rules(also: Collection[int] = ()) -> Iterator[Rule]:
    """Yield the rules in the database that are not off, and those with one of these ids.

    A row that no form would have saved is left out and logged, so that it cannot take the other
    rules with it.
    """
    # Rows may be many, and instances of models take a multiple of the time of tuples.
    columns = "rule_id", "requests", "period", "algorithm", "burst", "tier__slug"
    of_rules = defaultdict(list)
    for row in primary(RulePolicy).order_by("pk").values_list(*columns):
        of_rules[row[0]].append(RuleLimit(*row[1:]))
    chosen = primary(EndpointRule).filter(~Q(mode=Mode.OFF.value) | Q(pk__in=also))
    for rule in chosen.values_list(named=True):
        try:
            yield _compile_rule(rule, of_rules[rule.id])
        except ValueError as error:
            logger.error("endpoint rule %r is not in force: %s", rule.name, error)


def compile_limits(
    limits: Iterable[Limit | RuleLimit],
    owner: str,
    counter: str,
    mode: Mode = Mode.ENFORCE,
    disclose: bool = True,
) -> tuple[QuotaPolicy, ...]:
    """Return the policies of one owner, named by it and their period; raises ValueError."""
    limits = sorted(limits, key=lambda limit: (limit.period, limit.algorithm))
    policies = []
    for limit, name in zip(limits, _names(limits, owner), strict=True):
        algorithm = Algorithm(limit.algorithm)
        numbers = limit.requests, limit.period, algorithm, limit.burst
        policies.append(QuotaPolicy(name, *numbers, mode, counter, disclose))
    return tuple(policies)


def rule_slug(name: str, number: int) -> str:
    """Return what the policies of a rule are named by; its id tells apart what ASCII cannot."""
    slug = slugify(name)
    return slug if slug and name.isascii() else f"{slug or 'rule'}-{number}"


def policy_names(rule: EndpointRule) -> list[str]:
    """Return the names that refusals by a rule are counted under, for whichever tier it has."""
    of_tiers: dict[int | None, list[Limit]] = defaultdict(list)
    for limit in rule.policies.all():
        of_tiers[limit.tier_id].append(limit)
    owner = rule_slug(rule.name, rule.pk)
    return sorted({name for limits in of_tiers.values() for name in _names(limits, owner)})


def _names(limits: Sequence[Limit | RuleLimit], owner: str) -> Iterator[str]:
    """Yield the name of each of the limits that an owner has for the same clients."""
    periods = [limit.period for limit in limits]
    for limit in limits:
        name = f"{owner}-{PERIOD_WORDS.get(limit.period, f'{limit.period}s')}"
        alone = periods.count(limit.period) == 1
        yield name if alone else f"{name}-{limit.algorithm.replace('_', '-')}"


def _compile_rule(rule: Any, limits: Iterable[RuleLimit]) -> Rule:
    if rule.path:
        parse_pattern(rule.path)
    mode = Mode(rule.mode)
    name = rule_slug(rule.name, rule.id)
    of_tiers: dict[str | None, list[RuleLimit]] = defaultdict(list)
    for limit in () if rule.exempt else limits:  # in shadow mode they would refuse, too
        of_tiers[limit.tier].append(limit)
    return Rule(
        id=rule.id,
        name=rule.name,
        path=rule.path,
        view_name=rule.view_name,
        methods=frozenset(filter(None, rule.methods.split(","))),
        mode=mode,
        identify_by=IdentifyBy(rule.identify_by),
        request_field=rule.request_field,
        cost=rule.cost,
        count=Count(rule.count),
        scope=Scope(rule.scope),
        tier_policies=TierPolicies(rule.tier_policies),
        exempt=rule.exempt,
        on_store_failure=FailurePolicy(rule.on_store_failure) if rule.on_store_failure else None,
        disclose=rule.disclose,
        starts_at=rule.starts_at.timestamp() if rule.starts_at else None,
        ends_at=rule.ends_at.timestamp() if rule.ends_at else None,
        policies={
            slug: compile_limits(of_tier, name, f"r{rule.id}", mode, rule.disclose)
            for slug, of_tier in of_tiers.items()
        },
    )
