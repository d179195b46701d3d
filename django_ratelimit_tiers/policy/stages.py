"""The stages of a decision: which rules are on a request, and the plain way to what is charged.

`express` is the short way to the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest

from django_ratelimit_tiers.policy import bills
from django_ratelimit_tiers.policy.exemptions import (
    exempt_account,
    exempt_by_rule,
    exempt_by_view,
    exempting_rules,
)
from django_ratelimit_tiers.policy.flows import AnyFlow, Done, Flow
from django_ratelimit_tiers.policy.ledgers import Ledger, method_of
from django_ratelimit_tiers.policy.passages import Passage
from django_ratelimit_tiers.policy.routes import resolution
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import NOTHING, Bill
from django_ratelimit_tiers.policy.tiers import find_tier

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))

Stage = Callable[[Snapshot, Ledger, HttpRequest, dict[str, str]], AnyFlow[Bill]]
"""Tells what a snapshot charges, and adds the revisions of subjects that it used to the others."""


def door_passage(snapshot: Snapshot, ledger: Ledger) -> Passage:
    """Return the passage of a request of which nothing but the path is known."""
    found = snapshot.passages.at_door(ledger.path, ledger.method, preflight=ledger.preflight)
    if ledger.snapshot is not snapshot:
        ledger.snapshot, ledger.passage, ledger.on_path = snapshot, None, found.on_path
    return _present(found) if found.rules.turns else found


def passage(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Passage:
    """Return the passage of a resolved request, whose rules are by path, route and view name.

    Both stages ask for it; it is the same as long as the snapshot is.
    """
    if ledger.snapshot is not snapshot:
        door_passage(snapshot, ledger)
    elif ledger.passage is not None:
        return ledger.passage
    match = request.resolver_match
    if match is None:
        found = door_passage(snapshot, ledger)
    else:
        urlconf = getattr(request, "urlconf", None)
        book, on_path, preflight = snapshot.passages, ledger.on_path, ledger.preflight
        found = book.resolved(on_path, match, ledger.method, urlconf, preflight=preflight)
        if found.rules.turns:
            found = _present(found)
        ledger.route = found.route
    ledger.passage = found
    return found


def is_exempt_ahead(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> bool:
    """Return whether a rule exempts the view that the path is probably going to be resolved to.

    Only asked where something would be charged before Django resolves the path: an exemption wins,
    whichever way a rule names the view.
    """
    if not snapshot.has_exemptions:
        return False
    found = _foreseen(snapshot, ledger, request)
    if found is None or not found.rules.exempts:
        return False
    return bool(exempting_rules(_present(found).rules.rules))


def exempt_unreached(
    snapshot: Snapshot | None, ledger: Ledger, request: HttpRequest, status: int
) -> None:
    """Exempt what an exempt view was asked for, also where middleware has answered in its place.

    A cache does, and a redirect to TLS. What was not found has no view.
    """
    exempt_by_view(ledger, request)
    is_foreseeable = request.resolver_match is None and status != HTTPStatus.NOT_FOUND
    if snapshot is None or not is_foreseeable:
        return
    found = _foreseen(snapshot, ledger, request)
    if found is not None and (found.is_exempt or exempting_rules(_present(found).rules.rules)):
        ledger.exempt = ledger.exempt or "view"


def bill_of(
    stage: Stage,
    snapshot: Snapshot,
    ledger: Ledger,
    request: HttpRequest,
    revisions: dict[str, str],
) -> Flow[Bill]:
    """Return what a stage charges: nothing to whom it, or an earlier one, finds exempt.

    A service account is looked for on an exempt view, too, where it has been charged before.
    """
    if ledger.exempt and ledger.charged and not ledger.account:
        exempt_account(snapshot, ledger, request)
    bill = NOTHING if ledger.exempt else (yield from stage(snapshot, ledger, request, revisions))
    return NOTHING if ledger.exempt else bill


def door_bill(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, _revisions: dict[str, str]
) -> Done[Bill]:
    """Return what is charged before the path is resolved.

    Nothing where an exemption is only foreseen: middleware may yet choose other routes, and the one
    that is resolved shows what is true (`route_bill`).
    """
    exempt_account(snapshot, ledger, request)
    way = door_passage(snapshot, ledger)
    exempt_by_rule(way.rules.rules, ledger)
    bill = bills.door_bill(way, ledger, request)
    if bill.charges and is_exempt_ahead(snapshot, ledger, request):
        bill = NOTHING
    return Done(bill)


def route_bill(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, _revisions: dict[str, str]
) -> Done[Bill]:
    """Return what only the resolved route shows of what is charged before authentication."""
    way = passage(snapshot, ledger, request)
    exempt_by_rule(way.rules.rules, ledger)
    return Done(bills.door_bill(way, ledger, request))


def client_bill(
    cost: int,
    snapshot: Snapshot,
    ledger: Ledger,
    request: HttpRequest,
    revisions: dict[str, str],
) -> Flow[Bill]:
    """Return what is charged once the client is known, whatever there is to find out about it."""
    exempt_account(snapshot, ledger, request)
    way = passage(snapshot, ledger, request)
    exempt_by_rule(way.rules.rules, ledger)
    tier = None
    if not ledger.exempt and not ledger.preflight:
        tier = yield from find_tier(snapshot, ledger, request, revisions)
    return bills.client_bill(way, tier, ledger.client, ledger, request, way.cost or cost)


def late_bill(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, _revisions: dict[str, str]
) -> Done[Bill]:
    """Return what a request that never reached a view is charged.

    Exemptions were looked at before, but maybe those of the policy before an edit.
    """
    exempt_account(snapshot, ledger, request)
    way, tier = passage(snapshot, ledger, request), snapshot.default_tier("anonymous")
    exempt_by_rule(way.rules.rules, ledger)
    return Done(bills.late_bill(way, tier, ledger, request))


def is_due_late(ledger: Ledger, request: HttpRequest, status: int) -> bool:
    """Return whether a request that was answered so is still to be charged to its address.

    A preflight is free, unless it found nothing: that is a scanner's. Free, too, is what a view has
    done whose throttle was left out: a refusal would deny that it was done.
    """
    if ledger.client_decided or not ledger.decision.allowed:
        return False
    is_done = request.resolver_match is not None and method_of(request) not in SAFE_METHODS
    return status >= HTTPStatus.BAD_REQUEST or not (ledger.preflight or is_done)


def was_examined(request: HttpRequest, status: int) -> bool:
    """Return whether a view, or middleware, may have looked at a request's credentials.

    Then a refusal gives back nothing of what the rules cost (`Ledger.keeps_charges`).
    """
    turned_away = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return request.resolver_match is not None or status in turned_away


def foresee_view(request: HttpRequest) -> bool:
    """Resolve what middleware has turned away before Django did, and return whether it now is.

    Otherwise a guess would be charged to no rule that only the route shows, as one by view name.
    """
    if request.resolver_match is not None:
        return False
    with suppress(Exception):  # a converter may need what later middleware sets
        urlconf = getattr(request, "urlconf", None)
        request.resolver_match = resolution(request.path_info, urlconf)
    return request.resolver_match is not None


def decides_client(view: Any) -> bool:
    """Return whether a view decides the second stage itself, once it has authenticated.

    `as_view()` and the actions of a viewset can name other throttles than the class does. Those
    that only an object of the class can name, by a property, are not known yet. A partial of a view
    tells nothing itself, nor do decorators of one.
    """
    cls = getattr(view, "cls", None)
    if cls is None:
        below = view.func if type(view) is partial else getattr(view, "__wrapped__", None)
        return below is not None and decides_client(below)
    options = getattr(view, "initkwargs", {})
    throttles = options.get("throttle_classes", getattr(cls, "throttle_classes", ()))
    if not hasattr(throttles, "__iter__"):
        return False
    for throttle in throttles:  # noqa: SIM110 - asked for every request, and quicker than any()
        if getattr(throttle, "decides_client", False):
            return True
    return False


def _foreseen(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Passage | None:
    """Return the passage that Django would resolve a path to, None if it is to no view."""
    book, urlconf = snapshot.passages, getattr(request, "urlconf", None)
    return book.foreseen(ledger.path, ledger.method, urlconf, preflight=ledger.preflight)


def _present(passage: Passage) -> Passage:
    return passage.at(time.time())
