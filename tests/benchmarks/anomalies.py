"""Score the spike detector on labelled series, made up and real.

    python -m tests.benchmarks.anomalies [--seeds N] [--data DIR] [--sweep] [--markdown FILE]

Prints recall, false alarms a day and delay; docs/anomalies.md says how they are counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from django_ratelimit_tiers.core import spikes
from django_ratelimit_tiers.core.alarms import Alarm, Change, advance
from django_ratelimit_tiers.core.alerts import Sensitivity
from django_ratelimit_tiers.core.series import History, rolled_up
from django_ratelimit_tiers.core.spikes import spike
from django_ratelimit_tiers.core.verdicts import MINUTE
from tests.benchmarks.synthetic_series import (
    DAY,
    FAMILIES,
    TIMES,
    UNCLEAR,
    LabelledSeries,
    Window,
    cold_series,
    labelled_series,
)

MINIMUM = 20
IN_TIME = 5
"""Minutes within which a clear attack has to be found."""

SWEPT: dict[str, Sequence[float]] = {
    "RECENT": (60, 240),
    "SHARE": (0.1, 0.3),
    "HABIT_HOURS": (24, 168),
    "HABIT_RANK": (2, 8),
    "LEAP_MARGIN": (1.2, 1.6),
    "PEAK_MARGIN": (1.0, 1.5),
    "DAYS": (3, 7),
}
"""Constants of the detector and the values that the sweep gives them, one at a time."""

ROUTINE = 0.99
"""The share of the minutes of a real day that a clear peak must be twice above."""

NEAR = 3
"""Minutes around the middle of a real window, NAB's own point, in which its peak is looked for."""


@dataclass(slots=True)
class Score:
    """What was found in one or several series."""

    name: str
    series: int = 0
    days: float = 0.0
    clear: int = 0
    found: int = 0
    delays: list[int] = field(default_factory=list)
    false_alarms: int = 0
    worst: float = 0.0
    calls: int = 0
    seconds: float = 0.0
    unclear: int = 0
    unclear_found: int = 0
    elsewhere: list[str] = field(default_factory=list)

    def add(self, other: Score) -> None:
        """Take another score into this one."""
        self.series += other.series
        self.days += other.days
        self.clear += other.clear
        self.found += other.found
        self.false_alarms += other.false_alarms
        self.calls += other.calls
        self.seconds += other.seconds
        self.unclear += other.unclear
        self.unclear_found += other.unclear_found
        self.delays += other.delays
        self.worst = max(self.worst, other.worst)

    @property
    def row(self) -> list[str]:
        """The score as the cells of a table."""
        late = max(self.delays, default=0)
        return [
            self.name,
            f"{self.series} / {self.days:.0f}",
            f"{self.found} of {self.clear}",
            f"{100 * self.found / self.clear:.1f} %" if self.clear else "-",
            f"{statistics.mean(self.delays):.2f} / {late}" if self.delays else "-",
            f"{self.false_alarms / self.days:.3f}",
            f"{self.worst:.2f}",
            f"{self.unclear_found} of {self.unclear}" if self.unclear else "-",
        ]


HEADER = [
    "series",
    "number / days",
    "clear attacks found",
    f"recall in {IN_TIME} min",
    "delay mean / worst, min",
    "false alarms a day",
    "worst series",
    "other windows alarmed",
]


def openings(
    series: LabelledSeries, sensitivity: Sensitivity
) -> tuple[list[int], list[int], Score]:
    """Run a series minute by minute as the task does.

    Return when alarms opened or opened again, when new ones opened, and what it cost.
    """
    counts = dict(enumerate(series.counts))
    hours = rolled_up(counts, since=0, until=len(counts), unknown=series.unknown)
    history = History(since=0, minutes=counts, hours=hours, unknown=series.unknown)
    score = Score(series.family, series=1, days=series.days)
    alarm: Alarm | None = None
    found, alarms = [], []
    begun = time.perf_counter()
    for minute, count in counts.items():
        if alarm is None and count < MINIMUM:
            continue
        step = advance(alarm, spike(history, minute, sensitivity, MINIMUM))
        alarm = step.alarm
        score.calls += 1
        if step.change in (Change.OPENED, Change.REOPENED):
            found.append(minute)
        if step.change is Change.OPENED:
            alarms.append(minute)
    score.seconds = time.perf_counter() - begun
    return found, alarms, score


def scored(series: LabelledSeries, sensitivity: Sensitivity) -> Score:
    """Score one series: an opening in a window finds it, one outside is a false alarm."""
    opened, alarms, score = openings(series, sensitivity)
    for window in series.windows:
        hits = [minute for minute in opened if window.start <= minute < window.end]
        if window.kind == UNCLEAR:
            score.unclear += 1
            score.unclear_found += bool(hits)
            continue
        score.clear += 1
        if hits:
            delay = max(0, hits[0] - window.clear_at)
            score.found += delay < IN_TIME
            score.delays.append(delay)
    outside = [m for m in alarms if not any(w.start <= m < w.end for w in series.windows)]
    score.false_alarms = len(outside)
    score.worst = score.false_alarms / max(score.days, 1)
    score.elsewhere = [f"{minute} ({series.counts[minute]:,})" for minute in outside]
    return score


