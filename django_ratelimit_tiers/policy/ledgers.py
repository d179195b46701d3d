"""What has been decided for one request so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import getrandbits
from typing import NamedTuple

from django.http import HttpRequest

from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.core.refusals import request_detail
from django_ratelimit_tiers.core.rules import Count, Rule
from django_ratelimit_tiers.policy.identity import Client, address_client


class Entry(NamedTuple):
    """A charge, the rule it comes from (None: the tier), and what its refusal is counted under."""

    charge: Charge
    rule: Rule | None
    label: str


@dataclass(slots=True)
class Ledger:
    """The running account of one request; it is `request.ratelimit`.

    `exempt` says why no limit applies, empty when limits do. `route` stands for the view that the
    request was resolved to, None before and when there is none. `path_rules` are the rules on the
    path and `rules` those on the resolved request, both by the snapshot `rules_of`. `charged` has
    what each stage charged, with its decision.
    """

    client: Client
    method: str
    path: str
    preflight: bool
    id: str = ""
    detail: str = ""
    exempt: str = ""
    account: str = ""
    decision: Decision = NOTHING_DECIDED
    charged_rules: set[int] = field(default_factory=set)
    client_decided: bool = False
    route: str | None = None
    path_rules: list[Rule] | None = None
    rules: list[Rule] | None = None
    rules_of: object = None
    charged: list[tuple[list[Entry], Decision]] = field(default_factory=list)

    def add(self, entries: list[Entry], decision: Decision) -> None:
        """Add what one stage decided."""
        self.decision = self.decision.merge(decision)
        for entry in entries:
            if entry.rule is not None:
                self.charged_rules.add(entry.rule.id)
        if entries and decision.degraded is None and decision.allowed:
            self.charged.append((entries, decision))

    @property
    def has_reservations(self) -> bool:
        """Whether something charged is to be given back unless the response is a failure."""
        return any(_is_reservation(entry) for entries, _ in self.charged for entry in entries)

    def take_back(self, *, reservations_only: bool) -> dict[int, list[Charge]]:
        """Remove the charges to be given back, and return them by the time they were made."""
        taken: dict[int, list[Charge]] = {}
        for entries, decision in self.charged:
            charges = [
                entry.charge
                for entry, outcome in zip(entries, decision.outcomes, strict=True)
                if outcome.allowed and (_is_reservation(entry) or not reservations_only)
            ]
            if charges:
                taken.setdefault(decision.now, []).extend(charges)
        self.charged.clear()
        return taken


def _is_reservation(entry: Entry) -> bool:
    return entry.rule is not None and entry.rule.count is Count.FAILED


def ledger_of(request: HttpRequest) -> Ledger | None:
    """Return the request's ledger, None when nothing has been decided yet.

    A request of the REST framework shares the ledger of the Django request it wraps.
    """
    return getattr(request, "ratelimit", None)


def open_ledger(request: HttpRequest) -> Ledger:
    """Return the request's ledger, opening it if this is the first to decide anything."""
    ledger = ledger_of(request)
    if ledger is None:
        ledger = Ledger(
            client=address_client(request),
            method=request.method or "",
            path=request.path_info,
            preflight=_is_preflight(request),
            id=f"{getrandbits(64):016x}",  # a name, no secret: it need not be hard to guess
        )
        user_agent = request.META.get("HTTP_USER_AGENT", "")
        ledger.detail = request_detail(
            ledger.method, ledger.client.address, ledger.path, user_agent
        )
        request.ratelimit = ledger  # type: ignore[attr-defined]
    return ledger


def _is_preflight(request: HttpRequest) -> bool:
    return (
        request.method == "OPTIONS"
        and "HTTP_ORIGIN" in request.META
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
    )
