"""The policy as one immutable value for each process, rebuilt when the revision moves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Lock

from django.db import DatabaseError, InterfaceError
from django.db.models import Count, Max, Prefetch
from django.utils import timezone

from django_ratelimit_tiers.core.policies import QuotaPolicy
from django_ratelimit_tiers.core.rulesets import RuleSet
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import (
    PolicyRevision,
    ServiceAccount,
    Tier,
    TierPolicy,
)
from django_ratelimit_tiers.policy.accounts import Accounts, compile_accounts
from django_ratelimit_tiers.policy.assignments import REMEMBERED_SECONDS, AssignmentCache
from django_ratelimit_tiers.policy.breaker import Breaker
from django_ratelimit_tiers.policy.compilation import CompiledTier, compile_rules, compile_tier
from django_ratelimit_tiers.policy.passages import PassageBook
from django_ratelimit_tiers.policy.revisions import announce_policy, own_edits
from django_ratelimit_tiers.policy.routes import RouteIndex
from django_ratelimit_tiers.policy.trials import AS_IT_IS, Trial
from django_ratelimit_tiers.querysets import apart, primary
from django_ratelimit_tiers.store.base import Store

logger = logging.getLogger(__name__)

IDLE_LOOK_SECONDS = 1.0
"""A process that charges nothing compares its revision with the store's this often."""

DATABASE_LOOK_SECONDS = 60.0
"""Every process compares its revision with the database's this often, in case an announcement
was lost; a store that only this process sees has no announcements, and is compared each second."""


RECENT_REVISIONS = 1000
"""How many revisions back a transaction may lie that commits only now."""

UNKNOWN = "?"
"""The revision of a snapshot built while the store was unavailable: the store never agrees."""


