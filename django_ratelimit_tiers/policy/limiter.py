"""From a request to a decision: plan, ask the store once, conclude.

Everything is a flow (see `flows`), so that threads and event loops share it to the last branch.
"""

from __future__ import annotations

import atexit
from contextlib import suppress
from functools import cache, partial
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import SETTING, conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision
from django_ratelimit_tiers.core.plans import Plan, Reply
from django_ratelimit_tiers.events.refusals import aannounce_refusal, announce_refusal, unnoticed
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy import bills, express, stages
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded
from django_ratelimit_tiers.policy.exemptions import account_of, exempt_by_view
from django_ratelimit_tiers.policy.failures import degraded_decision
from django_ratelimit_tiers.policy.flows import Flow, Step, call, done
from django_ratelimit_tiers.policy.identity import identified_client, request_user, verified_key
from django_ratelimit_tiers.policy.ledgers import Ledger, ledger_of, open_ledger
from django_ratelimit_tiers.policy.passages import Fare, Passage
from django_ratelimit_tiers.policy.refusal_memory import RefusalMemory
from django_ratelimit_tiers.policy.reloads import MAX_RELOADS, Reloads
from django_ratelimit_tiers.policy.snapshots import SnapshotCache, SnapshotUnavailable
from django_ratelimit_tiers.policy.statuses import error_status
from django_ratelimit_tiers.policy.tariffs import NOTHING, Bill
from django_ratelimit_tiers.policy.tellers import Teller
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords


