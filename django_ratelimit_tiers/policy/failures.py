"""What is answered while the store is unavailable."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision, FailurePolicy
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import MAX_PERIOD, Charge, QuotaPolicy
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.policy.tariffs import Bill
from django_ratelimit_tiers.store.memory import MemoryStore

STRICTNESS = [FailurePolicy.OPEN, FailurePolicy.LOCAL, FailurePolicy.CLOSED]


def degraded_decision(bill: Bill, local: MemoryStore, earlier: Iterable[Rule] = ()) -> Decision:
    """Return the decision of the strictest failure policy among the rules that can refuse.

    The tier follows them and those that have charged the request `earlier`; where there is no rule
    the setting decides. A request that would be charged nothing passes, whatever the policy.
    """
    refusing = [
        rule
        for charge, rule in zip(bill.charges, bill.tariff.rules, strict=True)
        if charge.policy.is_enforced
    ]
    strictest = FailurePolicy.OPEN
    if refusing:
        rules = [rule for rule in (*refusing, *earlier) if rule is not None]
        strictest = max(map(_failure_policy, rules or refusing), key=STRICTNESS.index)
    if strictest is not FailurePolicy.LOCAL:
        return Decision(degraded=strictest)
    workers = worker_count()
    charges = tuple(_share(charge, workers) for charge in bill.charges)
    decision = local.execute(Plan(charges, labels=bill.tariff.labels))
    return Decision(decision.answer, decision.now, FailurePolicy.LOCAL)


def worker_count() -> int:
    """Return how many processes share each limit: the setting `WORKERS`, else WEB_CONCURRENCY.

    Servers such as gunicorn and uvicorn read their number of workers from that variable. Where
    neither is known it is 1, so that nobody is refused who would not be otherwise.
    """
    if conf.WORKERS is not None:
        return conf.WORKERS
    known = os.environ.get("WEB_CONCURRENCY", "")
    return max(1, int(known)) if known.isdecimal() else 1


def _failure_policy(rule: Rule | None) -> FailurePolicy:
    return (rule and rule.on_store_failure) or conf.ON_STORE_FAILURE


def _share(charge: Charge, workers: int) -> Charge:
    policy = _share_of_policy(charge.policy, workers, max(1, charge.cost))
    return charge._replace(policy=policy)


@lru_cache(maxsize=4096)
def _share_of_policy(policy: QuotaPolicy, workers: int, least: int) -> QuotaPolicy:
    """Return one worker's share of a policy, never so small that a single request cannot pass."""
    requests = _part(policy.requests, workers, least)
    if policy.burst is None:
        return replace(policy, requests=requests)
    burst = _part(policy.burst, workers, least)
    slowest = -(-burst * policy.period // MAX_PERIOD)  # a bucket must refill within that time
    return replace(policy, requests=max(requests, slowest), burst=burst)


def _part(limit: int, workers: int, least: int) -> int:
    return min(limit, max(-(-limit // workers), least))
