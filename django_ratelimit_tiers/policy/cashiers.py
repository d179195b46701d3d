"""From what a stage charges to a decision: ask the store once, and act on its answer.

Nearly every request is one `Acquisition` that lets it in: as three generators within each other,
which the plain way is, that took a tenth longer. Both do the same, which the tests compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from django.http import HttpRequest

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision, Grant
from django_ratelimit_tiers.core.plans import Plan, StalePlan
from django_ratelimit_tiers.core.refusals import counted_outcomes
from django_ratelimit_tiers.events.refusals import aannounce_refusal, announce_refusal, unnoticed
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy import bills, stages
from django_ratelimit_tiers.policy.breaker import Breaker, Guarded
from django_ratelimit_tiers.policy.failures import degraded_decision
from django_ratelimit_tiers.policy.flows import AnyFlow, Done, Flow, Shortcut, Step
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.passages import Fare
from django_ratelimit_tiers.policy.refusal_memory import RefusalMemory
from django_ratelimit_tiers.policy.reloads import MAX_RELOADS, Reloads
from django_ratelimit_tiers.policy.snapshots import Snapshot, SnapshotCache, SnapshotUnavailable
from django_ratelimit_tiers.policy.tariffs import NOTHING, Bill
from django_ratelimit_tiers.policy.tellers import Teller
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory import MemoryStore


class Cashier:
    """Has the store charge requests, and enters into their ledgers what it decides."""

    def __init__(self, store: Store) -> None:
        self.breaker = Breaker()
        self.snapshots = SnapshotCache(store, self.breaker)
        self.refusals = RefusalMemory(conf.REFUSAL_MEMORY)
        self.store = store
        self._reloads = Reloads(store, self.breaker, self.snapshots)
        self._local = MemoryStore()
        self.teller = Teller(store, self._local.records)

    def charge(
        self,
        snapshot: Snapshot,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        fare: Fare,
    ) -> AnyFlow[Decision]:
        """Decide a stage by what its client has been charged before."""
        if not fare.bill.charges:
            return self._charge_nothing(snapshot, ledger, request, stage, fare)
        if self.refusals.remembered:
            again = self._recall(ledger, snapshot, fare.bill)
            if again is not None:
                return self._refuse_again(ledger, request, fare.bill, again)
        return Acquisition(self, snapshot, ledger, request, stage, fare)

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
        self, asked: Acquisition, decision: Decision | None, error: Exception | None
    ) -> Flow[Decision]:
        """Decide a stage whose acquisition has not just let the request in."""
        ledger, request, fare = asked.ledger, asked.request, asked.fare
        if decision is not None:
            self._learn(asked.snapshot, ledger, fare.plan, decision)
        elif isinstance(error, StalePlan):
            snapshot, known = asked.snapshot, fare.revisions
            revisions = yield from self._reloads.catch_up(snapshot, error, known)
            return (yield from self.decide(ledger, request, asked.stage, revisions))
        else:
            if error is not None and not isinstance(error, StoreUnavailable):
                raise error
            decision = self._degraded(asked.snapshot, ledger, fare.bill)
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
        try:
            yield from self._reloads.look(fare.plan)
        except StalePlan as stale:
            revisions = yield from self._reloads.catch_up(snapshot, stale, fare.revisions)
            return (yield from self.decide(ledger, request, stage, revisions))
        return (yield from self._enter(ledger, request, fare.bill, NOTHING_DECIDED))

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
            # Edits that never end must not let anybody in free of charge.
            at_any_revision = bool(bill.charges) and not reloads_left
            plan = bills.make_plan(bill, snapshot, revisions, at_any_revision)
            try:
                return bill, (yield from self._acquire(snapshot, ledger, bill, plan))
            except StalePlan as stale:
                revisions = yield from self._reloads.catch_up(snapshot, stale, revisions)
        return bill, NOTHING_DECIDED

    def _acquire(
        self, snapshot: Snapshot, ledger: Ledger, bill: Bill, plan: Plan
    ) -> Flow[Decision]:
        """Return what the store decides on a bill, or what is remembered that it would."""
        if not bill.charges:
            yield from self._reloads.look(plan)
            return NOTHING_DECIDED
        if self.refusals.remembered:
            again = self._recall(ledger, snapshot, bill)
            if again is not None:
                return again
        store = self.store
        try:
            decision: Decision = yield Guarded(self.breaker, store.execute, store.aexecute, plan)
        except StoreUnavailable:
            return self._degraded(snapshot, ledger, bill)
        self._learn(snapshot, ledger, plan, decision)
        return decision

    def _enter(
        self,
        ledger: Ledger,
        request: HttpRequest,
        bill: Bill,
        decision: Decision,
        was_exempt: str = "",
    ) -> Flow[Decision]:
        """Enter what was decided into the ledger, and act on it."""
        if not decision.allowed and not decision.id:
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

    def _recall(self, ledger: Ledger, snapshot: Snapshot, bill: Bill) -> Decision | None:
        """Return what the store would decide again of a client that it keeps refusing.

        What a policy in shadow mode would refuse nobody but the store knows.
        """
        charges, tariff = bill
        recalled = None if tariff.rehearses else self.refusals.recall(charges, ledger.id)
        if recalled is None:
            return None
        place, decision = recalled
        (refusing,), label = decision.refusing, tariff.labels[place]
        self.teller.count_refusal(refusing.charge.subject, label)
        told = bills.particulars(ledger, snapshot)
        self.teller.sample(refusing, label, decision.now, told)
        return decision

    def _refuse_again(
        self, ledger: Ledger, request: HttpRequest, bill: Bill, decision: Decision
    ) -> AnyFlow[Decision]:
        """Enter a refusal from memory: nearly always there is nothing to wait for."""
        if ledger.charged or not unnoticed():
            return self._enter(ledger, request, bill, decision)
        ledger.add(bill, decision)
        return self.tell(ledger) if self.teller.note_again(ledger) else Done(decision)

    def _learn(self, snapshot: Snapshot, ledger: Ledger, plan: Plan, decision: Decision) -> None:
        """Remember what follows from a decision of the store."""
        if decision.refusing or self.refusals.remembered:
            self.refusals.learn(plan, decision)
        self.snapshots.confirm()
        self._sample(snapshot, ledger, plan.labels, decision)

    def _degraded(self, snapshot: Snapshot, ledger: Ledger, bill: Bill) -> Decision:
        """Return what is decided without the store."""
        decision = degraded_decision(bill, self._local, ledger.earlier_rules())
        self._sample(snapshot, ledger, bill.tariff.labels, decision)
        return decision

    def _sample(
        self, snapshot: Snapshot, ledger: Ledger, labels: Sequence[str], decision: Decision
    ) -> None:
        """Keep in full what is counted as refused, by the labels of what was charged."""
        if type(decision.answer) is Grant:
            return
        outcomes, told = decision.outcomes, bills.particulars(ledger, snapshot)
        for place in counted_outcomes(outcomes):
            self.teller.sample(outcomes[place], labels[place], decision.now, told)


class Acquisition(Guarded, Shortcut[Decision]):
    """The one call of the store for a client who has been charged the same before.

    Nearly every request is one, and let in.
    """

    __slots__ = ("_cashier", "fare", "ledger", "request", "snapshot", "stage")

    def __init__(
        self,
        cashier: Cashier,
        snapshot: Snapshot,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        fare: Fare,
    ) -> None:
        store, self._breaker = cashier.store, cashier.breaker
        self._arguments = (fare.plan,)
        self._run, self._arun = store.execute, store.aexecute
        self._cashier, self.snapshot, self.ledger, self.request = cashier, snapshot, ledger, request
        self.stage, self.fare = stage, fare

    def conclude(
        self, decision: Decision | None, error: Exception | None
    ) -> Decision | Flow[Decision]:
        cashier, ledger = self._cashier, self.ledger
        if decision is None or type(decision.answer) is not Grant or cashier.refusals.remembered:
            return cashier.go_on(self, decision, error)
        cashier.snapshots.confirm()
        ledger.add(self.fare.bill, decision)
        if ledger.client_decided and cashier.teller.note(ledger):
            return cashier.tell(ledger)
        return ledger.decision
