"""From a request to what it is charged, stage by stage; `cashiers` has the store decide that.

Everything is a flow (see `flows`), so that threads and event loops share it to the last branch.
"""

from __future__ import annotations

import atexit
from functools import cache, partial
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import SETTING, conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.policy import express, stages
from django_ratelimit_tiers.policy.cashiers import Cashier
from django_ratelimit_tiers.policy.exemptions import account_of, exempt_by_view
from django_ratelimit_tiers.policy.flows import AnyFlow, Done, Flow, Step, call
from django_ratelimit_tiers.policy.identity import identified_client, request_user, verified_key
from django_ratelimit_tiers.policy.ledgers import Ledger, ledger_of, open_ledger
from django_ratelimit_tiers.policy.passages import Fare, Passage
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.statuses import error_status
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.configured import configured_store


class Limiter:
    """Decides requests with one store; one for each process."""

    def __init__(self, store: Store) -> None:
        self._cashier = Cashier(store)
        self._snapshots = self._cashier.snapshots
        self.breaker, self.teller = self._cashier.breaker, self._cashier.teller

    def passes_door(self, ledger: Ledger, request: HttpRequest) -> bool:
        """Return whether the first stage can be left out: it would charge and exempt nobody."""
        known = self._snapshots.in_force
        if known is None or stages.door_passage(known, ledger).rules.acts_early:
            return False
        return not known.has_accounts or account_of(known, ledger.client, request) is None

    def door(self, request: HttpRequest) -> AnyFlow[Decision]:
        """Decide the first stage: what is known before authentication, by the path alone."""
        ledger, known = open_ledger(request), self._snapshots.in_force
        fare = None if known is None else express.usual_door_fare(known, ledger, request)
        return self._decide(ledger, request, stages.door_bill, known, fare)

    def reach(self, request: HttpRequest, view: Any, cost: int = 1) -> AnyFlow[Decision]:
        """Decide what the resolved route and the client add, before the view.

        The client is left to a view that decides it itself (`stages.decides_client`).
        """
        ledger = open_ledger(request)
        if request.method != ledger.method:
            ledger.follow_method(request)
        known = ledger.snapshot or self._snapshots.in_force
        way = None if known is None else stages.passage(known, ledger, request)
        if way is None or not way.is_usual or way.rules.acts_early:
            return self._reach(ledger, request, view, cost, way)
        return self._at_view(ledger, request, view, cost)

    def client(self, request: HttpRequest, user: Any) -> AnyFlow[Decision]:
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
            yield from self._decide(ledger, request, stages.late_bill, known, fare)
        if not ledger.decision.allowed and status not in conf.FAILED_STATUSES:
            yield from self._cashier.give_back(ledger, reservations_only=True)
        return ledger.decision

    def settle(self, request: HttpRequest, status: int) -> AnyFlow[None]:
        """Give back what was reserved for a failure unless the response is one, or a refusal."""
        ledger = ledger_of(request)
        if ledger is None or not (ledger.has_reservations and ledger.decision.allowed):
            return Done(None)
        is_failure = status in conf.FAILED_STATUSES
        return Done(None) if is_failure else self._cashier.give_back(ledger, reservations_only=True)

    def _reach(
        self, ledger: Ledger, request: HttpRequest, view: Any, cost: int, way: Passage | None
    ) -> Flow[Decision]:
        decision = yield from self._route(ledger, request, way)
        if not decision.allowed:
            return decision
        return (yield from self._at_view(ledger, request, view, cost))

    def _route(
        self, ledger: Ledger, request: HttpRequest, known: Passage | None
    ) -> AnyFlow[Decision]:
        """Decide the rest of the first stage: what only the resolved route shows."""
        exempt_by_view(ledger, request)
        if known is not None and not known.rules.acts_beyond(ledger.charged_rules):
            return Done(ledger.decision)
        return self._decide(ledger, request, stages.route_bill)

    def _at_view(
        self, ledger: Ledger, request: HttpRequest, view: Any, cost: int
    ) -> AnyFlow[Decision]:
        """Decide the second stage, unless the view does."""
        if stages.decides_client(view):
            return Done(ledger.decision)
        user = request_user(request)
        if type(user) is Step:
            return self._of_session(ledger, request, user, cost)
        return self._client(ledger, request, user, cost)

    def _of_session(
        self, ledger: Ledger, request: HttpRequest, reading: Step, cost: int
    ) -> Flow[Decision]:
        user = yield reading
        return (yield from self._client(ledger, request, user, cost))

    def _client(
        self, ledger: Ledger, request: HttpRequest, user: Any, cost: int
    ) -> AnyFlow[Decision]:
        if ledger.client_decided:
            return Done(ledger.decision)
        ledger.client_decided = True
        if ledger.preflight:
            ledger.doubt_preflight(user)
        if conf.has_resolvers:
            return self._introduced(ledger, request, user, cost)
        stage = partial(stages.client_bill, cost)
        known = ledger.snapshot or self._snapshots.in_force
        fare = None if known is None else express.usual_fare(known, ledger, request, user, (), cost)
        if known is None or fare is None:
            _identify(ledger, request, user, ())
            return self._cashier.decide(ledger, request, stage)
        return self._cashier.charge(known, ledger, request, stage, fare)

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
            if ledger.preflight:
                ledger.doubt_preflight(user, keys)
            _identify(ledger, request, user, keys)
            if known is not None and express.is_usual(known, ledger, request):
                yield from express.ask_site(known, ledger, request)
                fare = express.usual_fare(known, ledger, request, user, keys, cost)
            return (yield from self._decide(ledger, request, stage, known, fare))
        except Exception as error:
            ledger.client, ledger.user, ledger.client_decided = door, None, False
            decision = yield from self.unreached(request, error_status(error))
            if decision.allowed:
                raise
            return decision

    def _decide(
        self,
        ledger: Ledger,
        request: HttpRequest,
        stage: stages.Stage,
        known: Snapshot | None = None,
        fare: Fare | None = None,
    ) -> AnyFlow[Decision]:
        """Decide a stage: by a fare where the snapshot has shown what its client is charged."""
        if known is None or fare is None:
            return self._cashier.decide(ledger, request, stage)
        return self._cashier.charge(known, ledger, request, stage, fare)


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
