"""What has been decided for one request so far."""

from __future__ import annotations

import re
from collections.abc import Set
from random import getrandbits
from typing import Any
from urllib.parse import unquote_plus

from django.http import HttpRequest

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision
from django_ratelimit_tiers.core.policies import Charge, Mode
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.policy.identity import Client, address_client, user_number
from django_ratelimit_tiers.policy.passages import Passage
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import Bill, is_reservation

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
"""The methods that refusals are counted under; all others are counted together."""

LONGEST_METHOD = 101
"""Characters of a method that are kept: one more than a rule has room for."""

PRESENTED = re.compile("HTTP_(?!.*[CX]SRF).*(?:KEY|TOKEN|AUTH|SECRET|PASSW)")
"""What nobody sends who has no password, token or key: `Authorization`, and headers of a site's own
such as `X-Key`."""

CREDENTIAL = re.compile("HTTP_.*(?:COOKIE|KEY|TOKEN|AUTH|SECRET|PASSW|SESSION)")
"""What browsers send with no preflight, headers of a site's own among it; views may look at it
whatever the method is."""

QUERIED = re.compile(
    "(?:^|&)(?:(?:access|api|app|auth|client|service|subscription|user|x)[-_.]?)*"
    "(?:auth|key|password|secret|session|token)=",
    re.IGNORECASE,
)
"""How keys are called in queries. Browsers send a query with a preflight, so these are whole names:
a `page_token`, `keyword` or `author` is nobody's key."""


class Ledger:
    """The running account of one request; views find it as `request.ratelimit`.

    `user` is the one that authentication found, if it did. `resolved_tier` is the slug that the
    site's own function has named, None if it named none or was not asked yet (`has_asked`), and
    `is_verified` what the site's own test said of the user, None if it was not asked.
    `exempt` says why no limit applies, empty when limits do. `route` stands for the view that the
    request was resolved to, None before and when there is none. `on_path` are the rules on the path
    and `passage` is the way to the view, both by the `snapshot`. `charged` has what each stage
    charged, with its decision, and `has_reservations` tells whether some of it is to be given back
    unless the response is a failure. A refusal gives all of it back, unless `charges_stand`.
    """

    # Not set for each request: most requests change few of them.
    user: Any = None
    exempt = account = ""
    decision: Decision = NOTHING_DECIDED
    client_decided = has_reservations = has_asked = charges_stand = False
    resolved_tier: str | None = None
    is_verified: bool | None = None
    charged_rules: frozenset[int] = frozenset()
    route: str | None = None
    on_path: tuple[Rule, ...] = ()
    passage: Passage | None = None
    snapshot: Snapshot | None = None

    def __init__(
        self, client: Client, method: str, path: str, preflight: bool, name: str, user_agent: str
    ) -> None:
        self.client, self.method, self.path, self.preflight = client, method, path, preflight
        self.id, self.user_agent = name, user_agent
        self.charged: list[tuple[Bill, Decision]] = []

    def follow_method(self, request: HttpRequest) -> None:
        """Follow a request whose method middleware has changed.

        From now on the rules for the new method hold. What was charged stays charged. The request
        is no preflight any more, and no longer exempt by a rule or a view of its old method.
        """
        method = method_of(request)
        if method == self.method:  # it was spelled in another way
            return
        self.method, self.preflight = method, False
        self.snapshot = self.passage = None
        if not self.account:
            self.exempt = ""

    def doubt_preflight(self, user: Any, keys: tuple[str, ...] = ()) -> None:
        """Take a request for no preflight whose user or digests of an API key are known.

        They were sent, in some header or in the query, and a preflight has none. So it is charged,
        whatever it looks like: otherwise wrong guesses would be charged and right ones not.
        """
        if keys or user_number(user) is not None:
            self._be_no_preflight()

    def reach_no_view(self) -> None:
        """Let the second stage decide by the address: no view says who asks.

        What looked like a preflight has found nothing, and is charged as well.
        """
        self.client_decided = True
        if self.preflight:
            self._be_no_preflight()

    def _be_no_preflight(self) -> None:
        self.preflight, self.snapshot, self.passage = False, None, None

    def keeps_charges(self, request: HttpRequest) -> bool:
        """Return whether a refusal gives nothing back: what was charged stands, or is for a guess.

        A guess are credentials by which nobody was found. They were looked at. Otherwise a client
        that has used up the tier of its address could guess on and on, free of charge, until the
        right guess was let in.
        """
        if self.charges_stand:
            return True
        is_nobody = self.client_decided and self.client.is_anonymous
        return is_nobody and (_sends(request, PRESENTED) or _queries_by_key(request))

    def add(self, bill: Bill, decision: Decision) -> None:
        """Add what one stage decided; what earlier ones charged is given back on a refusal."""
        _, tariff = bill
        answer, _, _, _, _, allowed = decision
        if not allowed:  # nothing was charged, and nothing else is going to be
            self.decision = decision
            return
        is_first, charged = self.decision is NOTHING_DECIDED, self.charged_rules
        self.decision = decision if is_first else self.decision.merge(decision)
        self.charged_rules = charged | tariff.rule_ids if charged else tariff.rule_ids
        if answer:
            self.charged.append((bill, decision))
            if tariff.has_reservations:
                self.has_reservations = True

    def earlier_rules(self) -> list[Rule]:
        """Return the enforced rules that earlier stages have charged the request by."""
        rules = () if self.passage is None else self.passage.rules.rules
        charged = self.charged_rules
        return [rule for rule in rules if rule.id in charged and rule.mode is Mode.ENFORCE]

    def take_back(self, *, reservations_only: bool) -> list[tuple[Decision, list[Charge]]]:
        """Remove the charges to be given back, and return them with the decisions they are of.

        A client that is let in hears no more of what was only reserved: it has not been charged.
        """
        taken = []
        for bill, decision in self.charged:
            charges = [
                outcome.charge
                for rule, outcome in zip(bill.tariff.rules, decision.outcomes, strict=True)
                if outcome.allowed and (not reservations_only or is_reservation(rule))
            ]
            if charges:
                taken.append((decision, charges))
        self.charged.clear()
        if reservations_only and self.decision.allowed:
            self._leave_out({charge for _, charges in taken for charge in charges})
        return taken

    def _leave_out(self, returned: Set[Charge]) -> None:
        _, now, degraded, name, _, _ = self.decision
        left = tuple(o for o in self.decision.outcomes if o.charge not in returned)
        self.decision = Decision(left, now, degraded, name)


