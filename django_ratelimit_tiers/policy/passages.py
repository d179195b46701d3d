"""What requests have in common that come to one view: worked out once, then kept with a snapshot.

A warm request finds the rules on it and its tariff here, by one look each. Whatever depends on more
than path, view, method, tier and cost is worked out for the one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from django.urls import ResolverMatch

from django_ratelimit_tiers.core.rules import IdentifyBy, Rule
from django_ratelimit_tiers.policy.assignments import Assignment
from django_ratelimit_tiers.policy.identity import Client
from django_ratelimit_tiers.policy.routes import RouteIndex, routes_epoch, routes_of
from django_ratelimit_tiers.policy.tariffs import Bill, RuleGroup, Tariff
from django_ratelimit_tiers.policy.views import View, view_marks

REMEMBERED = 10_000
"""How many passages one snapshot remembers."""

MOST_FARES = 4096
"""How many fares one snapshot remembers, each in about a kilobyte."""

MOST_TARIFFS = 1000
"""How many tariffs one passage remembers."""


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """The way of one method to one view, among the same rules by path.

    `rules` are those by path and on the view. Where nothing was resolved there is no `view`, and no
    `route` that stands for it. `cost` is what a decorator has marked the view with. It `is_usual`
    if nobody is exempt on it, no rule on it is for a time only, and clients are charged by nothing
    but their address, user and tier. `on_path` and
    `view` are kept so that no others can come to have their identity.
    """

    on_path: Sequence[Rule]
    view: View | None
    route: str | None
    rules: RuleGroup
    is_usual: bool = False
    cost: int | None = None
    tariffs: dict[object, Tariff] = field(default_factory=dict)

    def remember(self, key: object, tariff: Tariff) -> None:
        """Remember a tariff; the key holds everything else that it depends on."""
        if len(self.tariffs) >= MOST_TARIFFS:
            self.tariffs.clear()
        self.tariffs[key] = tariff


Order: TypeAlias = tuple[Any, ...]
"""A plan without its detail: what the store is asked for every request alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Fare:
    """What one client is charged on one passage, as long as its user has the same `assignment`.

    That is None for a client without a user. `revisions` holds the token of the user's tier.
    """

    client: Client
    assignment: Assignment | None
    revisions: dict[str, str]
    bill: Bill
    order: Order


class PassageBook:
    """The passages that one snapshot has shown so far, and what clients paid on them.

    `fares` are by passage, address and rules that were charged, after authentication also by user
    and cost (`express`). None is usual if there are `special` clients, about whom more is to be
    found out than who they are.
    """

    def __init__(self, routes: RouteIndex, *, special: bool = False) -> None:
        self._routes = routes
        self._special = special
        self._passages: dict[object, Passage] = {}
        self.fares: dict[object, Fare] = {}

    def anew(self) -> PassageBook:
        """Return an empty book of the same routes and clients."""
        return PassageBook(self._routes, special=self._special)

    def unresolved(self, on_path: Sequence[Rule], method: str) -> Passage:
        """Return the passage of requests of which only the path is known."""
        key = id(on_path), method
        known = self._passages.get(key)
        if known is not None:
            return known
        group = RuleGroup.of(on_path)
        return self._remember(key, Passage(on_path, None, None, group, self._is_usual(group)))

    def resolved(
        self, on_path: Sequence[Rule], match: ResolverMatch, method: str, urlconf: Any
    ) -> Passage:
        """Return the passage to a view of a URLconf (None: the project's)."""
        # The map of the routes would tell the URLconf and the epoch, but takes longer to find.
        key = urlconf, routes_epoch(), id(on_path), id(match.func), method
        known = self._passages.get(key)
        if known is not None:
            return known
        route, on_view = self._routes.look_up(match, method, routes_of(urlconf))
        group = RuleGroup.of((*on_path, *on_view))
        marks = view_marks(match.func, method)
        is_usual = self._is_usual(group) and not marks.is_exempt
        passage = Passage(on_path, match.func, route, group, is_usual, marks.cost)
        return self._remember(key, passage)

    def remember_fare(self, key: object, fare: Fare) -> None:
        """Remember a fare; the key holds everything else that it depends on."""
        if len(self.fares) >= MOST_FARES:
            self.fares.clear()
        self.fares[key] = fare

    def _is_usual(self, group: RuleGroup) -> bool:
        special = any(rule.exempt or rule.identify_by is IdentifyBy.FIELD for rule in group.rules)
        return group.lasts and not (self._special or special)

    def _remember(self, key: object, passage: Passage) -> Passage:
        if len(self._passages) >= REMEMBERED:
            self._passages = {}
        self._passages[key] = passage
        return passage
