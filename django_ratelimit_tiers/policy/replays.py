"""Logs of the past, decided by the policy of today or by one that is tried out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache

from django_ratelimit_tiers.core.accesslogs import LoggedRequest
from django_ratelimit_tiers.core.policies import MICROSECONDS, Mode
from django_ratelimit_tiers.core.replays import Limit, Replay
from django_ratelimit_tiers.core.rules import IdentifyBy, TierPolicies
from django_ratelimit_tiers.core.words import shown
from django_ratelimit_tiers.models import EndpointRule
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

MOST_CLIENTS = 200_000
"""How many clients' counters a replay keeps, in about a kilobyte each; the oldest give way."""

REMEMBERED_USERS = 100_000
"""How many users a replay remembers."""


class ReplayFailed(Exception):
    """A logged request cannot be decided, for the reason that the message tells."""


class Comparison:
    """Logged requests, decided by the policy as it is and by one that is tried, side by side.

    `by_field` are the names of the rules that are left out: they count by what no log tells.
    `replacing` are those of them in place of which the limits of tiers are charged.
    `tried` is None for a trial that changes nothing. Raises ValueError for numbers that no counter
    can hold, and for the name of a limit or a tier that there is none of.
    """

    def __init__(self, trial: Trial) -> None:
        by_field = EndpointRule.objects.filter(identify_by=IdentifyBy.FIELD, exempt=False)
        rules = {
            rule.pk: rule
            for rule in by_field.order_by("name")
            if rule.mode != Mode.OFF or rule.pk in trial.enforced
        }
        self.by_field = [rule.name for rule in rules.values()]
        self.replacing = [
            rule.name
            for rule in rules.values()
            if rule.tier_policies == TierPolicies.REPLACE
            and (rule.mode == Mode.ENFORCE or rule.pk in trial.enforced)
        ]
        self._replayers = [Replayer(Trial(without=rules.keys()))]
        if trial:
            self._replayers.append(Replayer(replace(trial, without=rules.keys())))

    @property
    def today(self) -> Replay:
        """What the policy as it is has decided."""
        return self._replayers[0].replay

    @property
    def tried(self) -> Replay | None:
        """What the policy that is tried has decided."""
        return self._replayers[1].replay if len(self._replayers) > 1 else None

    def decide(self, requests: Iterable[LoggedRequest]) -> None:
        """Decide requests in the order of their times.

        Raises ReplayFailed where the site's own functions fail.
        """
        for logged in requests:
            try:
                for replayer in self._replayers:
                    replayer.decide(logged)
            except Exception as error:
                raise ReplayFailed(
                    f"{logged.method} {shown(logged.path)} of {logged.address} cannot be replayed: "
                    f"{error!r}. A log has no headers and no session: log the tier as JSON if "
                    "TIER_RESOLVER needs them."
                ) from error


class Replayer:
    """Decides logged requests with counters of its own, and counts what is refused.

    Tiers, rules, service accounts and their dates are those of now. Raises ValueError for a trial
    with numbers that no counter can hold, or with a limit or a tier that there is none of.
    """

    def __init__(self, trial: Trial) -> None:
        self.replay = Replay()
        self._now, self._known_user = 0, lru_cache(maxsize=REMEMBERED_USERS)(known_user)
        snapshot = build_snapshot("", AssignmentCache(), trial)
        _refuse_others(trial.limits, {policy.name for policy in snapshot.policies}, "limit")
        _refuse_others(trial.tiers, snapshot.tiers, "tier")
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
        user = self._known_user(logged.user) if logged.user else None
        return Visitor(user, verified_key(logged.api_key), logged.tier, logged.status)


def _refuse_others(names: Iterable[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            there_are = ", ".join(sorted(known))
            raise ValueError(f"No {what} has the name {name!r}; there are {there_are}.")


def _limit(charged: Charged) -> Limit:
    """Return the limit that has refused: one and the same where a rule counts each route apart."""
    policy = charged.outcome.charge.policy
    if not charged.rule:
        return Limit(policy, charged.key.tier, "")
    return Limit(replace(policy, counter=""), "", charged.rule)
