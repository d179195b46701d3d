"""The URL patterns of a project one by one, with everything that they are included in."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import product
from typing import Any

from django.conf import settings
from django.urls import ResolverMatch, URLResolver
from django.urls.resolvers import LocalePrefixPattern, RegexPattern
from django.utils.functional import Promise
from django.utils.translation import override

from django_ratelimit_tiers.core.automata import Automaton, RoutePart, route_automaton
from django_ratelimit_tiers.policy.views import view_identity


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One URL pattern. `parts` are what its path is matched with, that of the outermost first.

    `match` is like the one that Django's resolver makes of it, without arguments.
    """

    parts: tuple[Any, ...]
    match: ResolverMatch
    view: Hashable

    @property
    def route(self) -> str:
        """The route as `ResolverMatch` has it, in the language that is active."""
        route = ""
        for part in map(str, self.parts):
            route = route + part.removeprefix("^") if route else part
        return route

    @property
    def instances(self) -> Iterator[tuple[str, ...]]:
        """The instances of applications that it is in, by their namespaces: the outermost first."""
        for depth in range(len(self.match.namespaces)):
            yield tuple(self.match.namespaces[: depth + 1])

    def names(self, instances: AbstractSet[tuple[str, ...]]) -> frozenset[str]:
        """Return what `reverse()` may call it among these instances.

        The name of an application stands for all of its instances, unless one has that very name.
        """
        match, spaces = self.match, []
        for instance, application in zip(self.instances, match.app_names, strict=True):
            is_taken = (*instance[:-1], application) in instances
            spaces.append({instance[-1]} if is_taken else {instance[-1], application})
        own = match.view_name.removeprefix(f"{match.namespace}:")
        return frozenset(":".join((*names, own)) for names in product(*spaces))

    @property
    def has_prefix(self) -> bool:
        """Whether the route begins differently in other languages."""
        return any(isinstance(part, LocalePrefixPattern) for part in self.parts)

    @property
    def is_translated(self) -> bool:
        """Whether text of the route is translated."""
        return any(map(_is_translated, self.parts))

    def automaton(self, languages: Sequence[str]) -> Automaton:
        """Return what accepts the paths of the route in any of the languages."""
        *outer, last = self.parts
        is_full_match = isinstance(last, RegexPattern) and last.regex.pattern.endswith("$")
        parts = [RoutePart(_expressions(part, languages)) for part in outer]
        parts.append(RoutePart(_expressions(last, languages), anywhere=not is_full_match))
        return route_automaton(parts, open_end=not is_full_match)


def url_leaves(
    resolver: URLResolver,
    parts: tuple[Any, ...] = (),
    spaces: tuple[tuple[str, str], ...] = (),
    within: frozenset[int] = frozenset(),
) -> Iterator[Leaf]:
    """Yield the URL patterns below a resolver in the order in which Django tries them.

    A URLconf that includes itself is entered once.
    """
    if id(resolver.url_patterns) in within:
        return
    within |= {id(resolver.url_patterns)}
    for item in resolver.url_patterns:
        path = (*parts, item.pattern)
        if isinstance(item, URLResolver):
            name, application = item.namespace, item.app_name
            inner = (*spaces, (name, application or name)) if name else spaces
            yield from url_leaves(item, path, inner, within)
        else:
            applications: list[str | None] = [application for _, application in spaces]
            names: list[str | None] = [name for name, _ in spaces]
            match = ResolverMatch(item.callback, (), {}, item.name, applications, names)
            yield Leaf(path, match, view_identity(item.callback))


def _expressions(part: Any, languages: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    if isinstance(part, LocalePrefixPattern):
        prefixes = (_prefix(part, code) for code in languages)
        return tuple(re.compile("^" + re.escape(prefix)) for prefix in prefixes)
    if not _is_translated(part):
        return (part.regex,)
    found = []
    for code in languages:
        with override(code):
            found.append(part.regex)
    return tuple(found)


def _prefix(part: LocalePrefixPattern, language: str) -> str:
    is_bare = language == settings.LANGUAGE_CODE and not part.prefix_default_language
    return "" if is_bare else f"{language}/"


def _is_translated(part: Any) -> bool:
    return isinstance(getattr(part, "_route", None) or getattr(part, "_regex", None), Promise)