def ledger_of(request: HttpRequest) -> Ledger | None:
    """Return the request's ledger, None when nothing has been decided yet.

    A request of the REST framework shares the ledger of the Django request it wraps. It is not
    looked for in `request.ratelimit`: other limiters put an account of their own there.
    """
    return getattr(request, "_ratelimit_ledger", None)


def open_ledger(request: HttpRequest) -> Ledger:
    """Return the request's ledger, opening it if this is the first to decide anything."""
    ledger: Ledger | None = getattr(request, "_ratelimit_ledger", None)
    if ledger is None:
        method = request.method
        if method not in METHODS:  # nearly all are, and need no call
            method = method_of(request)
        ledger = Ledger(
            address_client(request),
            method,
            request.path_info,
            method == "OPTIONS" and _asks_permission(request),
            f"{getrandbits(64):016x}",  # a name, no secret: it may be guessed
            request.META.get("HTTP_USER_AGENT", ""),
        )
        request._ratelimit_ledger = request.ratelimit = ledger  # type: ignore[attr-defined]
    return ledger


def method_of(request: HttpRequest) -> str:
    """Return a request's method, cut where it is longer than a rule can name: it is remembered.

    In capitals: middleware may put in any spelling, and views of a class answer to each.
    """
    return (request.method or "")[:LONGEST_METHOD].upper()


def _asks_permission(request: HttpRequest) -> bool:
    meta = request.META
    is_asked = "HTTP_ORIGIN" in meta and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in meta
    return is_asked and not (_sends(request, CREDENTIAL) or _queries_by_key(request))


def _sends(request: HttpRequest, names: re.Pattern[str]) -> bool:
    return any(value for name, value in request.META.items() if names.match(name))


def _queries_by_key(request: HttpRequest) -> bool:
    """Return whether a query has what the site's own function may take for a key."""
    query = request.META.get("QUERY_STRING", "") if conf.API_KEY_RESOLVER is not None else ""
    return bool(query) and QUERIED.search(unquote_plus(query)) is not None
