"""Regular expressions of routes as automata, so that one can ask which paths they share.

An automaton accepts every path that its route matches, and sometimes more: look-around and back
references are taken to match anything, long counted repeats to match longer ones too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from re import _parser  # type: ignore[attr-defined]  # what re.compile itself reads patterns with
from typing import Any, TypeAlias

MAX_COPIES = 12
"""The most copies made of a repeated expression; one that is repeated more often may loop."""

MAX_STATES = 5_000
"""From this many states on, repeated expressions are no longer copied."""

ANYTHING = re.compile(r"(?s:.)")
"""Any one character."""

Label: TypeAlias = "str | re.Pattern[str]"
"""One character, or an expression for one character."""

Edges: TypeAlias = "list[tuple[Label, int]]"

# The parser's trees are pairs of an operator and operands of many shapes.
Tree: TypeAlias = "Iterable[tuple[Any, Any]]"


@dataclass(frozen=True, slots=True)
class RoutePart:
    """One part of a route, matched with what the parts before it left of the path.

    `expressions` are alternatives, one for each language. With `anywhere` the part may begin later
    than the rest of the path does, as with `re.search`.
    """

    expressions: tuple[re.Pattern[str], ...]
    anywhere: bool = True


@dataclass(frozen=True, slots=True)
class Automaton:
    """States and what each accepts next; from every one an accepting state can be reached.

    The start is state 0; without any state nothing is accepted.
    """

    edges: tuple[Edges, ...]
    accepting: frozenset[int]


def route_automaton(parts: Sequence[RoutePart], *, open_end: bool) -> Automaton:
    """Return the automaton of a route; with `open_end` more may follow the last part's match."""
    builder = _Builder()
    state = 0
    for part in parts:
        state = builder.part(state, part)
    if open_end:
        builder.loop(state, ANYTHING)
    return _without_marks(builder.edges, state)


class _Mark(Enum):
    """A way to the next state that takes no character; `CHECK` is a condition left unexamined."""

    SKIP = auto()
    CHECK = auto()
    PART = auto()
    BEGIN = auto()
    END = auto()


class _Builder:
    """Writes down automata as lists of edges, some of them marks."""

    def __init__(self) -> None:
        self.edges: list[list[tuple[Label | _Mark, int]]] = [[]]

    def part(self, state: int, part: RoutePart) -> int:
        return self._either([self._expression(state, part, one) for one in part.expressions])

    def _expression(self, state: int, part: RoutePart, expression: re.Pattern[str]) -> int:
        begin = self._after(state, _Mark.PART)
        tree = _parser.parse(expression.pattern, expression.flags)
        end = self._sequence(begin, tree, expression.flags)
        # A search ends at the first match: what is satisfied by nothing never looks further on.
        if part.anywhere and not self._is_skipped(begin, end):
            self.loop(begin, ANYTHING)
        return end

    def _is_skipped(self, begin: int, end: int) -> bool:
        seen = [begin]
        for state in seen:
            ways = (way for label, way in self.edges[state] if label is _Mark.SKIP)
            seen.extend(way for way in ways if way not in seen)
        return end in seen

    def loop(self, state: int, label: Label) -> None:
        self.edges[state].append((label, state))

    def _after(self, state: int, label: Label | _Mark = _Mark.SKIP) -> int:
        self.edges.append([])
        self.edges[state].append((label, len(self.edges) - 1))
        return len(self.edges) - 1

    def _either(self, ends: Sequence[int]) -> int:
        self.edges.append([])
        for end in ends:
            self.edges[end].append((_Mark.SKIP, len(self.edges) - 1))
        return len(self.edges) - 1

    def _sequence(self, state: int, tree: Tree, flags: int) -> int:
        for operator, operand in tree:
            state = self._item(state, operator.name, operand, flags)
        return state

    def _item(self, state: int, name: str, operand: Any, flags: int) -> int:
        match name:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return self._after(state, _label(name, operand, flags))
            case "SUBPATTERN":
                _, added, removed, tree = operand
                return self._sequence(state, tree, (flags | added) & ~removed)
            case "ATOMIC_GROUP":
                return self._sequence(state, operand, flags)
            case "BRANCH":
                return self._branches(state, operand[1], flags)
            case "GROUPREF_EXISTS":
                return self._branches(state, [operand[1], operand[2] or []], flags)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, tree = operand
                return self._repeat(state, least, most, tree, flags)
            case "AT":
                return self._after(state, _anchor(operand.name, flags))
            case "ASSERT" | "ASSERT_NOT":
                return self._after(state, _Mark.CHECK)
            case "FAILURE":
                return self._either([])
            case _:
                state = self._after(state, _Mark.CHECK)
                self.loop(state, ANYTHING)
                return state

    def _branches(self, state: int, trees: Iterable[Tree], flags: int) -> int:
        return self._either([self._sequence(self._after(state), tree, flags) for tree in trees])

    def _repeat(self, state: int, least: int, most: int, tree: Tree, flags: int) -> int:
        copies = MAX_COPIES if len(self.edges) < MAX_STATES else 0
        for _ in range(min(least, copies)):
            state = self._sequence(state, tree, flags)
        if most <= copies:
            ends = [state]
            for _ in range(most - least):
                ends.append(self._sequence(ends[-1], tree, flags))
            return self._either(ends)
        state = self._after(state)
        end = self._sequence(state, tree, flags)
        self.edges[end].append((_Mark.SKIP, state))
        return self._after(state)


