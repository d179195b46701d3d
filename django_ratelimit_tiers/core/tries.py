"""Many patterns as one trie, walked as an automaton that becomes deterministic while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from django_ratelimit_tiers.core.patterns import ANY, MAX_LENGTH, Pattern, path_segments

Answer = TypeVar("Answer")

MAX_NODES = 50_000
"""The most nodes of all positions kept at once: a bound on memory, some 20 MB, whatever paths are
asked for."""


@dataclass(slots=True, eq=False)
class Node:
    """What is left of the patterns after some segments.

    `ends` are the indexes of the patterns that end here. `rest` is the node of `**`: where this
    node is, that one is too, and it follows itself.
    """

    literals: dict[str, Node] = field(default_factory=dict)
    any: Node | None = None
    rest: Node | None = None
    ends: list[int] = field(default_factory=list)

    def grow(self, pattern: Pattern, index: int) -> None:
        """Add a pattern under its index."""
        node = self
        for segment in pattern.segments:
            if segment == ANY:
                node.any = node.any or Node()
                node = node.any
            else:
                node = node.literals.setdefault(segment, Node())
        if pattern.rest:
            node.rest = node.rest or _endless()
            node = node.rest
        node.ends.append(index)


def _endless() -> Node:
    node = Node()
    node.any = node
    return node


class Trie(Generic[Answer]):
    """Finds what belongs to all the patterns that a path matches.

    `answer` makes it from the indexes of these patterns, once for each set of them. The time for a
    path grows with the depth of the patterns, not with their number and not with the path.
    """

    def __init__(
        self, patterns: Iterable[Pattern], answer: Callable[[tuple[int, ...]], Answer]
    ) -> None:
        self.root = Node()
        self._depth = 0
        for index, pattern in enumerate(patterns):
            self.root.grow(pattern, index)
            self._depth = max(self._depth, len(pattern.segments))
        self._answer = answer
        self._nothing = answer(())
        self._positions: dict[frozenset[int], _Position[Answer]] = {}
        self._nodes = 0
        self._start = self._position([self.root])

    def find(self, path: str) -> Answer:
        """Return the answer for a path; no pattern matches one that does not start with a slash."""
        if not path.startswith("/"):
            return self._nothing
        segments = path_segments(path, self._depth)
        if len(path) > MAX_LENGTH:  # longer than any literal segment: hashing it tells nothing
            segments = [segment[:MAX_LENGTH] for segment in segments]
        position = self._start
        for segment in segments:
            position = position.after.get(segment) or self._follow(position, segment)
        return position.answer

    def _follow(self, position: _Position[Answer], segment: str) -> _Position[Answer]:
        if any(segment in literals for literals in position.literals):
            literals = (node.literals.get(segment) for node in position.nodes)
            following = self._position([*filter(None, literals), *_wild(position.nodes)])
            position.after[segment] = following
            return following
        if position.otherwise is None:
            position.otherwise = self._position(_wild(position.nodes))
        return position.otherwise

    def _position(self, nodes: list[Node]) -> _Position[Answer]:
        together = {id(node): node for node in nodes}
        together |= {id(node.rest): node.rest for node in nodes if node.rest}
        if self._nodes >= MAX_NODES:
            self._positions, self._nodes = {}, 0
            self._start.after = {}
            self._start.otherwise = None
        name = frozenset(together)
        if name not in self._positions:
            reached = tuple(together.values())
            ends = sorted(index for node in reached for index in node.ends)
            answer = self._answer(tuple(ends)) if ends else self._nothing
            literals = tuple(node.literals for node in reached if node.literals)
            self._positions[name] = _Position(reached, literals, answer)
            self._nodes += len(reached)
        return self._positions[name]


@dataclass(slots=True, eq=False)
class _Position(Generic[Answer]):
    """All the nodes where a path is at once, the answer if it ends here, and the ways on.

    `literals` are those of the nodes themselves: a copy for each position would fill the memory
    where many segments may follow many others.
    """

    nodes: tuple[Node, ...]
    literals: tuple[dict[str, Node], ...]
    answer: Answer
    after: dict[str, _Position[Answer]] = field(default_factory=dict)
    otherwise: _Position[Answer] | None = None


def _wild(nodes: Iterable[Node]) -> list[Node]:
    return [node.any for node in nodes if node.any]
