"""What a request would be charged now, in words for staff, without charging it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from django.http import HttpRequest

from django_ratelimit_tiers.core.policies import whole_seconds
from django_ratelimit_tiers.core.rules import IdentifyBy
from django_ratelimit_tiers.core.words import shown
from django_ratelimit_tiers.models.words import policy_words
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.conditions import coverage_findings
from django_ratelimit_tiers.policy.flows import drive
from django_ratelimit_tiers.policy.identity import verified_key
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.rehearsals import (
    Charged,
    Rehearsal,
    Rehearsed,
    UnknownUser,
    Visitor,
    imagined_request,
    known_user,
)
from django_ratelimit_tiers.policy.snapshots import Snapshot, build_snapshot
from django_ratelimit_tiers.policy.stages import foresee_view
from django_ratelimit_tiers.policy.tiers import find_tier
from django_ratelimit_tiers.store.configured import configured_store


@dataclass(frozen=True, slots=True)
class Enquiry:
    """The request that is asked about; `path` is as a client sends it, with its query.

    Raises ValueError for an address that is none, and for a path that does not begin with a slash.
    """

    method: str
    path: str
    address: str
    user: str = ""
    api_key: str = ""

    def __post_init__(self) -> None:
        ip_address(self.address)
        if not self.path.startswith("/"):
            raise ValueError(f"{self.path!r} is no path such as /api/search/")


def preview(enquiry: Enquiry, *, names_accounts: bool = True) -> list[str]:
    """Return what would become of a request, a line each.

    `names_accounts` tells whether the reader may know which service accounts there are. Asks the
    database for the policy, and the store for the counters, without spending. Raises
    StoreUnavailable, and what the site's own functions raise.
    """
    user = known_user(enquiry.user) if enquiry.user else None
    visitor = Visitor(user, verified_key(enquiry.api_key))
    path, _, query = enquiry.path.partition("?")
    request = imagined_request(enquiry.method, path, query, enquiry.address, visitor)
    snapshot, store = build_snapshot("", AssignmentCache()), configured_store()
    rehearsed = Rehearsal(snapshot, store, spend=False).decide(request, visitor)
    lines = [
        _route(request),
        *_client(rehearsed, request, snapshot),
        _verdict(rehearsed, names_accounts),
    ]
    if not rehearsed.ledger.exempt:
        lines += map(_standing, rehearsed.charged)
        lines += _unseen(rehearsed.ledger)
    lines += [f"Note: {finding.text}" for finding in coverage_findings()]
    if not store.shared:
        lines.append("Note: Each process counts by itself; what is used is only what this one saw.")
    return lines


def _route(request: HttpRequest) -> str:
    foresee_view(request)  # what is refused before authentication was not resolved yet
    match, path = request.resolver_match, shown(request.path_info)
    if match is None:
        return f"{request.method} {path} leads to no view, so it is charged to its address."
    name = f", named “{match.view_name}”" if match.url_name else ""
    return f"{request.method} {path} leads to the route “{match.route or '/'}”{name}."


def _client(rehearsed: Rehearsed, request: HttpRequest, snapshot: Snapshot) -> Iterator[str]:
    ledger = rehearsed.ledger
    if not ledger.client_decided:
        return
    yield f"The client is {shown(ledger.client.subject)}."
    if type(ledger.user) is UnknownUser:
        yield "No user has this name or primary key: it is taken for one known by a token alone."
    elif not getattr(ledger.user, "is_active", True):
        yield "This user is not active: Django's own backends would take it for nobody."
    tier = snapshot.default_tier("anonymous")
    if request.resolver_match is not None:
        tier = drive(find_tier(snapshot, ledger, request, {}))
    if ledger.preflight:
        yield "It is taken for a browser's preflight, which is only limited by rules for OPTIONS."
    elif tier is None:
        yield "It has no tier, so only rules limit it."
    else:
        yield f"Its tier is “{tier.slug}”{', which is unlimited' if tier.unlimited else ''}."


def _verdict(rehearsed: Rehearsed, names_accounts: bool) -> str:
    ledger, decision = rehearsed.ledger, rehearsed.ledger.decision
    if ledger.exempt:
        by = "the decorator of its view" if ledger.exempt == "view" else ledger.exempt
        if ledger.account and not names_accounts:
            by = "a service account"
        return f"No limit applies: it is exempt by {by}."
    if decision.allowed:
        return "The request would pass."
    early = "" if ledger.client_decided else " before it is known who asks"
    if any(o.charge.cost > o.charge.policy.capacity for o in decision.refusing):
        return f"The request would be refused{early}; it costs more than is ever allowed at once."
    wait = whole_seconds(decision.retry_after or 0)
    # Limits that were not asked yet may refuse it then.
    then = "it would pass" if ledger.client_decided else "these limits would let it on"
    return f"The request would be refused{early}; {then} in {wait:,} s."


def _unseen(ledger: Ledger) -> Iterator[str]:
    for rule in ledger.passage.rules.rules if ledger.passage else ():
        if rule.identify_by is IdentifyBy.FIELD and rule.policies:
            yield (
                f"Note: The rule “{shown(rule.name)}” counts by the request field "
                f"“{rule.request_field}”, which is not known here: this is how it stands without."
            )


def _standing(charged: Charged) -> str:
    outcome = charged.outcome
    charge = outcome.charge
    policy = charge.policy
    owner = f"rule “{charged.rule}”" if charged.rule else f"tier “{charged.key.tier}”"
    limit = policy_words(policy)
    used, reset = policy.capacity - outcome.remaining, whole_seconds(outcome.reset_after)
    cost = "" if charge.cost == 1 else f", at a cost of {charge.cost}"
    back = f", full again in {reset:,} s" if reset else ""
    refuses = "It refuses." if policy.is_enforced else "It would refuse, but is in shadow mode."
    verdict = "" if outcome.allowed else f" {refuses}"
    return (
        f"{policy.name} ({owner}) allows {charge.subject} {limit}{cost}: {used:,} of "
        f"{policy.capacity:,} used{back}.{verdict}"
    )
