"""Print what a long soak finds: `python -m tests.soak --minutes 10`.

For leaks: `python -m tests.soak --recycle-every 0 --strangers 0.7 --addresses 8 --workers 2`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import django
from django.core.management import call_command

from tests.servers import SiteProcess, ValkeyProcess

SETTING = {"TRUSTED_PROXIES": ["127.0.0.1/32"], "STORE_TIMEOUT": 0.1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--addresses", type=int, default=60, help="of each client")
    parser.add_argument("--kill-every", type=float, default=45, help="seconds")
    parser.add_argument("--recycle-every", type=float, default=60, help="seconds; 0: never")
    parser.add_argument("--strangers", type=float, default=0, help="share of requests, 0 to 1")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        ValkeyProcess("appendonly yes", "appendfsync everysec") as store,
    ):
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "testproject.settings",
            "DATABASE_URL": f"sqlite:///{Path(directory) / 'soak.sqlite3'}",
            "REDIS_URL": store.url,
        }
        django.setup()
        call_command("migrate", verbosity=0)
        from tests.soak.soak import Plan, Soak  # noqa: PLC0415 - needs the settings

        with SiteProcess("gunicorn", workers=options.workers, ratelimit=SETTING) as site:
            plan = Plan(
                seconds=options.minutes * 60,
                clients=options.clients,
                addresses=options.addresses,
                kill_every=options.kill_every,
                recycle_every=options.recycle_every or None,
                strangers=options.strangers,
            )
            soak = Soak(plan, store, site)
            soak.run()
        report = soak.count()
    sys.stdout.write("\n".join(report.lines()) + "\n")
    wrong = report.failures + report.lost + report.doubled + report.edits_missed
    return 1 if wrong or report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
