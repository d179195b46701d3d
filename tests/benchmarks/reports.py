"""What was measured, as tables in Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Table:
    """One table, with a sentence on what was measured."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that was aimed at, and the one that was measured; `unit` is written after both."""

    name: str
    measured: float
    most: float | None = None
    least: float | None = None
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the measured number is within what was aimed at."""
        within = self.most is None or self.measured <= self.most
        return within and (self.least is None or self.measured >= self.least)


@dataclass(slots=True)
class Report:
    """Everything that one run measured."""

    machine: dict[str, str]
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def table(self, name: str) -> Table | None:
        """Return the table with a title, None when its section did not run."""
        return next((table for table in self.tables if table.title == name), None)

    def markdown(self) -> str:
        """Return the report as a page."""
        parts = ["# Benchmarks", *(f"- {name}: {value}" for name, value in self.machine.items())]
        if self.goals:
            goals = [(goal.name, *_words(goal)) for goal in self.goals]
            parts += ["", "## Goals", "", _markdown(("", "goal", "measured", "met"), goals)]
        for table in self.tables:
            parts += ["", f"## {table.title}", "", table.about, ""]
            parts.append(_markdown(table.columns, table.rows))
        return "\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write the page and the numbers into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.md").write_text(self.markdown())
        (folder / "results.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def _words(goal: Goal) -> tuple[str, str, str]:
    aim = f"at most {goal.most:g}" if goal.most is not None else f"at least {goal.least:g}"
    measured = f"{_text(float(goal.measured))}{goal.unit}"
    return f"{aim}{goal.unit}", measured, "yes" if goal.is_met else "NO"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    numeric = [False, *(all(_is_number(row[i]) for row in rows) for i in range(1, len(columns)))]
    rule = [
        f"{'-' * (width - 1)}:" if n else "-" * width
        for width, n in zip(widths, numeric, strict=True)
    ]
    return "\n".join(
        "| "
        + " | ".join(
            _padded(cell, width, n) for cell, width, n in zip(line, widths, numeric, strict=True)
        )
        + " |"
        for line in [list(columns), rule, *lines]
    )


def _padded(cell: str, width: int, is_number: bool) -> str:
    return cell.rjust(width) if is_number else cell.ljust(width)


def _is_number(cell: Cell) -> bool:
    return not isinstance(cell, str)


def _text(cell: Cell) -> str:
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else cell
    return (
        f"{cell:,.2f}" if abs(cell) < 10 else f"{cell:,.1f}" if abs(cell) < 100 else f"{cell:,.0f}"
    )
