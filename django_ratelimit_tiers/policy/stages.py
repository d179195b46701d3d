"""Which policies a request is charged for at each stage: pure choices over a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from django.http import HttpRequest

from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.core.rules import IdentifyBy, Rule, Scope, TierPolicies
from django_ratelimit_tiers.core.rulesets import is_active
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.identity import rule_subject
from django_ratelimit_tiers.policy.ledgers import Entry, Ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot

KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))

BEFORE_AUTHENTICATION = frozenset((IdentifyBy.IP, IdentifyBy.EVERYONE, IdentifyBy.FIELD))


def path_rules(snapshot: Snapshot, ledger: Ledger, now: float) -> list[Rule]:
    """Return the active rules whose pattern the path matches."""
    return _in_force(snapshot.rules.match(ledger.method, ledger.path), ledger, now)


def all_rules(snapshot: Snapshot, ledger: Ledger, request: HttpRequest, now: float) -> list[Rule]:
    """Return the active rules for a resolved request: by path, by route and by view name."""
    rules = list(snapshot.rules.match(ledger.method, ledger.path))
    if request.resolver_match is not None:
        rules += snapshot.routes.rules_for(request.resolver_match, ledger.method)
    return _in_force({rule.id: rule for rule in rules}.values(), ledger, now)


def door_entries(rules: Iterable[Rule], ledger: Ledger, request: HttpRequest) -> list[Entry]:
    """Return what can be charged before authentication and was not yet.

    A rule that has limits for single tiers waits until the tier is known, and one that counts each
    route until the route is.
    """
    resolved = request.resolver_match is not None
    return [
        entry
        for rule in rules
        if rule.id not in ledger.charged_rules
        and rule.identify_by in BEFORE_AUTHENTICATION
        and rule.policies.keys() <= {None}
        and (resolved or rule.scope is Scope.RULE)
        for entry in _rule_entries(rule, rule.policies.get(None, ()), ledger, request, "")
    ]


def client_entries(
    rules: Iterable[Rule],
    tier: CompiledTier | None,
    ledger: Ledger,
    request: HttpRequest,
    cost: int,
) -> list[Entry]:
    """Return what is charged once the client is known: its tier, and all remaining rules."""
    rules = list(rules)
    entries: list[Entry] = []
    if not any(rule.tier_policies is TierPolicies.REPLACE for rule in rules):
        entries += tier_entries(tier, ledger.client.subject, ledger, request, cost)
    slug = tier.slug if tier else ""
    for rule in rules:
        if rule.id not in ledger.charged_rules:
            policies = _policies_for(rule, tier)
            entries += _rule_entries(rule, policies, ledger, request, slug)
    return entries


def tier_entries(
    tier: CompiledTier | None, subject: str, ledger: Ledger, request: HttpRequest, cost: int
) -> Iterator[Entry]:
    """Yield the charges of a tier's policies."""
    if tier is None:
        return
    endpoint = endpoint_name(ledger, request)
    for policy in tier.policies:
        label = f"{policy.name}\0{tier.slug}\0{endpoint}"
        yield Entry(Charge(subject, policy, cost), None, label)


def endpoint_name(ledger: Ledger, request: HttpRequest, rule: Rule | None = None) -> str:
    """Return what refusals are counted under: method and route, never the raw path.

    Before the route is known the rule's own pattern stands for it.
    """
    method = ledger.method if ledger.method in KNOWN_METHODS else "OTHER"
    match = request.resolver_match
    where = match.route if match is not None else rule.path if rule else "(no route)"
    return f"{method} {where}"


def _in_force(rules: Iterable[Rule], ledger: Ledger, now: float) -> list[Rule]:
    return [
        rule
        for rule in rules
        if is_active(rule, now) and (not ledger.preflight or "OPTIONS" in rule.methods)
    ]


def _policies_for(rule: Rule, tier: CompiledTier | None) -> tuple[QuotaPolicy, ...]:
    """Return a rule's policies for a tier; an unlimited tier only has those that name it."""
    if tier is not None and (named := rule.policies.get(tier.slug)) is not None:
        return named
    return () if tier is not None and tier.unlimited else rule.policies.get(None, ())


def _rule_entries(
    rule: Rule,
    policies: tuple[QuotaPolicy, ...],
    ledger: Ledger,
    request: HttpRequest,
    tier_slug: str,
) -> Iterator[Entry]:
    subject = rule_subject(rule, ledger.client, request) if policies else None
    if subject is None:
        return
    endpoint = endpoint_name(ledger, request, rule)
    for policy in policies:
        if rule.scope is Scope.ROUTE:
            policy = _for_route(policy, endpoint.partition(" ")[2])
        label = f"{policy.name}\0{tier_slug}\0{endpoint}"
        yield Entry(Charge(subject, policy, rule.cost), rule, label)


@lru_cache(maxsize=4096)
def _for_route(policy: QuotaPolicy, route: str) -> QuotaPolicy:
    return replace(policy, counter=f"{policy.counter}/{route}")
