"""What requests are charged at each stage, and what the store is asked for that: pure choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial

from django.http import HttpRequest

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import Particulars, labelled_key
from django_ratelimit_tiers.core.rules import (
    BEFORE_AUTHENTICATION,
    IdentifyBy,
    Rule,
    Scope,
    TierPolicies,
)
from django_ratelimit_tiers.core.tuples import filled
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.identity import Client, rule_subject
from django_ratelimit_tiers.policy.ledgers import METHODS, Ledger
from django_ratelimit_tiers.policy.passages import Passage
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import Bill, Item, RuleGroup, Tariff, items_of

DOOR = "door"
"""With the rules that were charged, what a passage remembers a tariff before authentication by."""


def door_bill(passage: Passage, ledger: Ledger, request: HttpRequest) -> Bill:
    """Return what can be charged before authentication and was not yet."""
    key, new = (DOOR, ledger.charged_rules), partial(_door_items, passage.rules, ledger)
    return bill(_tariff(passage, key, new), ledger.client, request)


def client_bill(
    passage: Passage,
    tier: CompiledTier | None,
    client: Client,
    ledger: Ledger,
    request: HttpRequest,
    cost: int,
) -> Bill:
    """Return what a client is charged by its tier, which takes the cost, and by the rules that were
    not charged yet."""
    key = tier and tier.slug, client.user_subject is None, cost, ledger.charged_rules
    new = partial(_client_items, passage.rules, tier, client, ledger, cost)
    return bill(_tariff(passage, key, new), client, request)


def late_bill(
    passage: Passage, tier: CompiledTier | None, ledger: Ledger, request: HttpRequest
) -> Bill:
    """Return what a request that never reached a view or its throttle is charged: its address.

    It costs 1, whatever the view is marked with. The tier of an address may well be too small for
    that: then who is to be told to authenticate anew would be told to wait, for ever.
    """
    return client_bill(passage, tier, ledger.client, ledger, request, 1)


def bill(tariff: Tariff, client: Client, request: HttpRequest) -> Bill:
    """Return what a client is charged by a tariff."""
    of_tier, charges = client.subject, []
    for rule, policy, cost in tariff.charged:
        subject = of_tier if rule is None else rule_subject(rule, client, request)
        charges.append(filled(Charge, (subject, policy, cost)))  # the cost was checked
    return filled(Bill, (tuple(charges), tariff))


def make_plan(
    charged: Bill, snapshot: Snapshot, revisions: Mapping[str, str], at_any_revision: bool
) -> Plan:
    """Return what the store is asked for these charges, whichever request it is for."""
    tariff = charged.tariff
    return Plan(
        charged.charges,
        revision=None if at_any_revision else snapshot.revision,
        subject_revisions={} if at_any_revision else revisions,
        labels=tariff.labels,
        form=tariff,
    )


def particulars(ledger: Ledger, snapshot: Snapshot) -> Particulars:
    """Return what a sampled refusal tells of this request."""
    revision, address = snapshot.edition.number, ledger.client.address
    return ledger.id, revision, ledger.method, address, ledger.path, ledger.user_agent


def endpoint_name(ledger: Ledger, rule: Rule | None = None) -> str:
    """Return what refusals are counted under: method and route, never the raw path.

    Before the route is known the rule's own pattern stands for it; the root's route is empty.
    """
    method = ledger.method if ledger.method in METHODS else "OTHER"
    route = ledger.route
    if route is not None:
        return f"{method} {route or '/'}"
    return f"{method} {rule.path if rule else '(no route)'}"


def refused_endpoint(charged: Bill, ledger: Ledger) -> str:
    """Return the endpoint that the refusal of a bill is counted under."""
    binding = ledger.decision.binding if ledger.decision.refusing else None
    if binding is None:  # the store's failure alone refuses
        return endpoint_name(ledger)
    names = [charge.policy.name for charge in charged.charges]
    label = charged.tariff.labels[names.index(binding.charge.policy.name)]
    return labelled_key(label, Mode.ENFORCE, binding.charge.subject)[0].endpoint


def _tariff(passage: Passage, key: object, new: Callable[[], list[Item]]) -> Tariff:
    """Return the tariff that the passage remembers under a key, made of new items at first."""
    tariff = passage.tariffs.get(key)
    if tariff is None:
        tariff = Tariff(tuple(new()))
        passage.remember(key, tariff)
    return tariff


def _door_items(group: RuleGroup, ledger: Ledger) -> list[Item]:
    """Return what the first stage charges, without what was charged by it before.

    A rule that has limits for single tiers waits until the tier is known, and one that counts each
    route until the route is.
    """
    resolved = ledger.route is not None
    return [
        item
        for rule in group.rules
        if rule.id not in ledger.charged_rules
        and rule.identify_by in BEFORE_AUTHENTICATION
        and rule.policies.keys() <= {None}
        and (resolved or rule.scope is Scope.RULE)
        for item in _rule_items(rule, rule.policies.get(None, ()), "", ledger)
    ]


def _client_items(
    group: RuleGroup, tier: CompiledTier | None, client: Client, ledger: Ledger, cost: int
) -> list[Item]:
    """Return what the second stage charges.

    A rule replaces the limits of the tier only where it enforces its own on this client, so that
    nobody goes without any.
    """
    slug = tier.slug if tier else ""
    items: list[Item] = []
    is_replaced = False
    for rule in group.rules:
        counted = rule.id in ledger.charged_rules
        concerns = rule.identify_by is not IdentifyBy.USER or client.user_subject is not None
        if not counted and concerns:
            of_rule = _rule_items(rule, _policies_for(rule, tier), slug, ledger)
            items += of_rule
            counted = bool(of_rule)
        if counted and rule.mode is Mode.ENFORCE and rule.tier_policies is TierPolicies.REPLACE:
            is_replaced = True
    return items if is_replaced else _tier_items(tier, ledger, cost) + items


def _tier_items(tier: CompiledTier | None, ledger: Ledger, cost: int) -> list[Item]:
    if tier is None:
        return []
    return items_of(tier.policies, None, tier.slug, endpoint_name(ledger), cost)


def _rule_items(
    rule: Rule, policies: tuple[QuotaPolicy, ...], tier_slug: str, ledger: Ledger
) -> list[Item]:
    if rule.scope is Scope.ROUTE:
        policies = tuple(_for_route(policy, ledger.route or "") for policy in policies)
    return items_of(policies, rule, tier_slug, endpoint_name(ledger, rule), rule.cost)


def _policies_for(rule: Rule, tier: CompiledTier | None) -> tuple[QuotaPolicy, ...]:
    """Return a rule's policies for a tier: those that name it, or those for every other tier."""
    if tier is not None and (named := rule.policies.get(tier.slug)) is not None:
        return named
    return rule.policies.get(None, ())


@lru_cache(maxsize=4096)
def _for_route(policy: QuotaPolicy, route: str) -> QuotaPolicy:
    return replace(policy, counter=f"{policy.counter}/{route}")
