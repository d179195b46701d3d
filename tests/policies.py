"""Rows of the policy in few words, and what the store holds of them."""

from __future__ import annotations

from typing import Any

import redis

from django_ratelimit_tiers.core.policies import MAX_PERIOD, Algorithm, Charge
from django_ratelimit_tiers.models import EndpointRule, RulePolicy, Tier, TierPolicy
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.snapshots import build_snapshot
from django_ratelimit_tiers.store.configured import configured_store

YEAR = MAX_PERIOD
"""A period that no test sees the end of."""

ANYBODY = "ip:127.0.0.1"


def limit_tier(slug: str, *limits: int | dict[str, Any]) -> Tier:
    """Give a tier these limits and no others; a number is one for a year."""
    tier = Tier.objects.get(slug=slug)
    tier.policies.all().delete()
    TierPolicy.objects.bulk_create([TierPolicy(tier=tier, **_fields(limit)) for limit in limits])
    return tier


def make_rule(name: str, *limits: int | dict[str, Any], **fields: Any) -> EndpointRule:
    """Create a rule with these limits, by address and at a path of its name unless told else."""
    if "view_name" not in fields:
        fields.setdefault("path", f"/{name}/")
    fields.setdefault("identify_by", "ip")
    rule = EndpointRule.objects.create(name=name, **fields)
    RulePolicy.objects.bulk_create([RulePolicy(rule=rule, **_fields(limit)) for limit in limits])
    return rule


def used(client: redis.Redis) -> dict[str, list[int]]:
    """Return how much of each limit every subject has used, in order of size."""
    snapshot = build_snapshot("", AssignmentCache())
    policies = {policy.counter_id: policy for policy in snapshot.policies}.values()
    found = {}
    for key in client.scan_iter("*:{*}"):
        subject = key.decode().split("{", 1)[1][:-1]
        outcomes = configured_store().peek([Charge(subject, policy) for policy in policies])
        found[subject] = sorted(o.charge.policy.capacity - o.remaining for o in outcomes)
    return {subject: [n for n in counts if n] for subject, counts in found.items() if any(counts)}


def _fields(limit: int | dict[str, Any]) -> dict[str, Any]:
    fields = {"requests": limit} if isinstance(limit, int) else limit
    return {"period": YEAR, "algorithm": Algorithm.FIXED_WINDOW.value} | fields