def _label(name: str, operand: Any, flags: int) -> Label:
    if name == "ANY":
        source = "."
    elif name == "IN":
        source = f"[{''.join(map(_class_item, operand))}]"
    else:
        source = f"[{'^' * (name == 'NOT_LITERAL')}{_escape(operand)}]"
        letter = chr(operand)
        has_case = letter.lower() != letter.upper()
        if name == "LITERAL" and not (has_case and flags & re.IGNORECASE):
            return letter
    return re.compile(source, flags & (re.IGNORECASE | re.ASCII | re.DOTALL))


CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


def _class_item(item: tuple[Any, Any]) -> str:
    operator, operand = item
    match operator.name:
        case "NEGATE":
            return "^"
        case "RANGE":
            return f"{_escape(operand[0])}-{_escape(operand[1])}"
        case "CATEGORY":
            return CATEGORIES[operand.name]
        case _:
            return _escape(operand)


def _escape(code: int) -> str:
    return f"\\U{code:08x}"


def _anchor(name: str, flags: int) -> _Mark:
    if name.endswith("_STRING") or not flags & re.MULTILINE:
        if name.startswith("AT_BEGINNING"):
            return _Mark.BEGIN
        if name.startswith("AT_END"):
            return _Mark.END
    return _Mark.CHECK


@dataclass(frozen=True, slots=True)
class _Place:
    """A state, whether its part has taken no character yet, and whether no more may come."""

    state: int
    fresh: bool = False
    ended: bool = False


def _without_marks(edges: Sequence[Sequence[tuple[Label | _Mark, int]]], final: int) -> Automaton:
    """Follow all marks, and leave out every state from which the final one cannot be reached."""
    numbers = {_Place(0): 0}
    found: list[Edges] = []
    accepting = set()
    for place in (queue := [_Place(0)]):
        found.append([])
        for here in _closure(edges, place):
            if here.state == final:
                accepting.add(numbers[place])
            for label, state in edges[here.state]:
                if isinstance(label, _Mark) or here.ended:
                    continue
                there = _Place(state)
                if there not in numbers:
                    numbers[there] = len(queue)
                    queue.append(there)
                found[-1].append((label, numbers[there]))
    return _trimmed(found, accepting)


def _closure(
    edges: Sequence[Sequence[tuple[Label | _Mark, int]]], place: _Place
) -> Iterator[_Place]:
    """Yield the places that can be reached from one without taking a character."""
    seen = {place}
    for here in (queue := [place]):
        yield here
        for label, state in edges[here.state]:
            if not isinstance(label, _Mark) or (label is _Mark.BEGIN and not here.fresh):
                continue
            fresh = here.fresh or label is _Mark.PART
            there = _Place(state, fresh, here.ended or label is _Mark.END)
            if there not in seen:
                seen.add(there)
                queue.append(there)


def _trimmed(edges: list[Edges], accepting: set[int]) -> Automaton:
    before: list[list[int]] = [[] for _ in edges]
    for state, ways in enumerate(edges):
        for _, following in ways:
            before[following].append(state)
    useful = set(accepting)
    for state in (queue := list(accepting)):
        new = [earlier for earlier in before[state] if earlier not in useful]
        useful.update(new)
        queue.extend(dict.fromkeys(new))
    if 0 not in useful:
        return Automaton((), frozenset())
    kept = sorted(useful)
    numbers = {state: number for number, state in enumerate(kept)}
    return Automaton(
        tuple(
            [(label, numbers[end]) for label, end in edges[state] if end in useful]
            for state in kept
        ),
        frozenset(numbers[state] for state in accepting),
    )
