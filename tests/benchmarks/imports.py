"""What importing the middleware costs a project that uses neither Celery nor the REST framework."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.benchmarks.bench import Bench
from tests.benchmarks.reports import Goal, Table

UNNEEDED = ("celery", "rest_framework", "redis", "django_redis")

PROGRAM = """
import json, sys, time
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", *sys.argv[1:]],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
begin = time.perf_counter()
django.setup()
if sys.argv[1:]:
    import django_ratelimit_tiers.middleware
taken = time.perf_counter() - begin
tops = {name.partition(".")[0] for name in sys.modules}
own = [name for name in sys.modules if name.startswith("django_ratelimit_tiers")]
print(json.dumps([taken, len(sys.modules), len(own), sorted(tops)]))
"""


def measure(bench: Bench) -> None:
    """Add the table of start-up, and the goal that nothing unneeded is imported."""
    rows, loaded = [], set()
    for name, apps in {
        "Django alone": (),
        "with the middleware": ("django_ratelimit_tiers",),
    }.items():
        runs = [_run(*apps) for _ in range(bench.choose(3, 15))]
        taken, modules, own, tops = min(runs)
        loaded = set(tops) & set(UNNEEDED)
        rows.append((name, taken * 1000, modules, own, ", ".join(sorted(loaded)) or "none"))
    bench.report.tables.append(
        Table(
            "Import",
            "`django.setup()` with users and permissions, then the middleware: the best of some "
            f"processes. Looked for are {', '.join(UNNEEDED)}.",
            ("", "ms", "modules", "of this app", "unneeded ones"),
            rows,
        )
    )
    bench.report.goals.append(Goal("unneeded imports of the middleware", len(loaded), most=0))


def _run(*apps: str) -> tuple[float, int, int, list[str]]:
    command = [sys.executable, "-c", PROGRAM, *apps]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    taken, modules, own, tops = json.loads(done.stdout)
    return taken, modules, own, tops
