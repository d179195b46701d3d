"""Logs of the past, decided by the policy of today or by one that is tried out."""

from __future__ import annotations

from typing import Any

from django_ratelimit_tiers.core.accesslogs import LoggedRequest
from django_ratelimit_tiers.core.policies import MICROSECONDS
from django_ratelimit_tiers.core.replays import Limit, Replay
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.identity import verified_key
from django_ratelimit_tiers.policy.rehearsals import (
    Charged,
    Rehearsal,
    Visitor,
    imagined_request,
    known_user,
)
from django_ratelimit_tiers.policy.snapshots import build_snapshot
from django_ratelimit_tiers.policy.trials import Trial
from django_ratelimit_tiers.store.memory import MemoryStore

MOST_CLIENTS = 1_000_000
"""How many clients' counters a replay keeps."""


class Replayer:
    """Decides logged requests with counters of its own, and counts what is refused.

    Tiers, rules, service accounts and their dates are those of now. `policy_names` are those of all
    limits in force or tried. Raises ValueError for a trial with numbers that no counter can hold.
    """

    def __init__(self, trial: Trial) -> None:
        self.replay = Replay()
        self._now, self._users = 0, dict[str, Any]()
        snapshot = build_snapshot("", AssignmentCache(), trial)
        limits = [tier.policies for tier in snapshot.tiers.values()]
        limits += [limit for rule in snapshot.rules.rules for limit in rule.policies.values()]
        self.policy_names = frozenset(policy.name for limit in limits for policy in limit)
        store = MemoryStore(max_subjects=MOST_CLIENTS, clock=lambda: self._now / MICROSECONDS)
        self._rehearsal = Rehearsal(snapshot, store)

    def decide(self, logged: LoggedRequest) -> bool:
        """Decide one request and return whether it passes; they come in the order of their times.

        Raises what the site's own functions raise.
        """
        self._now, visitor = logged.at, self._visitor(logged)
        request = imagined_request(
            logged.method, logged.path, logged.query, logged.address, visitor
        )
        rehearsed = self._rehearsal.decide(request, visitor, logged.at)
        ledger = rehearsed.ledger
        client, is_exempt = ledger.client.subject, bool(ledger.exempt)
        refusals = [(_limit(refusal), refusal.key.endpoint) for refusal in rehearsed.refusals]
        self.replay.add(logged.at, client, is_exempt, refusals)
        return ledger.decision.allowed

    def _visitor(self, logged: LoggedRequest) -> Visitor:
        user, name = None, logged.user
        if name:
            if name not in self._users:
                self._users[name] = known_user(name)
            user = self._users[name]
        return Visitor(user, verified_key(logged.api_key), logged.tier, logged.status)


def _limit(charged: Charged) -> Limit:
    tier = "" if charged.rule else charged.key.tier
    return Limit(charged.outcome.charge.policy, tier, charged.rule)
