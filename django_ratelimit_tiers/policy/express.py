"""The short way for requests like others before: all is remembered about them but who asks.

Nearly every request comes from a client that was here a moment ago, to a view that others came to.
The plain way (`limiter`, `stages`, `tiers`) finds out in some forty calls of functions that nothing
special applies to it, which takes as long as asking the store; here are a few. Whatever is special
is left to the plain way. Both charge the same, which the tests compare.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.http import HttpRequest

from django_ratelimit_tiers.policy import stages
from django_ratelimit_tiers.policy.exemptions import account_of, presents_key
from django_ratelimit_tiers.policy.identity import Client, identified_client, user_number
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.passages import Fare, Passage
from django_ratelimit_tiers.policy.snapshots import Snapshot


def usual_fare(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, user: Any, cost: int
) -> Fare | None:
    """Return what the plain way would charge who has no API key, None for it to find out.

    The ledger then knows the client.
    """
    passage = stages.passage(snapshot, ledger, request)
    if not passage.is_usual or ledger.exempt or ledger.preflight or presents_key(snapshot, request):
        return None
    door, number, charged = ledger.client, user_number(user), ledger.charged_rules
    key = passage, number, door.address, cost, charged
    fare = snapshot.passages.fares.get(key)
    if fare is None or not _holds(fare, snapshot):
        client = identified_client(door, user, None)
        if account_of(snapshot, client, request) is not None:
            return None
        fare = _new_fare(snapshot, passage, client, request, cost, charged)
        if fare is None:
            return None
        _keep(snapshot, key, fare)
    ledger.client, ledger.user = fare.client, user
    return fare


def usual_door_fare(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Fare | None:
    """Return what the plain way would charge before authentication, None for it to find out."""
    passage = stages.door_passage(snapshot, ledger)
    if not passage.is_usual or snapshot.has_exemptions or ledger.exempt or ledger.preflight:
        return None
    if presents_key(snapshot, request):
        return None
    key = passage, ledger.client.address, ledger.charged_rules
    fare = snapshot.passages.fares.get(key)
    if fare is None:
        if account_of(snapshot, ledger.client, request) is not None:
            return None
        bill = stages.door_bill(passage, passage.rules, ledger, request)
        order = stages.make_order(bill, snapshot, {}, False)
        fare = Fare(ledger.client, None, {}, bill, order)
        _keep(snapshot, key, fare)
    return fare


def _keep(snapshot: Snapshot, key: object, fare: Fare) -> None:
    """Remember a fare for the next time; only then the store keeps what it is asked."""
    kept = fare.bill._replace(is_kept=True)
    order = stages.make_order(kept, snapshot, fare.revisions, False)
    snapshot.passages.remember_fare(key, replace(fare, bill=kept, order=order))


def _holds(fare: Fare, snapshot: Snapshot) -> bool:
    """Return whether its client is still assigned what it was."""
    assignment = fare.assignment
    if assignment is None:
        return True
    return snapshot.assignments.get(fare.client.user_subject or "") is assignment


def _new_fare(
    snapshot: Snapshot,
    passage: Passage,
    client: Client,
    request: HttpRequest,
    cost: int,
    charged_rules: frozenset[int],
) -> Fare | None:
    """Return what a client is going to be charged, None if its tier or tariff is not known yet."""
    subject, assignment = client.user_subject, None
    revisions: dict[str, str] = {}
    if subject is None:
        tier = snapshot.default_tier("anonymous")
    else:
        assignment = snapshot.assignments.get(subject)
        if assignment is None:
            return None
        tiers = snapshot.tiers
        assigned = tiers.get(assignment.direct or "") or tiers.get(assignment.through_group or "")
        tier = assigned or snapshot.default_tier("authenticated")
        revisions[subject] = assignment.revision
    key = stages.client_key(tier, client, passage.cost or cost, charged_rules)
    tariff = passage.tariffs.get(key)
    if tariff is None:
        return None
    bill = stages.bill(tariff, client, request)
    order = stages.make_order(bill, snapshot, revisions, False)
    return Fare(client, assignment, revisions, bill, order)
