"""Count the instructions of the server for one decision: the same whatever the machine does.

`python -m tests.benchmarks.instructions` needs valgrind, and takes a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import django

from tests.benchmarks.floor import Floor
from tests.servers import ValkeyProcess

CALLS, WARM = 500, 1000

LINE = re.compile(r"^ *([\d,]+) \(.*?\) +(.*)$", re.MULTILINE)
"""Instructions and the function, as callgrind_annotate writes them."""

WAITING = "epoll_wait"
"""Where the server is when counting begins: the number for it means nothing."""


class CountedValkey(ValkeyProcess):
    """A Valkey under callgrind, which counts while it is told to."""

    def _command(self) -> Sequence[str]:
        counts = f"--callgrind-out-file={self.directory / 'counts'}"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", counts]
        return [*valgrind, *super()._command()]

    def count(self, run: Callable[[int], object]) -> int:
        """Return the instructions for each call."""
        for number in range(WARM):
            run(number)
        before = set(self._counts())
        self._control("--instr=on")
        for number in range(CALLS):
            run(number)
        self._control("--dump")
        self._control("--instr=off")
        return max(map(_instructions, set(self._counts()) - before)) // CALLS

    def _counts(self) -> list[Path]:
        return list(self.directory.glob("counts*"))

    def _control(self, what: str) -> None:
        command = ["callgrind_control", what, str(self.pid)]
        subprocess.run(command, check=True, capture_output=True)
        time.sleep(0.5)


def _instructions(counts: Path) -> int:
    command = ["callgrind_annotate", "--threshold=100", str(counts)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions = (found for found in LINE.findall(text) if "TOTALS" not in found[1])
    return sum(int(n.replace(",", "")) for n, function in functions if WAITING not in function)


def main() -> None:
    """Print a table."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (apt-get install valgrind)")
    os.environ |= {"DJANGO_SETTINGS_MODULE": "testproject.settings"}
    django.setup()
    of_this_app = import_module("tests.benchmarks.decisions")  # once there are settings
    with CountedValkey() as server:
        floor = Floor(server.url)
        rows = {"floor F": server.count(lambda number: floor.hit(str(number % WARM)))}
        for policies in range(1, len(of_this_app.POLICIES) + 1):
            store = of_this_app.RedisStore(url=server.url, timeout=60)
            decisions = of_this_app.Decisions(store, policies)
            rows[f"{policies} policies"] = server.count(_decide(decisions))
    for name, count in rows.items():
        sys.stdout.write(f"{name:<12}{count:>9,}\n")


def _decide(decisions: Any) -> Callable[[int], object]:
    return lambda number: decisions.store.execute(decisions.asked(number))


if __name__ == "__main__":
    main()
