"""What the demo writes, for a terminal as well as for a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

BAR = 30


@dataclass(slots=True)
class Screen:
    """Writes lines; progress moves in place on a terminal and is one line a step elsewhere."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    failures: list[str] = field(default_factory=list)

    @property
    def is_live(self) -> bool:
        """Whether a line can be written over."""
        return self.out.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def title(self, text: str) -> None:
        """Begin a part of the demo."""
        self.line(f"\n{text}\n{'-' * len(text)}")

    def line(self, text: str = "") -> None:
        """Write a line at once."""
        self.out.write(text + "\n")
        self.out.flush()

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a step is; done when the numbers are equal."""
        finished = done >= total
        if self.is_live:
            bar = "#" * (BAR * min(done, total) // max(1, total))
            self.out.write(f"\r  {label:<44} [{bar:<{BAR}}] {done:>4}")
            self.out.write("\n" if finished else "")
            self.out.flush()
        elif finished:
            self.line(f"  {label:<44} {done:>4} requests")

    def promise(self, words: str, held: bool, found: str = "") -> None:
        """Say whether something that must hold does, and remember it if it does not."""
        if held:
            self.line(f"  ok      {words}")
            return
        self.failures.append(words)
        self.line(f"  FAILED  {words}")
        if found:
            self.line(f"          found: {found}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table; columns of numbers are right-aligned."""
        lines = [list(head), *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        numeric = [all(isinstance(row[column], int) for row in rows) for column in range(len(head))]
        for number, line in enumerate(lines):
            cells = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ]
            self.line("  " + "  ".join(cells).rstrip())
            if number == 0:
                self.line("  " + "  ".join("-" * width for width in widths))
