"""Which routes a pattern reaches: those that match at least one path that the pattern covers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django_ratelimit_tiers.core.automata import Automaton, Edges, Label
from django_ratelimit_tiers.core.patterns import ANY, Pattern


class Reach:
    """All routes side by side, asked at once for those that a pattern reaches.

    Routes are known by their index.
    """

    def __init__(self, routes: Iterable[Automaton]) -> None:
        self._edges: list[Edges] = []
        self._owners: list[int] = []
        self._accepting: set[int] = set()
        self._starts: set[int] = set()
        for index, route in enumerate(routes):
            self._add(index, route)

    def reached_by(self, pattern: Pattern) -> frozenset[int]:
        """Return the routes of all paths that a pattern covers, with and without a last slash."""
        filled: set[int] = set()
        after_slash = self._starts
        for segment in pattern.segments:
            if segment == ANY:
                filled = self._fill(after_slash)
                after_slash = self._step(filled | after_slash, "/")
            else:
                spelled = self._spell(after_slash, segment)
                filled = spelled if segment else set()
                after_slash = self._step(spelled, "/")
        ended = (filled | after_slash) & self._accepting
        return frozenset(
            self._owners[state] for state in (ended | after_slash if pattern.rest else ended)
        )

    def _add(self, index: int, route: Automaton) -> None:
        first = len(self._edges)
        if route.edges:
            self._starts.add(first)
        for ways in route.edges:
            self._edges.append([(label, first + end) for label, end in ways])
            self._owners.append(index)
        self._accepting.update(first + state for state in route.accepting)

    def _step(self, states: Iterable[int], character: str) -> set[int]:
        return {
            end for state in states for label, end in self._edges[state] if _takes(label, character)
        }

    def _spell(self, states: set[int], text: str) -> set[int]:
        for character in text:
            states = self._step(states, character)
        return states

    def _fill(self, states: Iterable[int]) -> set[int]:
        """Return the states after one or more characters that are not slashes."""
        filled: set[int] = set()
        new = set(states)
        while new:
            ways = (way for state in new for way in self._edges[state])
            new = {end for label, end in ways if label != "/"} - filled
            filled |= new
        return filled


def _takes(label: Label, character: str) -> bool:
    if isinstance(label, re.Pattern):
        return label.fullmatch(character) is not None
    return label == character