@dataclass(frozen=True, slots=True)
class Edition:
    """What tells one state of the policy in the database from another.

    `number` is the last revision. Transactions may commit in another order than they took their
    numbers in, so the recent ones are counted, too.
    """

    number: int = 0
    recent: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All tiers, rules and service accounts of one revision.

    `revision` is the store's token for the `edition` in the database. What was looked up about
    single subjects and worked out about single endpoints is remembered with the snapshot, and so
    forgotten with it.
    """

    revision: str
    edition: Edition
    tiers: Mapping[str, CompiledTier]
    defaults: Mapping[str, CompiledTier]
    rules: RuleSet
    has_exemptions: bool
    accounts: Accounts
    has_accounts: bool
    assignments: AssignmentCache
    passages: PassageBook

    @property
    def policies(self) -> Iterator[QuotaPolicy]:
        """Every policy of a tier or a rule."""
        for tier in self.tiers.values():
            yield from tier.policies
        for rule in self.rules.rules:
            for policies in rule.policies.values():
                yield from policies

    def default_tier(self, default_for: str) -> CompiledTier | None:
        """Return the tier of those who were assigned none."""
        return self.defaults.get(default_for)


class SnapshotUnavailable(Exception):
    """There is no policy yet, and the database cannot be read."""


class SnapshotCache:
    """The snapshot in force in this process.

    An edit that could not be announced is found by comparing with the database: every
    DATABASE_LOOK_SECONDS, and as soon as a store that had failed answers again.
    """

    def __init__(
        self, store: Store, breaker: Breaker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._breaker = breaker
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._lock = Lock()
        self._confirmed = self._compared = self._unreadable_until = -math.inf
        self._recoveries = 0
        self._own_edit = own_edits.last
        self._edits_seen: set[int] = set()
        self._edits_heeded: set[int] = set()

    @property
    def current(self) -> Snapshot | None:
        """The last snapshot that was built, None before the first."""
        return self._snapshot

    @property
    def in_force(self) -> Snapshot | None:
        """The current snapshot, None when it is to be loaded, or compared with the database."""
        every = DATABASE_LOOK_SECONDS if self._store.shared else IDLE_LOOK_SECONDS
        if self._clock() - self._compared > every:
            return None
        return self._snapshot if self._breaker.recoveries == self._recoveries else None

    def confirm(self) -> None:
        """Note that the store has just agreed with the snapshot's revision."""
        self._confirmed = self._clock()

    def wants_look(self) -> bool:
        """Return whether nothing has confirmed the revision for too long, or since an edit here."""
        if self._own_edit is not own_edits.last:
            self._own_edit = own_edits.last
            return True
        return self._clock() - self._confirmed > IDLE_LOOK_SECONDS

    def load(self, stale: Snapshot | None) -> Snapshot:
        """Return a newer snapshot than the stale one, building it unless another thread just did.

        The store's token is read before the rows: an edit committed in between makes the snapshot
        stale again, never falsely current. While the database cannot be read the last snapshot
        stays in force; raises SnapshotUnavailable if there is none.
        """
        with self._lock:
            if self._snapshot is not None and self._snapshot is not stale:
                return self._snapshot
            if self._snapshot is None and self._clock() < self._unreadable_until:
                raise SnapshotUnavailable("the database failed a moment ago")
            revision = self._token()
            self._compared = self._clock()
            try:
                seconds = REMEMBERED_SECONDS if self._store.shared else IDLE_LOOK_SECONDS
                former = None if self._snapshot is None else self._snapshot.assignments
                with apart(PolicyRevision):
                    self._snapshot = build_snapshot(revision, AssignmentCache(seconds, former))
            except (DatabaseError, InterfaceError) as error:
                if self._snapshot is None:
                    logger.error("there is no policy yet, and the database fails: %s", error)
                    self._unreadable_until = self._clock() + IDLE_LOOK_SECONDS
                    raise SnapshotUnavailable(str(error)) from error
                self._stay_in_force(error)
                # What was ordered of the store on its passages had the other revision.
                passages = self._snapshot.passages.anew()
                self._snapshot = replace(self._snapshot, revision=revision, passages=passages)
            self.confirm()
            return self._snapshot

    def compare(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot if the database has no later edition, otherwise the new one.

        An edition that no process was told of is announced now; subjects that were edited since
        the last comparison are looked up again.
        """
        self._compared = self._clock()
        self._recoveries = self._breaker.recoveries
        try:
            with apart(PolicyRevision):
                edition = database_edition()
                self._forget_edited_subjects(snapshot)
        except (DatabaseError, InterfaceError) as error:
            self._stay_in_force(error)
            return snapshot
        if edition == snapshot.edition:
            return snapshot
        announce_policy()
        return self.load(snapshot)

    def _stay_in_force(self, error: Exception) -> None:
        logger.warning("the last policy stays in force, the database fails: %s", error)
        self._compared = self._clock() - DATABASE_LOOK_SECONDS + IDLE_LOOK_SECONDS

    def _forget_edited_subjects(self, snapshot: Snapshot) -> None:
        """Forget whose tier was edited lately: of one edit or another nobody may have been told.

        Each edit is heeded at two comparisons: a look-up under way at the first may have missed it.
        """
        since = timezone.now() - timedelta(seconds=REMEMBERED_SECONDS)
        edits = primary(PolicyRevision).filter(created_at__gt=since).exclude(subjects=[])
        lately = dict(edits.values_list("pk", "subjects")[:RECENT_REVISIONS])
        for number in lately.keys() - self._edits_heeded:
            for subject in lately[number]:
                snapshot.assignments.forget(subject)
        self._edits_heeded = self._edits_seen & lately.keys()
        self._edits_seen = set(lately)

    def _token(self) -> str:
        try:
            with self._breaker:
                return self._store.revision()
        except StoreUnavailable:
            return UNKNOWN


def database_edition() -> Edition:
    """Return the present edition of the policy; edits of single subjects are no part of it."""
    revisions = primary(PolicyRevision)
    latest = revisions.aggregate(latest=Max("pk"))["latest"] or 0
    recent = revisions.filter(pk__gt=latest - RECENT_REVISIONS, subjects=[])
    numbers = recent.aggregate(number=Max("pk"), recent=Count("pk"))
    return Edition(numbers["number"] or 0, numbers["recent"])


def build_snapshot(
    revision: str, assignments: AssignmentCache, trial: Trial = AS_IT_IS
) -> Snapshot:
    """Read the whole policy from the database, with the changes of a trial.

    Raises ValueError for a trial with numbers that no counter can hold.
    """
    edition = database_edition()
    rows = list(primary(Tier).prefetch_related(Prefetch("policies", primary(TierPolicy))))
    tiers = {tier.slug: trial.tier(compile_tier(tier)) for tier in rows}
    accounts = compile_accounts(primary(ServiceAccount).filter(is_active=True))
    rule_set = RuleSet(trial.rules(compile_rules(trial.enforced)))
    return Snapshot(
        revision=revision,
        edition=edition,
        tiers=tiers,
        defaults={tier.default_for: tiers[tier.slug] for tier in rows if tier.default_for},
        rules=rule_set,
        has_exemptions=any(rule.exempt for rule in rule_set.rules),
        accounts=accounts,
        has_accounts=accounts != Accounts(),
        assignments=assignments,
        passages=PassageBook(rule_set, RouteIndex(rule_set.rules)),
    )
