"""What has been decided for one request so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.http import HttpRequest

from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.policies import Charge
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.policy.identity import Client, address_client


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge, the rule it comes from (None: the tier), and what its refusal is counted under."""

    charge: Charge
    rule: Rule | None
    label: str


@dataclass(slots=True)
class Ledger:
    """The running account of one request; it is `request.ratelimit`.

    `exempt` says why no limit applies, empty when limits do. `reserved` are charges to be given
    back unless the response is a failure, with the time at which they were made.
    """

    client: Client
    method: str
    path: str
    preflight: bool
    exempt: str = ""
    decision: Decision = field(default_factory=Decision)
    charged_rules: set[int] = field(default_factory=set)
    client_decided: bool = False
    endpoint: str = ""
    reserved: list[tuple[Charge, int]] = field(default_factory=list)

    def add(self, entries: list[Entry], decision: Decision) -> None:
        """Add what one stage decided."""
        self.charged_rules.update(entry.rule.id for entry in entries if entry.rule)
        self.decision = self.decision.merge(decision)


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
        )
        request.ratelimit = ledger  # type: ignore[attr-defined]
    return ledger


def _is_preflight(request: HttpRequest) -> bool:
    return (
        request.method == "OPTIONS"
        and "HTTP_ORIGIN" in request.META
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
    )
