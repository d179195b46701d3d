"""The policy as one immutable value for each process, rebuilt when the revision moves."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock

from django.db import DatabaseError, InterfaceError
from django.db.models import Count, Max

from django_ratelimit_tiers.core.rulesets import RuleSet
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import EndpointRule, PolicyRevision, ServiceAccount, Tier
from django_ratelimit_tiers.policy.accounts import Accounts, compile_accounts
from django_ratelimit_tiers.policy.assignments import REMEMBERED_SECONDS, AssignmentCache
from django_ratelimit_tiers.policy.compilation import CompiledTier, compile_rules, compile_tier
from django_ratelimit_tiers.policy.revisions import announce_policy
from django_ratelimit_tiers.policy.routes import RouteIndex
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
    single subjects is remembered with the snapshot, and so forgotten with it.
    """

    revision: str
    edition: Edition
    tiers: Mapping[str, CompiledTier]
    defaults: Mapping[str, CompiledTier]
    rules: RuleSet
    routes: RouteIndex
    accounts: Accounts
    assignments: AssignmentCache

    def default_tier(self, default_for: str) -> CompiledTier | None:
        """Return the tier of those who were assigned none."""
        return self.defaults.get(default_for)


class SnapshotUnavailable(Exception):
    """There is no policy yet, and the database cannot be read."""


class SnapshotCache:
    """The snapshot in force in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None
        self._lock = Lock()
        self._confirmed = self._compared = 0.0

    @property
    def current(self) -> Snapshot | None:
        """The last snapshot that was built, None before the first."""
        return self._snapshot

    def confirm(self) -> None:
        """Note that the store has just agreed with the snapshot's revision."""
        self._confirmed = time.monotonic()

    def wants_look(self) -> bool:
        """Return whether nothing has confirmed the revision for too long."""
        return time.monotonic() - self._confirmed > IDLE_LOOK_SECONDS

    def wants_comparison(self) -> bool:
        """Return whether the database should be asked for its revision again."""
        every = DATABASE_LOOK_SECONDS if self._store.shared else IDLE_LOOK_SECONDS
        return time.monotonic() - self._compared > every

    def load(self, stale: Snapshot | None) -> Snapshot:
        """Return a newer snapshot than the stale one, building it unless another thread just did.

        The store's token is read before the rows: an edit committed in between makes the snapshot
        stale again, never falsely current. While the database cannot be read the last snapshot
        stays in force; raises SnapshotUnavailable if there is none.
        """
        with self._lock:
            if self._snapshot is not None and self._snapshot is not stale:
                return self._snapshot
            revision = self._token()
            self._compared = time.monotonic()
            try:
                seconds = REMEMBERED_SECONDS if self._store.shared else IDLE_LOOK_SECONDS
                self._snapshot = build_snapshot(revision, AssignmentCache(seconds))
            except (DatabaseError, InterfaceError) as error:
                if self._snapshot is None:
                    raise SnapshotUnavailable(str(error)) from error
                logger.warning("the last policy stays in force, the database fails: %s", error)
                self._snapshot = replace(self._snapshot, revision=revision)
                self._compared = time.monotonic() - DATABASE_LOOK_SECONDS + IDLE_LOOK_SECONDS
            self.confirm()
            return self._snapshot

    def compare(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot if the database has no later edition, otherwise the new one.

        An edition that no process was told of is announced now.
        """
        self._compared = time.monotonic()
        try:
            if database_edition() == snapshot.edition:
                return snapshot
        except (DatabaseError, InterfaceError) as error:
            logger.warning("the last policy stays in force, the database fails: %s", error)
            return snapshot
        announce_policy()
        return self.load(snapshot)

    def _token(self) -> str:
        try:
            return self._store.revision()
        except StoreUnavailable:
            return UNKNOWN


def database_edition() -> Edition:
    """Return the present edition of the policy; edits of single subjects are no part of it."""
    latest = PolicyRevision.objects.aggregate(latest=Max("pk"))["latest"] or 0
    recent = PolicyRevision.objects.filter(pk__gt=latest - RECENT_REVISIONS, subjects=[])
    numbers = recent.aggregate(number=Max("pk"), recent=Count("pk"))
    return Edition(numbers["number"] or 0, numbers["recent"])


def build_snapshot(revision: str, assignments: AssignmentCache) -> Snapshot:
    """Read the whole policy from the database."""
    edition = database_edition()
    rows = list(Tier.objects.prefetch_related("policies"))
    tiers = {tier.slug: compile_tier(tier) for tier in rows}
    rules = EndpointRule.objects.exclude(mode="off").prefetch_related("policies__tier")
    rule_set = RuleSet(compile_rules(rules))
    return Snapshot(
        revision=revision,
        edition=edition,
        tiers=tiers,
        defaults={tier.default_for: tiers[tier.slug] for tier in rows if tier.default_for},
        rules=rule_set,
        routes=RouteIndex(rule_set.rules),
        accounts=compile_accounts(ServiceAccount.objects.filter(is_active=True)),
        assignments=assignments,
    )