class Limiter:
    """Decides requests with one store; one for each process."""

    def __init__(self, store: Store) -> None:
        self.breaker = Breaker()
        self._store = store
        self._snapshots = SnapshotCache(store, self.breaker)
        self._reloads = Reloads(store, self.breaker, self._snapshots)
        self._local = MemoryStore(records=MemoryRecords(sample=MOST_SAMPLED))
        self.teller = Teller(store, self._local.records)
        self._refusals = RefusalMemory(conf.REFUSAL_MEMORY)

    def passes_door(self, ledger: Ledger, request: HttpRequest) -> bool:
        """Return whether the first stage can be left out: it would charge and exempt nobody."""
        known = self._snapshots.in_force
        if known is None or stages.door_passage(known, ledger).rules.acts_early:
            return False
        return not known.has_accounts or account_of(known, ledger.client, request) is None

    def door(self, request: HttpRequest) -> Flow[Decision]:
        """Decide the first stage: what is known before authentication, by the path alone."""
        ledger, known = open_ledger(request), self._snapshots.in_force
        fare = None if known is None else express.usual_door_fare(known, ledger, request)
        return (yield from self._decide(ledger, request, stages.door_bill, fare))

    def reach(self, request: HttpRequest, view: Any, cost: int = 1) -> Flow[Decision]:
        """Decide what the resolved route and the client add, before the view.

        The client is left to a view that decides it itself (`stages.decides_client`).
        """
        ledger = open_ledger(request)
        if request.method != ledger.method:
            ledger.follow_method(request)
        known = ledger.snapshot or self._snapshots.in_force
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
        return (yield from self._client(ledger, request, user, cost))

    def client(self, request: HttpRequest, user: Any) -> Flow[Decision]:
        """Decide the second stage: the client's tier and every rule not charged yet.

        `user` is the user that authentication found, None when there is none. The tier is charged
        1, unless the view that was resolved is marked with another cost.
        """
        ledger = open_ledger(request)
        if request.method != ledger.method:
            ledger.follow_method(request)
        return self._client(ledger, request, user, 1)

    def unreached(self, request: HttpRequest, status: int) -> Flow[Decision]:
        """Charge a request that never reached a view, or its throttle, to its address.

        Where credentials were looked at (`stages.was_examined`), a refusal gives back only what
        was reserved for a failure, and that only if the status is none.
        """
        ledger = open_ledger(request)
        if not stages.is_due_late(ledger, request, status):
            return ledger.decision
        ledger.charges_stand = stages.was_examined(request, status)
        known = ledger.snapshot or self._snapshots.in_force
        if ledger.charges_stand and stages.foresee_view(request):
            way = None if known is None else stages.passage(known, ledger, request)
            yield from self._route(ledger, request, way)
        if ledger.decision.allowed:
            ledger.reach_no_view()
            known = ledger.snapshot or self._snapshots.in_force
            stages.exempt_unreached(known, ledger, request, status)
            fare = None if known is None else express.usual_late_fare(known, ledger, request)
            yield from self._decide(ledger, request, stages.late_bill, fare)
        if not ledger.decision.allowed and status not in conf.FAILED_STATUSES:
            yield from self._give_back(ledger, reservations_only=True)
        return ledger.decision

    def settle(self, request: HttpRequest, status: int) -> Flow[None]:
        """Give back what was reserved for a failure unless the response is one, or a refusal."""
        ledger = ledger_of(request)
        if ledger is None or not (ledger.has_reservations and ledger.decision.allowed):
            return done(None)
        is_failure = status in conf.FAILED_STATUSES
        return done(None) if is_failure else self._give_back(ledger, reservations_only=True)

    def _route(self, ledger: Ledger, request: HttpRequest, known: Passage | None) -> Flow[Decision]:
        """Decide the rest of the first stage: what only the resolved route shows."""
        exempt_by_view(ledger, request)
        if known is not None and not known.rules.acts_beyond(ledger.charged_rules):
            return done(ledger.decision)
        return self._decide(ledger, request, stages.route_bill)

    def _client(self, ledger: Ledger, request: HttpRequest, user: Any, cost: int) -> Flow[Decision]:
        if ledger.client_decided:
            return done(ledger.decision)
        ledger.meet(user)
        if conf.has_resolvers:
            return self._introduced(ledger, request, user, cost)
        known = ledger.snapshot or self._snapshots.in_force
        fare = None if known is None else express.usual_fare(known, ledger, request, user, (), cost)
        if fare is None:
            _identify(ledger, request, user, ())
        return self._decide(ledger, request, partial(stages.client_bill, cost), fare)

    def _introduced(
        self, ledger: Ledger, request: HttpRequest, user: Any, cost: int
    ) -> Flow[Decision]:
        """Decide the second stage where the site itself has a say in who the client is.

        Whom its functions turn away, by raising, is charged as who reached no view.
        """
        key_id, fare, door = None, None, ledger.client
        known = ledger.snapshot or self._snapshots.in_force
        try:
            if conf.API_KEY_RESOLVER is not None:
                key_id = yield call(import_string(conf.API_KEY_RESOLVER), request)
            keys, stage = verified_key(key_id), partial(stages.client_bill, cost)
            ledger.meet(user, keys)
            _identify(ledger, request, user, keys)
            if known is not None and express.is_usual(known, ledger, request):
                yield from express.ask_site(known, ledger, request)
                fare = express.usual_fare(known, ledger, request, user, keys, cost)
            return (yield from self._decide(ledger, request, stage, fare))
        except Exception as error:
            ledger.client, ledger.user, ledger.client_decided = door, None, False
            decision = yield from self.unreached(request, error_status(error))
            if decision.allowed:
                raise
            return decision

    def _decide(
        self, ledger: Ledger, request: HttpRequest, stage: stages.Stage, fare: Fare | None = None
    ) -> Flow[Decision]:
        """Decide a stage, enter that into the ledger and act on it.

        `fare` is what the first plan charges where the ledger's snapshot has told that already.
        """
        was_exempt = ledger.exempt
        bill, decision = yield from self._ask(ledger, request, stage, fare)
        if not decision.allowed:
            decision = decision.named(ledger.id)
        ledger.add(bill, decision)
        if not decision.allowed:
            yield from self._refuse(ledger, request, bill)
        elif ledger.exempt and ledger.charged and (ledger.account or not was_exempt):
            # The client turns out to be exempt only now that it is known.
            yield from self._give_back(ledger, reservations_only=False)
            ledger.decision = NOTHING_DECIDED
        if (ledger.client_decided or not decision.allowed) and self.teller.note(ledger):
            with suppress(StoreUnavailable):
                yield Guarded(self.breaker, self.teller.tell, self.teller.atell)
        return ledger.decision

    def _ask(
        self, ledger: Ledger, request: HttpRequest, stage: stages.Stage, fare: Fare | None
    ) -> Flow[tuple[Bill, Decision]]:
        """Plan with the snapshot, ask once, and again only after an edit that came in between."""
        bill, was_exempt = NOTHING, ledger.exempt
        run, arun = self._store.execute, self._store.aexecute
        revisions: dict[str, str] = {}
        for reloads_left in reversed(range(MAX_RELOADS)):
            if fare is not None and ledger.snapshot is not None:
                snapshot, revisions = ledger.snapshot, fare.revisions
                bill, order, fare = fare.bill, fare.order, None
            else:
                ledger.exempt = was_exempt
                try:
                    snapshot = self._snapshots.in_force or (yield from self._reloads.snapshot())
                except SnapshotUnavailable:
                    degraded = None if ledger.exempt else conf.ON_STORE_FAILURE
                    return NOTHING, Decision(degraded=degraded)
                bill = yield from stages.bill_of(stage, snapshot, ledger, request, revisions)
                order = bills.make_order(bill, snapshot, revisions, not reloads_left)
            if not bill.charges:
                decision = NOTHING_DECIDED
                stale = yield from self._reloads.look(snapshot, revisions)
            else:
                plan = bills.make_plan(order, ledger, snapshot)
                recalled = self._recall(plan) if self._refusals.remembered else None
                try:
                    reply = recalled or (yield Guarded(self.breaker, run, arun, plan))
                except StoreUnavailable:
                    earlier = ledger.earlier_rules()
                    return bill, degraded_decision(bill, self._local, plan.detail, earlier)
                answer, now, stale = reply
                decision = Decision.of(answer, now)
                if not recalled:
                    if decision.refusing or self._refusals.remembered:
                        self._refusals.learn(plan, reply)
                    if stale is None:
                        self._snapshots.confirm()
            if stale is None:
                break
            revisions = yield from self._reloads.catch_up(snapshot, stale, revisions)
        return bill, decision

    def _refuse(self, ledger: Ledger, request: HttpRequest, bill: Bill) -> Flow[None]:
        """Give back what was charged before, unless it stands, and tell of the refusal."""
        decision = ledger.decision
        if ledger.charged and not ledger.keeps_charges(request):
            yield from self._give_back(ledger, reservations_only=False)
        if not unnoticed():
            told = request, decision, ledger.client.subject, bills.refused_endpoint(bill, ledger)
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
                refund = partial(self._store.refund, charges, charged_at=decision.now)
                arefund = partial(self._store.arefund, charges, charged_at=decision.now)
                yield Guarded(self.breaker, refund, arefund)


def _identify(ledger: Ledger, request: HttpRequest, user: Any, keys: tuple[str, ...]) -> None:
    """Note who the client is, by the user and the digests of the API key."""
    exempt_by_view(ledger, request)
    ledger.client, ledger.user = identified_client(ledger.client, user, keys), user


@cache
def limiter() -> Limiter:
    """Return this process's limiter."""
    return Limiter(configured_store())


@atexit.register
def _tell_the_rest() -> None:
    """Tell the store what has not been told yet when a process ends in good order."""
    if limiter.cache_info().currsize:
        limiter().teller.tell_the_rest()


@receiver(setting_changed)
def _forget_limiter(*, setting: str, **_: Any) -> None:
    if setting in (SETTING, "CACHES"):
        if limiter.cache_info().currsize:
            limiter().teller.stop()
        limiter.cache_clear()
