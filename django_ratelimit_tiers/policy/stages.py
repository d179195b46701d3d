"""Which policies a request is charged for at each stage: pure choices over a snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from django.http import HttpRequest
from django.urls import Resolver404, resolve

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.rules import (
    BEFORE_AUTHENTICATION,
    IdentifyBy,
    Rule,
    Scope,
    TierPolicies,
)
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.exemptions import exempt_account, exempt_by_rule
from django_ratelimit_tiers.policy.flows import Flow
from django_ratelimit_tiers.policy.identity import Client, rule_subject
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.passages import Order, Passage
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import Bill, Item, RuleGroup, Tariff, items_of
from django_ratelimit_tiers.policy.tiers import find_tier

KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))

DOOR = "door"
"""What a passage remembers tariffs of the first stage under, with the rules that were charged."""


def door_passage(snapshot: Snapshot, ledger: Ledger) -> Passage:
    """Return the passage of a request of which nothing but the path is known."""
    _match_path(snapshot, ledger)
    return snapshot.passages.unresolved(ledger.on_path, ledger.method)


def passage(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Passage:
    """Return the passage of a resolved request, whose rules are by path, route and view name.

    Both stages ask for it; it is the same as long as the snapshot is.
    """
    if ledger.passage is not None and ledger.snapshot is snapshot:
        return ledger.passage
    _match_path(snapshot, ledger)
    match, on_path, method = request.resolver_match, ledger.on_path, ledger.method
    if match is None:
        found = snapshot.passages.unresolved(on_path, method)
    else:
        urlconf = getattr(request, "urlconf", None)
        found = snapshot.passages.resolved(on_path, match, method, urlconf)
        ledger.route = found.route
    ledger.passage = found
    return found


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
    urlconf = getattr(request, "urlconf", None)
    found = snapshot.passages.resolved((), match, ledger.method, urlconf).rules
    rules = found.in_force(now, preflight=ledger.preflight).rules
    return next((rule for rule in rules if rule.exempt), None)


def door_bill(passage: Passage, group: RuleGroup, ledger: Ledger, request: HttpRequest) -> Bill:
    """Return what can be charged before authentication and was not yet.

    `group` are the rules of the passage that are in force.
    """
    key, new = (DOOR, ledger.charged_rules), partial(_door_tariff, group, ledger)
    return bill(_tariff(passage, group, key, new), ledger.client, request)


def plain_bill(
    snapshot: Snapshot,
    ledger: Ledger,
    request: HttpRequest,
    cost: int,
    revisions: dict[str, str],
) -> Flow[Bill]:
    """Return what is charged once the client is known, whatever there is to find out about it.

    `express.usual_fare` is the short way to the same bill.
    """
    now = time.time()
    exempt_account(snapshot, ledger, request)
    way = passage(snapshot, ledger, request)
    group = way.rules.in_force(now, preflight=ledger.preflight)
    exempt_by_rule(group.rules, ledger)
    tier = None
    if not ledger.exempt and not ledger.preflight:
        tier = yield from find_tier(snapshot, ledger, request, revisions)
    return client_bill(way, group, tier, ledger, request, way.cost or cost)


def client_bill(
    passage: Passage,
    group: RuleGroup,
    tier: CompiledTier | None,
    ledger: Ledger,
    request: HttpRequest,
    cost: int,
) -> Bill:
    """Return what a client of a tier is charged: that, and those rules which were not yet.

    `group` are the rules of the passage that are in force.
    """
    key = client_key(tier, ledger.client, cost, ledger.charged_rules)
    new = partial(_client_tariff, group, tier, ledger, cost)
    return bill(_tariff(passage, group, key, new), ledger.client, request)


def client_key(
    tier: CompiledTier | None, client: Client, cost: int, charged_rules: frozenset[int]
) -> tuple[object, ...]:
    """Return what a passage remembers the tariff of the second stage under."""
    return tier and tier.slug, client.user_subject is None, cost, charged_rules


def tier_bill(tier: CompiledTier | None, ledger: Ledger, request: HttpRequest) -> Bill:
    """Return what the policies of a tier charge the client's address."""
    return bill(Tariff(tuple(_tier_items(tier, ledger, 1))), ledger.client, request)


def bill(tariff: Tariff, client: Client, request: HttpRequest) -> Bill:
    """Return what a client is charged by a tariff."""
    of_tier, charges = client.subject, []
    for rule, policy, cost in tariff.charged:
        subject = of_tier if rule is None else rule_subject(rule, client, request)
        charges.append(tuple.__new__(Charge, (subject, policy, cost)))  # the cost was checked
    return tuple.__new__(Bill, (tuple(charges), tariff, False))  # Bill(...) takes twice as long


def make_order(
    charged: Bill, snapshot: Snapshot, revisions: Mapping[str, str], at_any_revision: bool
) -> Order:
    """Return what the store is asked for these charges, whichever request it is for."""
    tariff = charged.tariff
    plan = Plan(
        charged.charges,
        revision=None if at_any_revision else snapshot.revision,
        subject_revisions={} if at_any_revision else revisions,
        labels=tariff.labels,
        form=tariff if tariff.lasts else None,
        is_kept=charged.is_kept,
    )
    return plan[:-1]


