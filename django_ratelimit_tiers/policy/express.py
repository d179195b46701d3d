"""The short way, for requests like earlier ones: all about them is remembered but who asks.

Nearly every request comes from a client that was here a moment ago, to a view that others came to.
The plain way (`limiter`, `stages`, `tiers`) finds out in some forty calls of functions that nothing
special applies to it, which takes as long as asking the store; here are a few. Whatever is special
is left to the plain way. Both charge the same, which the tests compare.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from django_ratelimit_tiers.policy import bills, stages
from django_ratelimit_tiers.policy.assignments import Assignment
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.exemptions import account_of, presents_key
from django_ratelimit_tiers.policy.flows import Flow
from django_ratelimit_tiers.policy.identity import Client, identified_client, user_number
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.passages import Fare, Passage
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import Bill
from django_ratelimit_tiers.policy.tiers import (
    ask_resolver,
    ask_test,
    chosen_tier,
    depends_on_verification,
    known_assignments,
    usual_tier,
)

LATE = "late"
"""Tells the fares of requests that never reached a view from those at the door."""


def is_usual(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> bool:
    """Return whether nobody and nothing exempts a request of the ledger's client."""
    passage = stages.passage(snapshot, ledger, request)
    if not passage.is_usual or ledger.exempt:
        return False
    return account_of(snapshot, ledger.client, request) is None


def ask_site(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Flow[None]:
    """Ask the site's own functions for what the tier of the ledger's client depends on."""
    if ledger.preflight:  # no tier is charged for it
        return
    yield from ask_resolver(ledger, request)
    if depends_on_verification(snapshot, ledger.client):
        chosen = _chosen_tier(snapshot, ledger.client, ledger)
        if chosen is not None and chosen[0] is None:
            yield from ask_test(snapshot, ledger)


def usual_fare(
    snapshot: Snapshot,
    ledger: Ledger,
    request: HttpRequest,
    user: Any,
    keys: tuple[str, ...],
    cost: int,
) -> Fare | None:
    """Return what the plain way would charge, None for it to find out.

    The ledger then knows the client. `keys` are the digests of its API key. What the site itself
    says of the tier, the ledger knows already (`ask_site`).
    """
    passage = ledger.passage or stages.passage(snapshot, ledger, request)
    if not passage.is_usual or ledger.exempt:
        return None
    if snapshot.accounts.by_key and presents_key(request):
        return None
    door, number, charged = ledger.client, user_number(user), ledger.charged_rules
    slug = ledger.resolved_tier
    if slug is not None and slug not in snapshot.tiers:
        slug = ""  # all that are none are alike: the site may let a client choose the text
    verified, kind = ledger.is_verified, user.__class__
    key = passage, number, kind, keys, door.address, cost, charged, slug, verified
    fare = snapshot.passages.fares.get(key)
    if fare is None or (fare.assignments and not snapshot.assignments.holds(fare.assignments)):
        client = identified_client(door, user, keys)
        if account_of(snapshot, client, request) is not None:
            return None
        fare = _new_fare(snapshot, passage, client, ledger, request, cost)
        if fare is None:
            return None
        snapshot.passages.remember_fare(key, fare)
    ledger.client, ledger.user = fare.client, user
    return fare


def usual_door_fare(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Fare | None:
    """Return what the plain way would charge before authentication, None for it to find out."""
    passage, client = stages.door_passage(snapshot, ledger), ledger.client
    if not passage.is_usual or ledger.exempt:
        return None
    if snapshot.accounts.by_key and presents_key(request):
        return None
    key = passage, client.address, ledger.charged_rules
    fare = snapshot.passages.fares.get(key)
    if fare is None:
        if account_of(snapshot, client, request) is not None:
            return None
        fare = _fare(snapshot, client, bills.door_bill(passage, ledger, request), {})
        snapshot.passages.remember_fare(key, fare)
    is_exempt_ahead = fare.bill.charges and stages.is_exempt_ahead(snapshot, ledger, request)
    return None if is_exempt_ahead else fare


def usual_late_fare(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> Fare | None:
    """Return what the plain way would charge a request that never reached a view, None for it to
    find out."""
    passage, client = stages.passage(snapshot, ledger, request), ledger.client
    if not passage.is_usual or ledger.exempt:
        return None
    if snapshot.accounts.by_key and presents_key(request):
        return None
    key = LATE, passage, client.address, ledger.charged_rules
    fare = snapshot.passages.fares.get(key)
    if fare is None:
        if account_of(snapshot, client, request) is not None:
            return None
        tier = snapshot.default_tier("anonymous")
        fare = _fare(snapshot, client, bills.late_bill(passage, tier, ledger, request), {})
        snapshot.passages.remember_fare(key, fare)
    return fare


def _new_fare(
    snapshot: Snapshot,
    passage: Passage,
    client: Client,
    ledger: Ledger,
    request: HttpRequest,
    cost: int,
) -> Fare | None:
    """Return what a client is going to be charged, None if its tier takes asking for."""
    tier: CompiledTier | None = None
    assignments: dict[str, Assignment] = {}
    if not ledger.preflight:
        chosen = _chosen_tier(snapshot, client, ledger)
        if chosen is None:
            return None
        tier, assignments = chosen
        if tier is None:
            if ledger.is_verified is None and depends_on_verification(snapshot, client):
                return None
            tier = usual_tier(snapshot, client, ledger.is_verified)
    bill = bills.client_bill(passage, tier, client, ledger, request, passage.cost or cost)
    return _fare(snapshot, client, bill, assignments)


def _fare(
    snapshot: Snapshot, client: Client, bill: Bill, assignments: dict[str, Assignment]
) -> Fare:
    """Return the fare of a client who is charged a bill, with what the store is asked for it."""
    revisions = {subject: known.revision for subject, known in assignments.items()}
    plan = bills.make_plan(bill, snapshot, revisions, False)
    return Fare(client, tuple(assignments.values()), revisions, bill, plan)


def _chosen_tier(
    snapshot: Snapshot, client: Client, ledger: Ledger
) -> tuple[CompiledTier | None, dict[str, Assignment]] | None:
    """Return the tier that was chosen for a client, and the assignments by which it was.

    None if the database has to be asked for them.
    """
    resolved = ledger.resolved_tier
    assignments = known_assignments(snapshot, client) if resolved is None else {}
    if assignments is None:
        return None
    return chosen_tier(snapshot, client, resolved, assignments), assignments
