"""The routes of a URLconf, and which of its views a pattern reaches.

A pattern reaches a view when Django resolves one of the pattern's paths to it. For a pattern
without wildcards Django's resolver is asked; for one with wildcards the routes are compared with it
as regular expressions, without asking which of them comes first. A generic route, one with no text
of its own such as `<slug>/` or a catch-all, counts only when the pattern reaches no other route:
otherwise a limit on `/api/**` would be one on every page of a site that has such a fallback.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

from django.conf import settings
from django.urls import Resolver404, ResolverMatch, URLResolver
from django.utils.translation import override

from django_ratelimit_tiers.core.patterns import Pattern
from django_ratelimit_tiers.core.reach import Reach
from django_ratelimit_tiers.policy.leaves import Leaf, url_leaves
from django_ratelimit_tiers.policy.views import view_identity, view_paths

logger = logging.getLogger(__name__)

REMEMBERED_PATTERNS = 20_000
"""How many patterns' views are remembered for a URLconf."""

NOBODYS_WORD = "zqxjkvbw"
"""Text that no route has, unless it takes any text."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route of the project, as it is listed for staff to choose from."""

    route: str
    view_names: frozenset[str]
    view_path: str


class RouteMap:
    """All routes below one resolver, by the view that they lead to."""

    def __init__(self, resolver: URLResolver) -> None:
        self._resolver = resolver
        self._leaves = list(url_leaves(resolver))
        self._by_view: dict[Hashable, list[Leaf]] = defaultdict(list)
        for leaf in self._leaves:
            self._by_view[leaf.view].append(leaf)
        self._instances = {instance for leaf in self._leaves for instance in leaf.instances}
        with override(settings.LANGUAGE_CODE):
            self.endpoints = tuple(map(self._endpoint, self._leaves))
            self._first = {view: leaves[0].route for view, leaves in self._by_view.items()}
        self._remembered: dict[Pattern, frozenset[Hashable]] = {}

    def route(self, match: ResolverMatch) -> str:
        """Return the route that stands for a view: its first, in the site's own language."""
        return self._first.get(view_identity(match.func), match.route or "")

    def names(self, match: ResolverMatch) -> frozenset[str]:
        """Return every name that a rule may call a view by: its routes' names and its path."""
        leaves = self._by_view.get(view_identity(match.func), ())
        named = (leaf.names(self._instances) for leaf in leaves)
        return view_paths(match.func).union((match.view_name,), *named)

    def has_view(self, name: str) -> bool:
        """Return whether a rule may call any view by a name."""
        return any(
            name in endpoint.view_names or name in view_paths(leaf.match.func)
            for endpoint, leaf in zip(self.endpoints, self._leaves, strict=True)
        )

    def reached_views(self, pattern: Pattern) -> frozenset[Hashable]:
        """Return the identities of the views that a pattern reaches."""
        if pattern not in self._remembered:
            if len(self._remembered) >= REMEMBERED_PATTERNS:
                self._remembered = {}
            self._remembered[pattern] = self._reached_views(pattern)
        return self._remembered[pattern]

    def _endpoint(self, leaf: Leaf) -> Endpoint:
        names = leaf.names(self._instances)
        return Endpoint(leaf.route, names, min(view_paths(leaf.match.func)))

    def _reached_views(self, pattern: Pattern) -> frozenset[Hashable]:
        if pattern.is_literal:
            leaves = frozenset(self._resolved(pattern))
        else:
            leaves = self._all(self._reach.reached_by(pattern))
        return frozenset(leaf.view for leaf in (leaves - self._generic) or leaves)

    def _all(self, indexes: frozenset[int]) -> frozenset[Leaf]:
        return frozenset(self._leaves[index] for index in indexes)

    def _resolved(self, pattern: Pattern) -> Iterator[Leaf]:
        path = str(pattern)
        for language in self._languages_of(pattern):
            with override(language) if language else nullcontext():
                for spelling in {path, path.removesuffix("/") + "/"}:
                    if match := self._resolve(spelling):
                        yield self._leaf(match)

    def _resolve(self, path: str) -> ResolverMatch | None:
        try:
            return self._resolver.resolve(path)
        except Resolver404:
            return None
        except Exception:  # path converters are the project's own code
            logger.warning("no route is known for the rule path %r", path, exc_info=True)
            return None

    def _leaf(self, match: ResolverMatch) -> Leaf:
        """Return the leaf that matched, in the language in which it did."""
        view = view_identity(match.func)
        for leaf in self._by_view.get(view, ()):
            if leaf.route == match.route:
                return leaf
        return Leaf((match.route,), match, view)

    def _languages_of(self, pattern: Pattern) -> Sequence[str | None]:
        """Return the languages in which a path may resolve to different views."""
        if self._has_translations:
            return self._codes
        if self._has_prefixes:
            return [settings.LANGUAGE_CODE, *(set(pattern.segments[:1]) & set(self._codes))]
        return [None]

    @cached_property
    def _reach(self) -> Reach:
        codes = self._codes if self._has_prefixes or self._has_translations else []
        return Reach(leaf.automaton(codes) for leaf in self._leaves)

    @cached_property
    def _generic(self) -> frozenset[Leaf]:
        probes = (Pattern((NOBODYS_WORD,) * length) for length in range(1, 5))
        return self._all(frozenset().union(*map(self._reach.reached_by, probes)))

    @cached_property
    def _codes(self) -> list[str]:
        # The site's own is often a variant that is none of the others, as "en-us" is of "en".
        codes = (settings.LANGUAGE_CODE, *(code for code, _ in settings.LANGUAGES))
        return list(dict.fromkeys(codes))

    @cached_property
    def _has_prefixes(self) -> bool:
        return any(leaf.has_prefix for leaf in self._leaves)

    @cached_property
    def _has_translations(self) -> bool:
        return any(leaf.is_translated for leaf in self._leaves)
