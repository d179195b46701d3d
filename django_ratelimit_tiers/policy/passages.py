"""What requests have in common that come to one view: worked out once, then kept with a snapshot.

A warm request finds the rules on it and its tariff here, by one look each. Whatever depends on more
than path, view, method, tier and cost is worked out for the one request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from django.urls import Resolver404, ResolverMatch

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.rulesets import RuleSet
from django_ratelimit_tiers.policy.assignments import Assignment
from django_ratelimit_tiers.policy.identity import Client
from django_ratelimit_tiers.policy.routes import EPOCH, RouteIndex, resolution, routes_of
from django_ratelimit_tiers.policy.tariffs import Bill, RuleGroup, Tariff
from django_ratelimit_tiers.policy.views import View, steady_view, view_marks

REMEMBERED = 10_000
"""How many passages one snapshot remembers."""

MOST_PATHS, LONGEST_REMEMBERED = 2000, 200
"""How many paths with their rules, and of how many characters, one snapshot remembers."""

MOST_FARES = 4096
"""How many fares one snapshot remembers, each in about two kilobytes."""

MOST_TARIFFS = 1000
"""How many tariffs one passage remembers."""


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """The way of one method to one view, among the same rules by path.

    `rules` are those by path and on the view. Where nothing was resolved there is no `view`, and no
    `route` that stands for it. A decorator may have marked the view with a `cost`, or as exempt
    (`is_exempt`); it `is_usual` if neither that nor a rule exempts anybody. `phases` has the same
    passage for each time between two `turns` of its rules. `on_path` and `view` are kept because a
    passage is found by their `id()`, which nothing else may come to have.
    """

    on_path: tuple[Rule, ...]
    view: View | None
    route: str | None
    rules: RuleGroup
    is_exempt: bool = False
    cost: int | None = None
    tariffs: dict[object, Tariff] = field(default_factory=dict)
    phases: dict[int, Passage] = field(default_factory=dict)
    is_usual: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_usual", not (self.is_exempt or self.rules.exempts))

    def at(self, now: float) -> Passage:
        """Return the passage among those of its rules that are active at a time (epoch seconds)."""
        turns = self.rules.turns
        if not turns:
            return self
        number = bisect_right(turns, now)
        phase = self.phases.get(number)
        if phase is None:
            rules = self.rules.active(now)
            phase = Passage(self.on_path, self.view, self.route, rules, self.is_exempt, self.cost)
            self.phases[number] = phase
        return phase

    def remember(self, key: object, tariff: Tariff) -> None:
        """Remember a tariff; the key holds everything else that it depends on."""
        if len(self.tariffs) >= MOST_TARIFFS:
            self.tariffs.clear()
        self.tariffs[key] = tariff


@dataclass(frozen=True, slots=True, eq=False)
class Fare:
    """What one client is charged on one passage, as long as its `assignments` hold.

    `revisions` has the tokens of their subjects. The `plan` asks the store for the bill.
    """

    client: Client
    assignments: tuple[Assignment, ...]
    revisions: dict[str, str]
    bill: Bill
    plan: Plan


class PassageBook:
    """The passages that one snapshot has shown so far, and what clients paid on them.

    Among the rules on a preflight are only those that name its method. `fares` are by passage,
    stage, address and rules that were charged, after authentication also by user, key, tier and
    cost (`express`).
    """

    def __init__(self, rules: RuleSet, routes: RouteIndex) -> None:
        self._rules, self._routes = rules, routes
        self._at_door: dict[object, Passage] = {}
        self._passages: dict[object, Passage] = {}
        self._foreseen: dict[object, Passage | None] = {}
        self.fares: dict[object, Fare] = {}

    def anew(self) -> PassageBook:
        """Return an empty book of the same rules and routes."""
        return PassageBook(self._rules, self._routes)

    def at_door(self, path: str, method: str, *, preflight: bool = False) -> Passage:
        """Return the passage of requests to a path, of which nothing else is known yet."""
        key = path, method, preflight
        known = self._at_door.get(key)
        if known is not None:
            return known
        found = self.unresolved(self._rules.match(method, path), method, preflight=preflight)
        if len(path) <= LONGEST_REMEMBERED:
            if len(self._at_door) >= MOST_PATHS:
                self._at_door = {}
            self._at_door[key] = found
        return found

    def unresolved(
        self, on_path: tuple[Rule, ...], method: str, *, preflight: bool = False
    ) -> Passage:
        """Return the passage of requests to paths with these rules, before they are resolved."""
        key = id(on_path), method, preflight
        known = self._passages.get(key)
        if known is not None:
            return known
        return self._remember(key, Passage(on_path, None, None, _group(on_path, preflight)))

    def resolved(
        self,
        on_path: tuple[Rule, ...],
        match: ResolverMatch,
        method: str,
        urlconf: Any,
        *,
        preflight: bool = False,
    ) -> Passage:
        """Return the passage to a view of a URLconf (None: the project's)."""
        view = match.func
        if type(view) is not FunctionType:  # nearly all are, and need no call
            view = steady_view(view)
        # The map of the routes would tell the URLconf and the epoch, but takes longer to find.
        key = urlconf, EPOCH.number, id(on_path), id(view), method, preflight
        known = self._passages.get(key)
        if known is not None:
            return known
        route, on_view = self._routes.look_up(match, method, routes_of(urlconf))
        group, marks = _group((*on_path, *on_view), preflight), view_marks(view, method)
        passage = Passage(on_path, view, route, group, marks.is_exempt, marks.cost)
        return self._remember(key, passage)

    def foreseen(
        self, path: str, method: str, urlconf: Any, *, preflight: bool = False
    ) -> Passage | None:
        """Return the passage that Django is going to resolve a path to, None if it is to no view.

        Where a converter of the project fails, that is not remembered.
        """
        key = urlconf, EPOCH.number, path, method, preflight
        if key in self._foreseen:
            return self._foreseen[key]
        try:
            match = resolution(path, urlconf)
        except Resolver404:
            found = None
        except Exception:  # a converter may need what later middleware sets
            return None
        else:
            found = self.resolved((), match, method, urlconf, preflight=preflight)
        if len(path) <= LONGEST_REMEMBERED:
            if len(self._foreseen) >= REMEMBERED:
                self._foreseen = {}
            self._foreseen[key] = found
        return found

    def remember_fare(self, key: object, fare: Fare) -> None:
        """Remember a fare; the key holds everything else that it depends on.

        One that depends on the body of a request is not remembered.
        """
        if fare.bill.tariff.reads_body:
            return
        if len(self.fares) >= MOST_FARES:
            self.fares.clear()
        self.fares[key] = fare

    def _remember(self, key: object, passage: Passage) -> Passage:
        if len(self._passages) >= REMEMBERED:
            self._passages = {}
        self._passages[key] = passage
        return passage


def _group(rules: Iterable[Rule], preflight: bool) -> RuleGroup:
    return RuleGroup.of(rule for rule in rules if not preflight or "OPTIONS" in rule.methods)
