"""Requests that a policy decides without anybody making them.

A rehearsal goes the plain way of the limiter, with one snapshot and one store. It tells nobody what
it refuses, and nothing is edited or fails meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from http import HTTPStatus
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.urls import ResolverMatch

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import NOTHING_DECIDED, Decision, Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.refusals import RefusalKey, counted_outcomes, labelled_key
from django_ratelimit_tiers.models import user_key
from django_ratelimit_tiers.policy import stages
from django_ratelimit_tiers.policy.exemptions import exempt_by_view
from django_ratelimit_tiers.policy.flows import Flow, drive
from django_ratelimit_tiers.policy.identity import identified_client
from django_ratelimit_tiers.policy.ledgers import Ledger, open_ledger
from django_ratelimit_tiers.policy.routes import resolution
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import Bill
from django_ratelimit_tiers.store.base import Store

BEFORE_THROTTLES = frozenset(
    (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_ACCEPTABLE)
)
"""What the REST framework answers before it asks the throttles of a view."""

REMEMBERED_PATHS = 10_000
"""How many paths' views one rehearsal remembers."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes a request, as authentication would find out, and what the view answers.

    `keys` are the digests of a verified API key; `tier` is the slug that the site's own function
    would name, None for it to be asked. Where nobody knows the status yet, a view answers and
    nothing is found where there is none.
    """

    user: Any = None
    keys: tuple[str, ...] = ()
    tier: str | None = None
    status: int | None = None


class Charged(NamedTuple):
    """The answer of one policy; `key` is what its refusals are counted under.

    `rule` is the name of the rule that it is of, empty for one of the client's tier.
    """

    key: RefusalKey
    rule: str
    outcome: Outcome


@dataclass(slots=True)
class Rehearsed:
    """How a request was decided: every policy that was asked, and the refusals to be counted.

    These are of the policy that refused with the longest wait, and of each in shadow mode that
    would have.
    """

    ledger: Ledger
    charged: list[Charged] = field(default_factory=list)
    refusals: list[Charged] = field(default_factory=list)

    def add(self, bill: Bill, outcomes: Sequence[Outcome]) -> None:
        """Add what one stage decided."""
        charged = [
            Charged(*labelled_key(label, o.charge.policy.mode, o.charge.subject), o)
            for label, o in zip(bill.tariff.labels, outcomes, strict=True)
        ]
        self.charged += charged
        self.refusals += [charged[place] for place in counted_outcomes(outcomes)]


class Rehearsal:
    """Decides requests by a snapshot. Where it does not `spend`, the store is only looked at."""

    def __init__(self, snapshot: Snapshot, store: Store, *, spend: bool = True) -> None:
        self._snapshot = snapshot
        self._store = store
        self._spend = spend
        self._resolved = lru_cache(maxsize=REMEMBERED_PATHS)(_resolved)

    def decide(self, request: HttpRequest, visitor: Visitor, now: int | None = None) -> Rehearsed:
        """Decide one request at a time in microseconds since the epoch, None for the store's own.

        Raises StoreUnavailable, and what the site's own functions raise.
        """
        return drive(self._decided(request, visitor, now))

    def _decided(self, request: HttpRequest, visitor: Visitor, now: int | None) -> Flow[Rehearsed]:
        ledger = open_ledger(request)
        rehearsed = Rehearsed(ledger)
        if type(visitor.user) is UnknownUser:
            # The site's own functions may ask for anything of a user.
            ledger.is_verified = ledger.has_asked = True
        if visitor.tier is not None:
            ledger.resolved_tier, ledger.has_asked = visitor.tier, True
        for stage in self._stages(ledger, request, visitor):
            was_exempt = ledger.exempt
            bill = yield from stages.bill_of(stage, self._snapshot, ledger, request, {})
            decision = self._ask(bill, now)
            rehearsed.add(bill, decision.outcomes)
            ledger.add(bill, decision)
            if not decision.allowed:
                if not ledger.keeps_charges(request):
                    self._give_back(ledger, reservations_only=False)
                break
            if ledger.exempt and (ledger.account or not was_exempt):
                self._give_back(ledger, reservations_only=False)
                ledger.decision = NOTHING_DECIDED
        if visitor.status not in conf.FAILED_STATUSES:
            self._give_back(ledger, reservations_only=True)
        return rehearsed

    def _ask(self, bill: Bill, now: int | None) -> Decision:
        if not bill.charges:
            return NOTHING_DECIDED
        return self._store.execute(Plan(bill.charges, spend=self._spend, now=now))

    def _give_back(self, ledger: Ledger, *, reservations_only: bool) -> None:
        for decision, charges in ledger.take_back(reservations_only=reservations_only):
            if self._spend:
                # The newest, as nothing came in between: it counts at a later time where the
                # request comes late.
                self._store.refund(charges, now=decision.now)

    def _stages(
        self, ledger: Ledger, request: HttpRequest, visitor: Visitor
    ) -> Iterator[stages.Stage]:
        """Yield the stages that a request comes to, as `Limiter` has them, when it does."""
        yield stages.door_bill
        match = request.resolver_match = self._resolved(request.path_info)
        exempt_by_view(ledger, request)
        if match is not None:
            yield stages.route_bill
            if not (stages.decides_client(match.func) and visitor.status in BEFORE_THROTTLES):
                client = identified_client(ledger.client, visitor.user, visitor.keys)
                ledger.client, ledger.user, ledger.client_decided = client, visitor.user, True
                yield partial(stages.client_bill, 1)
                return
        status = visitor.status or HTTPStatus.NOT_FOUND
        if not (ledger.preflight and status < HTTPStatus.BAD_REQUEST):
            ledger.reach_no_view()
            ledger.charges_stand = stages.was_examined(request, status)
            yield stages.late_bill


def _resolved(path: str) -> ResolverMatch | None:
    """Return what Django resolves a path to, None if it is to no view."""
    try:
        return resolution(path)
    except Exception:  # a converter of the project may fail: then the site answers with an error
        return None


def imagined_request(
    method: str, path: str, query: str, address: str, visitor: Visitor
) -> HttpRequest:
    """Return a request that nobody made, as a server would hand it to Django.

    The path and the query are percent-encoded, and the client is connected by itself, without a
    proxy. Of `OPTIONS` only a preflight is known, which browsers send without credentials.
    """
    raw = unquote_to_bytes(_sent(_mounted(path)))
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": raw.decode("latin-1"),
        "QUERY_STRING": _sent(query).decode("latin-1"),
        "REMOTE_ADDR": address,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
    }
    if method == "OPTIONS" and visitor.user is None and not visitor.keys:
        environ |= {"HTTP_ORIGIN": "null", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}
    request = WSGIRequest(environ)
    user: Any = AnonymousUser() if visitor.user is None else visitor.user

    async def auser() -> Any:
        return user

    request.user, request.auser = user, auser  # as authentication leaves them
    return request


def _mounted(path: str) -> str:
    """Return a path below the prefix that the site is mounted at, any other as it is."""
    prefix = (settings.FORCE_SCRIPT_NAME or "").rstrip("/")
    below = path.removeprefix(prefix)
    return below if below.startswith("/") or not below else path


def _sent(text: str) -> bytes:
    """Return the bytes of a part of a URL as the client sent them."""
    return text.encode(errors="surrogateescape")


class UnknownUser(NamedTuple):
    """A user whom the database does not have, as one that only a token describes."""

    pk: str
    is_authenticated: bool = True


def known_user(name: str) -> Any:
    """Return the user of a name, or else of a primary key, or a stand-in for one not known."""
    users: Any = get_user_model()
    for condition in ({users.USERNAME_FIELD: name}, {"pk": user_key(name)}):
        with suppress(ValueError, ValidationError):  # user names may be numbers alone, or UUIDs
            user = users._default_manager.filter(**condition).first()
            if user is not None:
                return user
    return UnknownUser(name)
