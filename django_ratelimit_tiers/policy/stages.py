"""Which policies a request is charged for at each stage: pure choices over a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from django.http import HttpRequest
from django.urls import Resolver404, resolve

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.rules import (
    BEFORE_AUTHENTICATION,
    Rule,
    Scope,
    TierPolicies,
)
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.identity import rule_subject
from django_ratelimit_tiers.policy.ledgers import Entry, Ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot

KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))


def path_rules(snapshot: Snapshot, ledger: Ledger, now: float) -> list[Rule]:
    """Return the active rules whose pattern the path matches."""
    if ledger.rules_of is not snapshot:
        ledger.rules_of, ledger.path_rules, ledger.rules = snapshot, None, None
    if ledger.path_rules is None:
        ledger.path_rules = _in_force(snapshot.rules.match(ledger.method, ledger.path), ledger, now)
    return ledger.path_rules


def all_rules(snapshot: Snapshot, ledger: Ledger, request: HttpRequest, now: float) -> list[Rule]:
    """Return the active rules for a resolved request: by path, by route and by view name.

    Both stages ask for them; they are the same as long as the snapshot is.
    """
    rules = path_rules(snapshot, ledger, now)
    if ledger.rules is not None:
        return ledger.rules
    match = request.resolver_match
    if match is not None:
        urlconf = getattr(request, "urlconf", None)
        ledger.route, found = snapshot.routes.look_up(match, ledger.method, urlconf)
        of_view = _in_force(found, ledger, now) if found else []
        if of_view:
            rules = list({rule.id: rule for rule in (*rules, *of_view)}.values())
    ledger.rules = rules
    return rules


def acts_at_door(snapshot: Snapshot, ledger: Ledger, now: float) -> bool:
    """Return whether anything can exempt or charge a request before it is resolved."""
    return snapshot.accounts.exist or act_early(path_rules(snapshot, ledger, now))


def exemption_of_view(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, now: float
) -> Rule | None:
    """Return the exempt rule on the view that the path is going to be resolved to.

    Only asked where there are exempt rules and something would be charged before Django resolves
    the path: an exemption wins, whichever way a rule names the view.
    """
    try:
        match = resolve(ledger.path, urlconf=getattr(request, "urlconf", None))
    except Resolver404:
        return None
    rules = _in_force(snapshot.routes.rules_for(match, ledger.method), ledger, now)
    return next((rule for rule in rules if rule.exempt), None)


def act_early(rules: Iterable[Rule]) -> bool:
    """Return whether one of the rules can exempt or be charged before the client is known."""
    for rule in rules:  # noqa: SIM110 - asked for every request, and quicker than any()
        if rule.acts_early:
            return True
    return False


def door_entries(rules: Iterable[Rule], ledger: Ledger, request: HttpRequest) -> list[Entry]:
    """Return what can be charged before authentication and was not yet.

    A rule that has limits for single tiers waits until the tier is known, and one that counts each
    route until the route is.
    """
    resolved = ledger.route is not None
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
    """Return what is charged once the client is known: its tier, and all remaining rules.

    A rule replaces the limits of the tier only where it enforces its own on this client, so that
    nobody goes without any.
    """
    slug = tier.slug if tier else ""
    entries: list[Entry] = []
    is_replaced = False
    for rule in rules:
        counted = rule.id in ledger.charged_rules
        if not counted:
            policies = _policies_for(rule, tier)
            of_rule = _rule_entries(rule, policies, ledger, request, slug)
            entries += of_rule
            counted = bool(of_rule)
        if counted and rule.mode is Mode.ENFORCE and rule.tier_policies is TierPolicies.REPLACE:
            is_replaced = True
    if is_replaced:
        return entries
    return tier_entries(tier, ledger.client.subject, ledger, cost) + entries


def make_plan(
    ledger: Ledger,
    entries: list[Entry],
    snapshot: Snapshot,
    revisions: dict[str, str],
    at_any_revision: bool,
) -> Plan:
    """Return what the store is asked for these charges."""
    return Plan(
        charges=tuple([entry.charge for entry in entries]),
        revision=None if at_any_revision else snapshot.revision,
        subject_revisions={} if at_any_revision else revisions,
        labels=tuple([entry.label for entry in entries]),
        detail=f"{ledger.id}\0{snapshot.edition.number}\0{ledger.detail}",
    )


def decides_client(view: Any) -> bool:
    """Return whether a view decides the second stage itself, once it has authenticated.

    `as_view()` and the actions of a viewset can name other throttles than the class does.
    """
    options = getattr(view, "initkwargs", {})
    own = getattr(getattr(view, "cls", None), "throttle_classes", ())
    throttles = options.get("throttle_classes", own)
    return any(getattr(throttle, "decides_client", False) for throttle in throttles)


def tier_entries(tier: CompiledTier | None, subject: str, ledger: Ledger, cost: int) -> list[Entry]:
    """Return the charges of a tier's policies."""
    if tier is None:
        return []
    place = f"{tier.slug}\0{endpoint_name(ledger)}"
    return [
        Entry(Charge(subject, policy, cost), None, f"{policy.name}\0{place}")
        for policy in tier.policies
    ]


def endpoint_name(ledger: Ledger, rule: Rule | None = None) -> str:
    """Return what refusals are counted under: method and route, never the raw path.

    Before the route is known the rule's own pattern stands for it.
    """
    method = ledger.method if ledger.method in KNOWN_METHODS else "OTHER"
    route = ledger.route
    where = route if route is not None else rule.path if rule else "(no route)"
    return f"{method} {where}"


def _in_force(rules: Iterable[Rule], ledger: Ledger, now: float) -> list[Rule]:
    return [
        rule
        for rule in rules
        if rule.is_active(now) and (not ledger.preflight or "OPTIONS" in rule.methods)
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
) -> list[Entry]:
    subject = rule_subject(rule, ledger.client, request) if policies else None
    if subject is None:
        return []
    if rule.scope is Scope.ROUTE:
        policies = tuple(_for_route(policy, ledger.route or "") for policy in policies)
    place = f"{tier_slug}\0{endpoint_name(ledger, rule)}\0{rule.name}"
    return [
        Entry(Charge(subject, policy, rule.cost), rule, f"{policy.name}\0{place}")
        for policy in policies
    ]


@lru_cache(maxsize=4096)
def _for_route(policy: QuotaPolicy, route: str) -> QuotaPolicy:
    return replace(policy, counter=f"{policy.counter}/{route}")
