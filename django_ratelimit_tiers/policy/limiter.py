"""From a request to a decision: plan, ask the store once, conclude.

Everything is a flow (see `flows`), so that threads and event loops share it to the last branch.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from typing import Any

from django.dispatch import receiver
from django.http import HttpRequest
from django.test.signals import setting_changed

from django_ratelimit_tiers.conf import SETTING, conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision
from django_ratelimit_tiers.core.plans import Plan, Reply
from django_ratelimit_tiers.events.refusals import aannounce_refusal, announce_refusal, unnoticed
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy import stages
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded, GuardedStore
from django_ratelimit_tiers.policy.exemptions import (
    account_of,
    exempt_account,
    exempt_by_rule,
    exempt_by_view,
)
from django_ratelimit_tiers.policy.express import usual_door_fare, usual_fare
from django_ratelimit_tiers.policy.failures import degraded_decision
from django_ratelimit_tiers.policy.flows import Flow, Step, done
from django_ratelimit_tiers.policy.identity import identified_client, request_user
from django_ratelimit_tiers.policy.ledgers import Ledger, ledger_of, open_ledger
from django_ratelimit_tiers.policy.passages import Fare, Passage
from django_ratelimit_tiers.policy.refusals import RefusalMemory
from django_ratelimit_tiers.policy.reloads import MAX_RELOADS, Reloads
from django_ratelimit_tiers.policy.snapshots import Snapshot, SnapshotCache, SnapshotUnavailable
from django_ratelimit_tiers.policy.tallies import Teller
from django_ratelimit_tiers.policy.tariffs import NOTHING, Bill
from django_ratelimit_tiers.policy.tiers import called
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords

Compose = Callable[[Snapshot, dict[str, str]], Flow[Bill]]
"""What is charged by a snapshot; revisions of subjects that it used are added to the others."""


class Limiter:
    """Decides requests with one store; one for each process."""

    def __init__(self, store: Store) -> None:
        self.breaker = Breaker()
        self._store = GuardedStore(store, self.breaker)
        self._snapshots = SnapshotCache(store, self.breaker)
        self._reloads = Reloads(self._store, self._snapshots)
        self._local = MemoryStore(records=MemoryRecords(sample=MOST_SAMPLED))
        self.teller = Teller(store, self._local.records)
        self._refusals = RefusalMemory(conf.REFUSAL_MEMORY)

    def passes_door(self, request: HttpRequest) -> bool:
        """Return whether nobody can be exempt and nothing be charged at the first stage."""
        ledger = open_ledger(request)
        known = self._snapshots.in_force
        if known is None or stages.door_passage(known, ledger).rules.acts_early:
            return False
        return account_of(known, ledger.client, request) is None

    def door(self, request: HttpRequest) -> Flow[Decision]:
        """Decide the first stage: what is known before authentication, by the path alone."""
        ledger, known = open_ledger(request), self._snapshots.in_force
        fare = None if known is None else usual_door_fare(known, ledger, request)

        def compose(snapshot: Snapshot, _revisions: dict[str, str]) -> Flow[Bill]:
            now = time.time()
            exempt_account(snapshot, ledger, request)
            way = stages.door_passage(snapshot, ledger)
            group = way.rules.in_force(now, preflight=ledger.preflight)
            exempt_by_rule(group.rules, ledger)
            bill = stages.door_bill(way, group, ledger, request)
            if bill.charges and snapshot.has_exemptions:
                rule = stages.exemption_of_view(snapshot, ledger, request, now)
                exempt_by_rule([rule] if rule else [], ledger)
            return done(bill)

        return (yield from self._decide(ledger, request, compose, fare))

    def reach(self, request: HttpRequest, view: Any, cost: int = 1) -> Flow[Decision]:
        """Decide what the resolved route and the client add, before the view.

        The client is left to a view that decides it itself (`stages.decides_client`).
        """
        ledger, known = open_ledger(request), self._snapshots.current
        way = None if known is None else stages.passage(known, ledger, request)
        if way is None or not way.is_usual or way.rules.acts_early:
            decision = yield from self._route(ledger, request, way)
            if not decision.allowed:
                return decision
        if stages.decides_client(view):
            return ledger.decision
        user = request_user(request)
        if type(user) is Step:
            user = yield user
        return (yield from self.client(request, user, cost))

    def client(self, request: HttpRequest, user: Any, cost: int = 1) -> Flow[Decision]:
        """Decide the second stage: the client's tier and every rule not charged yet.

        `user` is the user that authentication found, None when there is none; `cost` is what the
        tier is charged, unless the view that was resolved is marked with another.
        """
        ledger = open_ledger(request)
        if ledger.client_decided:
            return done(ledger.decision)
        ledger.client_decided = True
        resolver = conf.API_KEY_RESOLVER
        if resolver is not None:
            return self._bearer(ledger, request, user, cost, resolver)
        return self._client(ledger, request, user, cost, None)

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

        def compose(snapshot: Snapshot, _revisions: dict[str, str]) -> Flow[Bill]:
            return done(stages.tier_bill(snapshot.default_tier("anonymous"), ledger, request))

        return (yield from self._decide(ledger, request, compose))

    def settle(self, request: HttpRequest, status: int) -> Flow[None]:
        """Give back what was reserved for a failure when the response is none."""
        ledger = ledger_of(request)
        if ledger is not None and ledger.charged and status not in conf.FAILED_STATUSES:
            yield from self._give_back(ledger, reservations_only=True)

    def _route(self, ledger: Ledger, request: HttpRequest, known: Passage | None) -> Flow[Decision]:
        """Decide the rest of the first stage: what only the resolved route shows."""
        exempt_by_view(ledger, request)
        if known is not None and not known.rules.acts_beyond(ledger.charged_rules):
            return done(ledger.decision)

        def compose(snapshot: Snapshot, _revisions: dict[str, str]) -> Flow[Bill]:
            way = stages.passage(snapshot, ledger, request)
            group = way.rules.in_force(time.time(), preflight=ledger.preflight)
            exempt_by_rule(group.rules, ledger)
            return done(stages.door_bill(way, group, ledger, request))

        return self._decide(ledger, request, compose)

    def _bearer(
        self, ledger: Ledger, request: HttpRequest, user: Any, cost: int, resolver: str
    ) -> Flow[Decision]:
        """Decide the second stage for whoever may have presented an API key."""
        key_id = yield from called(resolver, request)
        return (yield from self._client(ledger, request, user, cost, key_id))

    def _client(
        self, ledger: Ledger, request: HttpRequest, user: Any, cost: int, key_id: object
    ) -> Flow[Decision]:
        fare = None
        known = ledger.snapshot or self._snapshots.in_force  # the first stage has just looked
        if known is not None and key_id in (None, ""):
            fare = usual_fare(known, ledger, request, user, cost)
        if fare is None:
            exempt_by_view(ledger, request)
            ledger.client = identified_client(ledger.client, user, key_id)
            ledger.user = user

        def compose(snapshot: Snapshot, revisions: dict[str, str]) -> Flow[Bill]:
            return stages.plain_bill(snapshot, ledger, request, cost, revisions)

        return self._decide(ledger, request, compose, fare)

    def _decide(
        self,
        ledger: Ledger,
        request: HttpRequest,
        compose: Compose,
        fare: Fare | None = None,
    ) -> Flow[Decision]:
        """Plan with the snapshot, ask once, and again only after an edit that came in between.

        `fare` is what the first plan charges where the ledger's snapshot has told that already.
        """
        bill, exempt_before, memory = NOTHING, ledger.exempt, self._refusals
        revisions: dict[str, str] = {}
        for attempt in range(MAX_RELOADS):
            ledger.exempt = exempt_before
            try:
                order = None
                if fare is not None and ledger.snapshot is not None:
                    snapshot, revisions = ledger.snapshot, fare.revisions
                    bill, order, fare = fare.bill, fare.order, None
                else:
                    snapshot = self._snapshots.in_force or (yield from self._reloads.snapshot())
                    bill = NOTHING if ledger.exempt else (yield from compose(snapshot, revisions))
                    bill = NOTHING if ledger.exempt else bill
                decision = NOTHING_DECIDED
                if not bill.charges:
                    stale = yield from self._reloads.look(snapshot, revisions)
                else:
                    if order is None:
                        is_last = attempt == MAX_RELOADS - 1
                        order = stages.make_order(bill, snapshot, revisions, is_last)
                    plan = stages.make_plan(order, ledger, snapshot)
                    recalled = self._recall(plan) if memory.remembered else None
                    reply = recalled or (yield self._store.execution(plan))
                    stale, decision = reply.stale, Decision.of(reply.answer, reply.now)
                    if recalled is None and (memory.remembered or not decision.allowed):
                        memory.learn(plan, reply)
                    if stale is None:
                        self._snapshots.confirm()
            except SnapshotUnavailable:
                decision = Decision(degraded=None if ledger.exempt else conf.ON_STORE_FAILURE)
                break
            except StoreUnavailable:
                detail = stages.refusal_detail(ledger, snapshot)
                decision = degraded_decision(bill, self._local, detail)
                break
            if stale is None:
                break
            revisions = yield from self._reloads.catch_up(snapshot, stale, revisions)
        if not decision.allowed:
            decision = decision.named(ledger.id)
        ledger.add(bill, decision)
        if not decision.allowed:
            yield from self._refuse(ledger, request)
        elif ledger.exempt and not exempt_before and ledger.charged:
            # The client turns out to be exempt only now that it is known.
            yield from self._give_back(ledger, reservations_only=False)
            ledger.decision = NOTHING_DECIDED
        if (ledger.client_decided or not decision.allowed) and self.teller.note(ledger):
            with suppress(StoreUnavailable):
                yield Guarded(self.breaker, self.teller.tell, self.teller.atell)
        return ledger.decision

    def _refuse(self, ledger: Ledger, request: HttpRequest) -> Flow[None]:
        """Give back what was charged before, and tell of the refusal."""
        decision = ledger.decision
        if ledger.charged:
            yield from self._give_back(ledger, reservations_only=False)
        if not unnoticed():
            told = request, decision, ledger.client.subject, stages.endpoint_name(ledger)
            yield Step(lambda: announce_refusal(*told), lambda: aannounce_refusal(*told))
        if decision.degraded is not None:
            self.teller.tell_later()

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
        for decision, charges in ledger.take_back(reservations_only=reservations_only):
            if decision.degraded is not None:
                self._local.refund(charges, charged_at=decision.now)
                continue
            with suppress(StoreUnavailable):
                yield self._store.refund(charges, decision.now)


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
