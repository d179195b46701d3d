"""What every section of the benchmarks is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.reports import Report
from tests.benchmarks.rounds import Burst, Timing, race
from tests.servers import ValkeyProcess


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: its server, its report, and how long it may take."""

    valkey: ValkeyProcess
    database_url: str
    report: Report
    quick: bool

    def race(self, contenders: Mapping[str, Burst], *, burst: int = 40) -> dict[str, Timing]:
        """Let contenders take turns for as long as this run has for each of them."""
        return race(contenders, rounds=12 if self.quick else 150, burst=burst)

    def choose(self, quick: int, full: int) -> int:
        """Return the number for this kind of run."""
        return quick if self.quick else full
