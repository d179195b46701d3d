"""From a request to a decision: plan, ask the store once, conclude.

Everything is a flow (see `flows`), so that threads and event loops share it to the last branch.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from http import HTTPStatus
from typing import Any

from django.dispatch import receiver
from django.http import HttpRequest
from django.test.signals import setting_changed

from django_ratelimit_tiers.conf import SETTING, conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision
from django_ratelimit_tiers.core.plans import Plan, Reply, Stale
from django_ratelimit_tiers.events.refusals import aannounce_refusal, announce_refusal, unnoticed
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy import stages
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded
from django_ratelimit_tiers.policy.exemptions import (
    exempt_account,
    exempt_by_rule,
    exempt_by_view,
)
from django_ratelimit_tiers.policy.express import usual_bill
from django_ratelimit_tiers.policy.failures import degraded_decision
from django_ratelimit_tiers.policy.flows import Flow, Step, done, in_thread
from django_ratelimit_tiers.policy.identity import identified_client
from django_ratelimit_tiers.policy.ledgers import Ledger, ledger_of, open_ledger
from django_ratelimit_tiers.policy.refusals import RefusalMemory
from django_ratelimit_tiers.policy.snapshots import Snapshot, SnapshotCache, SnapshotUnavailable
from django_ratelimit_tiers.policy.tallies import Teller
from django_ratelimit_tiers.policy.tariffs import NOTHING, Bill
from django_ratelimit_tiers.policy.tiers import called
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords

MAX_RELOADS = 5
"""How often one request follows edits that arrive while it is decided."""

Compose = Callable[[Snapshot], Flow[Bill]]


class Limiter:
    """Decides requests with one store; one for each process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.breaker = Breaker()
        self._snapshots = SnapshotCache(store, self.breaker)
        self._local = MemoryStore(records=MemoryRecords(sample=MOST_SAMPLED))
        self.teller = Teller(store, self._local.records)
        self._refusals = RefusalMemory(conf.REFUSAL_MEMORY)

    def passes_door(self, request: HttpRequest) -> bool:
        """Return whether nobody can be exempt and nothing be charged at the first stage."""
        ledger = open_ledger(request)
        known = self._snapshots.in_force
        if known is None or known.has_accounts:
            return False
        return not stages.door_passage(known, ledger).rules.acts_early

    def door(self, request: HttpRequest) -> Flow[Decision]:
        """Decide the first stage: what is known before authentication, by the path alone."""
        ledger = open_ledger(request)

        def compose(snapshot: Snapshot) -> Flow[Bill]:
            now = time.time()
            exempt_account(snapshot, ledger, request)
            group = stages.door_passage(snapshot, ledger).rules
            group = group.in_force(now, preflight=ledger.preflight)
            exempt_by_rule(group.rules, ledger)
            bill = stages.door_bill(group, ledger, request)
            if bill.charges and snapshot.has_exemptions:
                rule = stages.exemption_of_view(snapshot, ledger, request, now)
                exempt_by_rule([rule] if rule else [], ledger)
            return done(bill)

        return (yield from self._decide(ledger, request, compose))

    def route(self, request: HttpRequest) -> Flow[Decision]:
        """Decide the rest of the first stage: what only the resolved route shows."""
        ledger = open_ledger(request)
        known = self._snapshots.current
        if known is not None and stages.passage(known, ledger, request).is_usual:
            return ledger.decision
        exempt_by_view(ledger, request)
        if known is not None and not stages.passage(known, ledger, request).rules.acts_early:
            return ledger.decision

        def compose(snapshot: Snapshot) -> Flow[Bill]:
            group = stages.passage(snapshot, ledger, request).rules
            group = group.in_force(time.time(), preflight=ledger.preflight)
            exempt_by_rule(group.rules, ledger)
            return done(stages.door_bill(group, ledger, request))

        return (yield from self._decide(ledger, request, compose))

    def client(self, request: HttpRequest, user: Any, cost: int = 1) -> Flow[Decision]:
        """Decide the second stage: the client's tier and every rule not charged yet.

        `user` is the user that authentication found, None when there is none; `cost` is what the
        tier is charged, unless the view that was resolved is marked with another.
        """
        ledger = open_ledger(request)
        if ledger.client_decided:
            return ledger.decision
        ledger.client_decided = True
        revisions: dict[str, str] = {}
        usual = key_id = None
        if conf.API_KEY_RESOLVER is not None:
            key_id = yield from called(conf.API_KEY_RESOLVER, request)
        known = ledger.snapshot or self._snapshots.in_force  # the first stage has just looked
        if known is not None and key_id in (None, ""):
            usual = usual_bill(known, ledger, request, user, cost, revisions)
        if usual is None:
            exempt_by_view(ledger, request)
            ledger.client = identified_client(ledger.client, user, key_id)

        def compose(snapshot: Snapshot) -> Flow[Bill]:
            return stages.plain_bill(snapshot, ledger, request, cost, revisions)

        return (yield from self._decide(ledger, request, compose, revisions, known, usual))

    def unreached(self, request: HttpRequest, status: int) -> Flow[Decision]:
        """Charge a request that never reached a view to its address's tier.

        A preflight that was answered is free; one that found nothing is a scanner's.
        """
        ledger = open_ledger(request)
        if ledger.preflight and status < HTTPStatus.BAD_REQUEST:
            return ledger.decision
        if ledger.client_decided or not ledger.decision.allowed:
            return ledger.decision
        ledger.client_decided = True
        exempt_by_view(ledger, request)

        def compose(snapshot: Snapshot) -> Flow[Bill]:
            return done(stages.tier_bill(snapshot.default_tier("anonymous"), ledger, request))

        return (yield from self._decide(ledger, request, compose))

    def settle(self, request: HttpRequest, status: int) -> Flow[None]:
        """Give back what was reserved for a failure when the response is none."""
        ledger = ledger_of(request)
        if ledger is not None and ledger.charged and status not in conf.FAILED_STATUSES:
            yield from self._give_back(ledger, reservations_only=True)

    def _decide(
        self,
        ledger: Ledger,
        request: HttpRequest,
        compose: Compose,
        revisions: dict[str, str] | None = None,
        known: Snapshot | None = None,
        usual: Bill | None = None,
    ) -> Flow[Decision]:
        """Plan with the snapshot, ask once, and again only after an edit that came in between.

        `usual` is what the first plan charges where that is known already, by the snapshot `known`.
        """
        revisions = {} if revisions is None else revisions
        bill = NOTHING
        exempt_before = ledger.exempt
        for attempt in range(MAX_RELOADS):
            ledger.exempt = exempt_before
            try:
                if usual is not None and known is not None and attempt == 0:
                    snapshot, bill = known, usual
                else:
                    snapshot = self._snapshots.in_force or (yield from self._snapshot())
                    bill = NOTHING if ledger.exempt else (yield from compose(snapshot))
                    bill = NOTHING if ledger.exempt else bill
                decision = NOTHING_DECIDED
                if not bill.charges:
                    stale = yield from self._look(snapshot, revisions)
                else:
                    is_last = attempt == MAX_RELOADS - 1
                    plan = stages.make_plan(ledger, bill, snapshot, revisions, is_last)
                    recalled = self._recall(plan)
                    reply = recalled or (yield self._execution(plan))
                    stale, decision = reply.stale, Decision(reply.outcomes, reply.now)
                    if recalled is None and (self._refusals or not decision.allowed):
                        self._refusals.learn(plan, reply)
                    if stale is None:
                        self._snapshots.confirm()
            except SnapshotUnavailable:
                decision = Decision(degraded=None if ledger.exempt else conf.ON_STORE_FAILURE)
                break
            except StoreUnavailable:
                decision = degraded_decision(bill, self._local)
                break
            if stale is None:
                break
            yield from self._catch_up(snapshot, stale, revisions)
        if not decision.allowed:
            decision = decision.named(ledger.id)
        ledger.add(bill, decision)
        if ledger.exempt and not exempt_before and ledger.charged:
            # The client turns out to be exempt only now that it is known.
            yield from self._give_back(ledger, reservations_only=False)
            ledger.decision = NOTHING_DECIDED
        if not decision.allowed and ledger.charged:
            yield from self._give_back(ledger, reservations_only=False)
        if not decision.allowed and not unnoticed():
            told = request, decision, ledger.client.subject, stages.endpoint_name(ledger)
            yield Step(lambda: announce_refusal(*told), lambda: aannounce_refusal(*told))
        if (ledger.client_decided or not decision.allowed) and self.teller.note(ledger):
            with suppress(StoreUnavailable):
                yield Guarded(self.breaker, self.teller.tell, self.teller.atell)
        return ledger.decision

    def _snapshot(self) -> Flow[Snapshot]:
        stale = self._snapshots.current
        if stale is None:
            snapshot: Snapshot = yield in_thread(lambda: self._snapshots.load(None))
        else:
            snapshot = yield in_thread(lambda: self._snapshots.compare(stale))
        return snapshot

    def _look(self, snapshot: Snapshot, revisions: dict[str, str]) -> Flow[Stale | None]:
        """Compare revisions for a request that charges nothing: once in a while, or always for a
        client whose own tier says so. It passes whether or not the store answers."""
        if not revisions and not self._snapshots.wants_look():
            return None
        plan = Plan((), revision=snapshot.revision, subject_revisions=revisions)
        try:
            reply: Reply = yield self._execution(plan)
        except StoreUnavailable:
            return None
        if reply.stale is None:
            self._snapshots.confirm()
        return reply.stale

    def _catch_up(self, snapshot: Snapshot, stale: Stale, revisions: dict[str, str]) -> Flow[None]:
        if stale.revision != snapshot.revision:
            yield in_thread(lambda: self._snapshots.load(snapshot))
        for subject, revision in stale.subject_revisions.items():
            if revisions.get(subject, revision) != revision:
                snapshot.assignments.forget(subject)
                revisions[subject] = revision

    def _recall(self, plan: Plan) -> Reply | None:
        """Return what the store would say again to a client that it keeps refusing."""
        recalled = self._refusals.recall(plan)
        if recalled is None:
            return None
        place, reply = recalled
        self.teller.count_refusal(reply.outcomes[0], plan.labels[place], plan.detail)
        return reply

    def _give_back(self, ledger: Ledger, *, reservations_only: bool) -> Flow[None]:
        """Refund what earlier stages charged; a request that is refused is not charged at all."""
        for charged_at, charges in ledger.take_back(reservations_only=reservations_only).items():
            refund = partial(self._store.refund, charges, charged_at=charged_at)
            arefund = partial(self._store.arefund, charges, charged_at=charged_at)
            with suppress(StoreUnavailable):
                yield Guarded(self.breaker, refund, arefund)

    def _execution(self, plan: Plan) -> Guarded:
        return Guarded(self.breaker, self._store.execute, self._store.aexecute, plan)


@cache
def limiter() -> Limiter:
    """Return this process's limiter."""
    return Limiter(configured_store())


@atexit.register
def _tell_the_rest() -> None:
    """Tell the store what a process has counted that ends in good order."""
    if limiter.cache_info().currsize:
        limiter().teller.tell_the_rest()


@receiver(setting_changed)
def _forget_limiter(*, setting: str, **_: Any) -> None:
    if setting in (SETTING, "CACHES"):
        if limiter.cache_info().currsize:
            limiter().teller.stop()
        limiter.cache_clear()
