"""Measure this app beside its peers: `make bench`, or `make bench QUICK=1` for under a minute.

A private Valkey is started and an SQLite file created, both removed at the end. The report goes to
the terminal and, with a chart and the numbers as JSON, into a folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import django

from tests.benchmarks.bench import Bench
from tests.benchmarks.charts import chart
from tests.benchmarks.machine import machine
from tests.benchmarks.reports import Report
from tests.servers import ValkeyProcess

SECTIONS = (
    "decisions",
    "whole_requests",
    "features",
    "rule_counts",
    "event_loop",
    "server_side",
    "imports",
    "end_to_end",
)
"""Modules with a function `measure`; they are imported once Django's settings are complete."""


def main() -> None:
    """Run the chosen sections and write the report."""
    options = _options()
    with ValkeyProcess() as valkey, tempfile.TemporaryDirectory(prefix="rlt-") as folder:
        database_url = f"sqlite:///{folder}/bench.sqlite3"
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database_url,
        }
        with valkey.client() as client:
            report = Report(machine(client))
        django.setup()
        bench = Bench(valkey, database_url, report, options.quick)
        import_module("tests.benchmarks.site").create_site()
        for name in options.sections:
            begin = time.monotonic()
            import_module(f"tests.benchmarks.{name}").measure(bench)
            sys.stderr.write(f"{name}: {time.monotonic() - begin:.1f} s\n")
            report.write(options.output)  # each time: an interrupted run keeps what it has
            (options.output / "results.svg").write_text(chart(report))
    sys.stdout.write(report.markdown())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: for a first impression")
    folder = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=folder, help="where the results go")
    parser.add_argument("sections", nargs="*", default=SECTIONS, metavar="section")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}: choose from {', '.join(SECTIONS)}")
    return options


if __name__ == "__main__":
    main()