def make_plan(order: Order, ledger: Ledger, snapshot: Snapshot) -> Plan:
    """Return what the store is asked for this request."""
    plan = *order, refusal_detail(ledger, snapshot)
    return tuple.__new__(Plan, plan)  # Plan(*plan) takes twice as long


def refusal_detail(ledger: Ledger, snapshot: Snapshot) -> str:
    """Return what a sampled refusal tells of the request."""
    return f"{ledger.id}\0{snapshot.edition.number}\0{ledger.detail}"


def decides_client(view: Any) -> bool:
    """Return whether a view decides the second stage itself, once it has authenticated.

    `as_view()` and the actions of a viewset can name other throttles than the class does.
    """
    options = getattr(view, "initkwargs", {})
    own = getattr(getattr(view, "cls", None), "throttle_classes", ())
    throttles = options.get("throttle_classes", own)
    for throttle in throttles:  # noqa: SIM110 - asked for every request, and quicker than any()
        if getattr(throttle, "decides_client", False):
            return True
    return False


def endpoint_name(ledger: Ledger, rule: Rule | None = None) -> str:
    """Return what refusals are counted under: method and route, never the raw path.

    Before the route is known the rule's own pattern stands for it.
    """
    method = ledger.method if ledger.method in KNOWN_METHODS else "OTHER"
    route = ledger.route
    where = route if route is not None else rule.path if rule else "(no route)"
    return f"{method} {where}"


def _match_path(snapshot: Snapshot, ledger: Ledger) -> None:
    if ledger.snapshot is not snapshot:
        ledger.snapshot, ledger.passage = snapshot, None
        ledger.on_path = snapshot.rules.match(ledger.method, ledger.path)


def _tariff(passage: Passage, group: RuleGroup, key: object, new: Callable[[], Tariff]) -> Tariff:
    """Return the tariff that the passage remembers under a key, a new one where nothing lasts."""
    if not group.lasts:
        return new()
    tariff = passage.tariffs.get(key)
    if tariff is None:
        tariff = replace(new(), lasts=True)
        passage.remember(key, tariff)
    return tariff


def _door_tariff(group: RuleGroup, ledger: Ledger) -> Tariff:
    """Return the tariff of the first stage, without what was charged by it before.

    A rule that has limits for single tiers waits until the tier is known, and one that counts each
    route until the route is.
    """
    resolved = ledger.route is not None
    items = [
        item
        for rule in group.rules
        if rule.id not in ledger.charged_rules
        and rule.identify_by in BEFORE_AUTHENTICATION
        and rule.policies.keys() <= {None}
        and (resolved or rule.scope is Scope.RULE)
        for item in _rule_items(rule, rule.policies.get(None, ()), "", ledger)
    ]
    return Tariff(tuple(items))


def _client_tariff(
    group: RuleGroup, tier: CompiledTier | None, ledger: Ledger, cost: int
) -> Tariff:
    """Return the tariff of the second stage.

    A rule replaces the limits of the tier only where it enforces its own on this client, so that
    nobody goes without any.
    """
    slug = tier.slug if tier else ""
    items: list[Item] = []
    is_replaced = False
    for rule in group.rules:
        counted = rule.id in ledger.charged_rules
        concerns = rule.identify_by is not IdentifyBy.USER or ledger.client.user_subject is not None
        if not counted and concerns:
            of_rule = _rule_items(rule, _policies_for(rule, tier), slug, ledger)
            items += of_rule
            counted = bool(of_rule)
        if counted and rule.mode is Mode.ENFORCE and rule.tier_policies is TierPolicies.REPLACE:
            is_replaced = True
    return Tariff(tuple(items if is_replaced else _tier_items(tier, ledger, cost) + items))


def _tier_items(tier: CompiledTier | None, ledger: Ledger, cost: int) -> list[Item]:
    if tier is None:
        return []
    return items_of(tier.policies, None, f"{tier.slug}\0{endpoint_name(ledger)}", cost)


def _rule_items(
    rule: Rule, policies: tuple[QuotaPolicy, ...], tier_slug: str, ledger: Ledger
) -> list[Item]:
    if rule.scope is Scope.ROUTE:
        policies = tuple(_for_route(policy, ledger.route or "") for policy in policies)
    place = f"{tier_slug}\0{endpoint_name(ledger, rule)}\0{rule.name}"
    return items_of(policies, rule, place, rule.cost)


def _policies_for(rule: Rule, tier: CompiledTier | None) -> tuple[QuotaPolicy, ...]:
    """Return a rule's policies for a tier; an unlimited tier only has those that name it."""
    if tier is not None and (named := rule.policies.get(tier.slug)) is not None:
        return named
    return () if tier is not None and tier.unlimited else rule.policies.get(None, ())


@lru_cache(maxsize=4096)
def _for_route(policy: QuotaPolicy, route: str) -> QuotaPolicy:
    return replace(policy, counter=f"{policy.counter}/{route}")