def synthetic(seeds: int, sensitivity: Sensitivity) -> list[Score]:
    """Score every family over so many seeds, and all of them together."""
    total, scores = Score("all"), []
    for family in FAMILIES:
        score = Score(family)
        for seed in range(seeds):
            score.add(scored(labelled_series(family, seed, MINIMUM), sensitivity))
        scores.append(score)
    cold = Score("cold start")
    for family in FAMILIES:
        for seed in range(seeds):
            cold.add(scored(cold_series(family, seed, MINIMUM), sensitivity))
    scores.append(cold)
    for score in scores:
        total.add(score)
    return [*scores, total]


def real(folder: Path, sensitivity: Sensitivity) -> list[Score]:
    """Score the series of a folder with CSV files and a labels.json."""
    labels = json.loads((folder / "labels.json").read_text())
    scores = []
    for name in sorted(labels):
        score = scored(_read(folder / f"{name}.csv", labels[name]["windows"]), sensitivity)
        scores.append(score)
    total = Score("all")
    for score in scores:
        total.add(score)
    return [*scores, total]


def _read(path: Path, labels: Iterable[dict[str, int]]) -> LabelledSeries:
    """Read a real series; of its wide windows only those with a clear peak are to be found."""
    with path.open(newline="") as lines:
        rows = [(int(row["timestamp"]), int(row["count"])) for row in csv.DictReader(lines)]
    first = rows[0][0]
    counts = [0] * ((rows[-1][0] - first) // MINUTE + 1)
    for timestamp, count in rows:
        counts[(timestamp - first) // MINUTE] = count
    series = LabelledSeries(path.stem, counts)
    for label in labels:
        start, end = ((label[edge] - first) // MINUTE for edge in ("start", "end"))
        middle = (start + end) // 2
        peak_at = max(range(middle - NEAR, middle + NEAR + 1), key=counts.__getitem__)
        kind = "peak" if _is_clear(counts, peak_at) else UNCLEAR
        series.windows.append(Window(kind, start, end + 1, peak_at))
    return series


def _is_clear(counts: Sequence[int], peak_at: int) -> bool:
    """Whether a peak stands out of the day before it as the made-up attacks do."""
    before = sorted(counts[max(0, peak_at - DAY) : peak_at])
    usual, routine_peak = before[len(before) // 2], before[int(ROUTINE * len(before))]
    return counts[peak_at] >= max(TIMES * usual, 2 * routine_peak, MINIMUM)


def table(scores: Iterable[Score]) -> str:
    """Return the scores as a Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *(score.row for score in scores)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def sweep(seeds: int, folder: Path | None) -> str:
    """Return one line for each sensitivity and each changed constant."""
    lines: list[str] = [
        "| changed | made up: recall | false alarms a day | real: recall | false alarms a day |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_sweep_line(f"sensitivity {s}", seeds, folder, s) for s in Sensitivity]
    for name, values in SWEPT.items():
        usual = getattr(spikes, name)
        for value in values:
            setattr(spikes, name, value)
            lines.append(_sweep_line(f"{name} {value} (is {usual})", seeds, folder))
        setattr(spikes, name, usual)
    return "\n".join(lines) + "\n"


def _sweep_line(
    changed: str, seeds: int, folder: Path | None, sensitivity: Sensitivity = Sensitivity.NORMAL
) -> str:
    """Score both sets once and return their totals as one line."""
    cells = [changed]
    totals = [synthetic(seeds, sensitivity)[-1]]
    if folder is not None:
        totals.append(real(folder, sensitivity)[-1])
    for total in totals:
        cells += [f"{total.found} of {total.clear}", f"{total.false_alarms / total.days:.2f}"]
    return "| " + " | ".join(cells) + " |"


def report(seeds: int, folder: Path | None, *, with_sweep: bool) -> str:
    """Return everything this benchmark measures as Markdown."""
    made_up = synthetic(seeds, Sensitivity.NORMAL)
    total = made_up[-1]
    parts = [f"Made-up series, {seeds} seeds a family, minimum {MINIMUM}, normal sensitivity:\n"]
    parts.append(table(made_up))
    parts.append(f"{total.calls:,} verdicts, {total.seconds / total.calls * 1e6:.0f} us each.\n")
    if folder is not None:
        scores = real(folder, Sensitivity.NORMAL)
        parts += ["Real series (each row a minute):\n", table(scores)]
        parts.append("Alarms outside labelled windows, as minute (count):\n")
        parts += [f"- {s.name}: {', '.join(s.elsewhere) or 'none'}" for s in scores[:-1]]
        parts.append("")
    if with_sweep:
        parts += ["Sweep:\n", sweep(max(1, seeds // 4), folder)]
    return "\n".join(parts)


def main() -> None:
    """Print the report, and write it where asked to."""
    parser = argparse.ArgumentParser(description="Score the spike detector on labelled series.")
    parser.add_argument("--seeds", type=int, default=20, help="series of each made-up family")
    parser.add_argument("--data", type=Path, help="a folder of real series, with a labels.json")
    parser.add_argument("--sweep", action="store_true", help="vary sensitivity and constants")
    parser.add_argument("--markdown", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    text = report(options.seeds, options.data, with_sweep=options.sweep)
    sys.stdout.write(text)
    if options.markdown is not None:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
