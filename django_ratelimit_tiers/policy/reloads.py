"""How requests follow edits of the policy: the same for threads and event loops."""

from __future__ import annotations

from django_ratelimit_tiers.core.plans import Plan, StalePlan
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded
from django_ratelimit_tiers.policy.flows import Flow, in_thread
from django_ratelimit_tiers.policy.snapshots import Snapshot, SnapshotCache
from django_ratelimit_tiers.store.base import Store

MAX_RELOADS = 5
"""How often one request follows edits that arrive while it is decided."""


class Reloads:
    """Loads what has changed in a process's snapshot, outside the event loop."""

    def __init__(self, store: Store, breaker: Breaker, snapshots: SnapshotCache) -> None:
        self._store, self._breaker = store, breaker
        self._snapshots = snapshots

    def snapshot(self) -> Flow[Snapshot]:
        """Return the snapshot in force once the database was asked for it."""
        stale = self._snapshots.current
        if stale is None:
            snapshot: Snapshot = yield in_thread(lambda: self._snapshots.load(None))
        else:
            snapshot = yield in_thread(lambda: self._snapshots.compare(stale))
        return snapshot

    def look(self, plan: Plan) -> Flow[None]:
        """Compare the revisions of a plan that charges nothing: once in a while, or always for a
        client whose own tier says so. It passes whether or not the store answers.

        Raises StalePlan where one of them is not current.
        """
        if not plan.subject_revisions and not self._snapshots.wants_look():
            return
        try:
            store = self._store
            yield Guarded(self._breaker, store.execute, store.aexecute, plan)
        except StoreUnavailable:
            return
        self._snapshots.confirm()

    def catch_up(
        self, snapshot: Snapshot, stale: StalePlan, revisions: dict[str, str]
    ) -> Flow[dict[str, str]]:
        """Load what is newer, and return the revisions of subjects with those of newer ones."""
        if stale.revision != snapshot.revision:
            yield in_thread(lambda: self._snapshots.load(snapshot))
        newer = {
            subject: revision
            for subject, revision in stale.subject_revisions.items()
            if revisions.get(subject, revision) != revision
        }
        for subject in newer:
            snapshot.assignments.forget(subject)
        return revisions | newer
