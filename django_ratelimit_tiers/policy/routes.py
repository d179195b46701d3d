"""Which rules cover a request, by the view that Django resolved it to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.urls import ResolverMatch, URLResolver, get_resolver, get_urlconf, resolve
from django.utils.translation import get_language_from_path, override

from django_ratelimit_tiers.core.patterns import parse_pattern
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.rulesets import RulesByMethod
from django_ratelimit_tiers.policy.routemaps import RouteMap
from django_ratelimit_tiers.policy.views import steady_view, view_identity

REMEMBERED_VIEWS = 10_000
"""How many views' rules are remembered by one index."""

MOST_MAPS = 1024
"""How many URLconfs' maps are kept: more than sites have hosts with routes of their own. A map that
is made anew takes long, and what is remembered of views keeps the one that was lost."""

SETTINGS_OF_ROUTES = frozenset(("ROOT_URLCONF", "LANGUAGES", "LANGUAGE_CODE", "USE_I18N"))


class Epoch:
    """How often settings have changed that the routes depend on, as in tests."""

    number = 0


EPOCH = Epoch()


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a callable; it is kept, so that no other one can come to have its id."""

    callback: object
    route: str
    rules: RulesByMethod


class RouteIndex:
    """Finds the rules on a view, by whatever route and spelling a request came to it.

    A rule by view name names the view by any of its routes' names or by its dotted path. A rule by
    path is on every view that its pattern reaches. Raises ValueError for a path that is none.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [(rule, parse_pattern(rule.path) if rule.path else None) for rule in rules]
        self._known: dict[tuple[RouteMap, int], _Known] = {}

    def look_up(
        self, match: ResolverMatch, method: str, routes: RouteMap
    ) -> tuple[str, tuple[Rule, ...]]:
        """Return the route that stands for the view of a match, and the rules on that view.

        The route is the first of the view's in the URLconf, in the site's own language, whichever
        it was reached by; the rules are in the order in which they were given.
        """
        known = self._on(match, routes)
        return known.route, known.rules.named.get(method, known.rules.others)

    def _on(self, match: ResolverMatch, routes: RouteMap) -> _Known:
        view = steady_view(match.func)
        key = routes, id(view)
        known = self._known.get(key)
        if known is None:
            rules = RulesByMethod(list(self._rules_on(match, routes)))
            known = _Known(view, routes.route(match), rules)
            if len(self._known) >= REMEMBERED_VIEWS:
                self._known = {}
            self._known[key] = known
        return known

    def _rules_on(self, match: ResolverMatch, routes: RouteMap) -> Iterator[Rule]:
        names, view = routes.names(match), view_identity(match.func)
        for rule, pattern in self._rules:
            if view in routes.reached_views(pattern) if pattern else rule.view_name in names:
                yield rule


def route_map() -> RouteMap:
    """Return the map of the routes in force, those of `request.urlconf` while it is handled."""
    return routes_of(get_urlconf())


def routes_of(urlconf: Any) -> RouteMap:
    """Return the map of the routes of a URLconf (None: the project's)."""
    return _route_map(get_resolver(urlconf))


def resolution(path: str, urlconf: Any = None) -> ResolverMatch:
    """Return what Django is going to resolve a path to, before middleware has chosen a language.

    The path tells it, or it is the site's own; one that another request has left behind does not
    count. Raises Resolver404, and what a converter of the project raises.
    """
    with override(get_language_from_path(path) or settings.LANGUAGE_CODE):
        return resolve(path, urlconf=urlconf)


@lru_cache(maxsize=MOST_MAPS)
def _route_map(resolver: URLResolver) -> RouteMap:
    return RouteMap(resolver)


@receiver(setting_changed)
def _forget_routes(*, setting: str, **_: Any) -> None:
    if setting in SETTINGS_OF_ROUTES:
        _route_map.cache_clear()
        EPOCH.number += 1
