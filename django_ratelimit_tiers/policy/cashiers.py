"""From what a stage charges to a decision: ask the store once, and act on its answer.

Nearly every request is one `Acquisition` that lets it in: as three generators within each other,
which the plain way is, that took a tenth longer. Both do the same, which the tests compare.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from django.http import HttpRequest

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision, Grant
from django_ratelimit_tiers.core.plans import Plan, Reply
from django_ratelimit_tiers.events.refusals import aannounce_refusal, announce_refusal, unnoticed
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy import bills, stages
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded
from django_ratelimit_tiers.policy.failures import degraded_decision
from django_ratelimit_tiers.policy.flows import Flow, Shortcut, Step
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.passages import Fare
from django_ratelimit_tiers.policy.refusal_memory import RefusalMemory
from django_ratelimit_tiers.policy.reloads import MAX_RELOADS, Reloads
from django_ratelimit_tiers.policy.snapshots import Snapshot, SnapshotCache, SnapshotUnavailable
from django_ratelimit_tiers.policy.tariffs import NOTHING, Bill
from django_ratelimit_tiers.policy.tellers import Teller
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.memory_records import MemoryRecords


class Cashier:
    """Has the store charge requests, and enters into their ledgers what it decides."""

    def __init__(self, store: Store) -> None:
        self.breaker = Breaker()
        self.snapshots = SnapshotCache(store, self.breaker)
        self.refusals = RefusalMemory(conf.REFUSAL_MEMORY)
        self.store = store
        self._reloads = Reloads(store, self.breaker, self.snapshots)
        self._local = MemoryStore(records=MemoryRecords(sample=MOST_SAMPLED))
        self.teller = Teller(store, self._local.records)

    def charge(
        self,
        snapshot: Snapshot,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        fare: Fare,
    ) -> Flow[Decision] | Shortcut[Decision]:
        """Decide a stage by what its client has been charged before."""
        if not fare.bill.charges:
            return self._charge_nothing(snapshot, ledger, request, stage, fare)
        plan = bills.make_plan(fare.order, ledger, snapshot)
        recalled = self._recall(plan) if self.refusals.remembered else None
        if recalled is not None:
            return self._enter(ledger, request, fare.bill, recalled)
        return Acquisition(self, snapshot, ledger, request, stage, fare, plan)

    def decide(
        self,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        revisions: dict[str, str] | None = None,
    ) -> Flow[Decision]:
        """Decide a stage, whatever there is to find out for it.

        `revisions` are those of subjects that are known to be newer than the snapshot has them.
        """
        was_exempt = ledger.exempt
        bill, decision = yield from self._ask(ledger, request, stage, revisions or {})
        return (yield from self._enter(ledger, request, bill, decision, was_exempt))

    def go_on(
        self, asked: Acquisition, reply: Reply | None, error: Exception | None
    ) -> Flow[Decision]:
        """Decide a stage whose acquisition has not just let the request in."""
        ledger, request, fare = asked.ledger, asked.request, asked.fare
        if reply is None:
            if error is not None and not isinstance(error, StoreUnavailable):
                raise error
            decision = self._degraded(ledger, fare.bill, asked.plan)
        elif reply.stale is not None:
            snapshot, known = asked.snapshot, fare.revisions
            revisions = yield from self._reloads.catch_up(snapshot, reply.stale, known)
            return (yield from self.decide(ledger, request, asked.stage, revisions))
        else:
            decision = self._learn(asked.plan, reply)
        return (yield from self._enter(ledger, request, fare.bill, decision))

    def tell(self, ledger: Ledger) -> Flow[Decision]:
        """Tell the store what this process has counted, and return the ledger's decision."""
        with suppress(StoreUnavailable):
            yield Guarded(self.breaker, self.teller.tell, self.teller.atell)
        return ledger.decision

    def give_back(self, ledger: Ledger, *, reservations_only: bool) -> Flow[None]:
        """Refund what earlier stages charged; a request that is refused is not charged at all."""
        for decision, charges in ledger.take_back(reservations_only=reservations_only):
            if decision.degraded is not None:
                self._local.refund(charges, charged_at=decision.now)
                continue
            refund = partial(self.store.refund, charges, charged_at=decision.now)
            arefund = partial(self.store.arefund, charges, charged_at=decision.now)
            with suppress(StoreUnavailable):
                yield Guarded(self.breaker, refund, arefund)

    def _charge_nothing(
        self,
        snapshot: Snapshot,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        fare: Fare,
    ) -> Flow[Decision]:
        """Decide a stage that charges nothing: the store is asked for its revision now and then."""
        stale = yield from self._reloads.look(snapshot, fare.revisions)
        if stale is None:
            return (yield from self._enter(ledger, request, fare.bill, NOTHING_DECIDED))
        revisions = yield from self._reloads.catch_up(snapshot, stale, fare.revisions)
        return (yield from self.decide(ledger, request, stage, revisions))

    def _ask(
        self,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        revisions: dict[str, str],
    ) -> Flow[tuple[Bill, Decision]]:
        """Plan with the snapshot, ask once, and again only after an edit that came in between."""
        bill, was_exempt = NOTHING, ledger.exempt
        for reloads_left in reversed(range(MAX_RELOADS)):
            ledger.exempt = was_exempt
            try:
                snapshot = self.snapshots.in_force or (yield from self._reloads.snapshot())
            except SnapshotUnavailable:
                return NOTHING, Decision(degraded=None if ledger.exempt else conf.ON_STORE_FAILURE)
            bill = yield from stages.bill_of(stage, snapshot, ledger, request, revisions)
            if not bill.charges:
                stale = yield from self._reloads.look(snapshot, revisions)
            else:
                order = bills.make_order(bill, snapshot, revisions, not reloads_left)
                plan = bills.make_plan(order, ledger, snapshot)
                recalled = self._recall(plan) if self.refusals.remembered else None
                if recalled is not None:
                    return bill, recalled
                try:
                    reply = yield Guarded(
                        self.breaker, self.store.execute, self.store.aexecute, plan
                    )
                except StoreUnavailable:
                    return bill, self._degraded(ledger, bill, plan)
                stale = reply.stale
                if stale is None:
                    return bill, self._learn(plan, reply)
            if stale is None:
                break
            revisions = yield from self._reloads.catch_up(snapshot, stale, revisions)
        return bill, NOTHING_DECIDED

    def _enter(
        self,
        ledger: Ledger,
        request: HttpRequest,
        bill: Bill,
        decision: Decision,
        was_exempt: str = "",
    ) -> Flow[Decision]:
        """Enter what was decided into the ledger, and act on it."""
        if not decision.allowed:
            decision = decision.named(ledger.id)
        ledger.add(bill, decision)
        if not decision.allowed:
            yield from self._refuse(ledger, request, bill)
        elif ledger.exempt and ledger.charged and (ledger.account or not was_exempt):
            # The client turns out to be exempt only now that it is known.
            yield from self.give_back(ledger, reservations_only=False)
            ledger.decision = NOTHING_DECIDED
        if (ledger.client_decided or not decision.allowed) and self.teller.note(ledger):
            yield from self.tell(ledger)
        return ledger.decision

    def _refuse(self, ledger: Ledger, request: HttpRequest, bill: Bill) -> Flow[None]:
        """Give back what was charged before, unless it stands, and tell of the refusal."""
        decision = ledger.decision
        if ledger.charged and not ledger.keeps_charges(request):
            yield from self.give_back(ledger, reservations_only=False)
        if not unnoticed():
            told = request, decision, ledger.client.subject, bills.refused_endpoint(bill, ledger)
            yield Step(lambda: announce_refusal(*told), lambda: aannounce_refusal(*told))
        if decision.degraded is not None:
            self.teller.tell_later()

    def _recall(self, plan: Plan) -> Decision | None:
        """Return what the store would decide again of a client that it keeps refusing."""
        recalled = self.refusals.recall(plan)
        if recalled is None:
            return None
        place, reply = recalled
        self.teller.count_refusal(reply.outcomes[0], plan.labels[place], plan.detail)
        return Decision.of(reply.answer, reply.now)

    def _learn(self, plan: Plan, reply: Reply) -> Decision:
        """Return what the store has decided, and remember what follows from it."""
        decision = Decision.of(reply.answer, reply.now)
        if decision.refusing or self.refusals.remembered:
            self.refusals.learn(plan, reply)
        self.snapshots.confirm()
        return decision

    def _degraded(self, ledger: Ledger, bill: Bill, plan: Plan) -> Decision:
        return degraded_decision(bill, self._local, plan.detail, ledger.earlier_rules())


class Acquisition(Guarded, Shortcut[Decision]):
    """The one call of the store for a client who has been charged the same before.

    Nearly every request is one, and let in.
    """

    __slots__ = ("_cashier", "fare", "ledger", "plan", "request", "snapshot", "stage")

    def __init__(
        self,
        cashier: Cashier,
        snapshot: Snapshot,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        fare: Fare,
        plan: Plan,
    ) -> None:
        store, self._breaker, self._arguments = cashier.store, cashier.breaker, (plan,)
        self._run, self._arun = store.execute, store.aexecute
        self._cashier, self.snapshot, self.ledger, self.request = cashier, snapshot, ledger, request
        self.stage, self.fare, self.plan = stage, fare, plan

    def conclude(self, reply: Reply | None, error: Exception | None) -> Decision | Flow[Decision]:
        cashier, ledger = self._cashier, self.ledger
        if reply is None or type(reply.answer) is not Grant or cashier.refusals.remembered:
            return cashier.go_on(self, reply, error)
        cashier.snapshots.confirm()
        ledger.add(self.fare.bill, Decision.of(reply.answer, reply.now))
        if ledger.client_decided and cashier.teller.note(ledger):
            return cashier.tell(ledger)
        return ledger.decision
