"""Real servers under load: throughput as a share of the same site without a limiter."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from tempfile import NamedTemporaryFile

from tests.benchmarks.bench import Bench
from tests.benchmarks.limiters import ASYNC_RULED, LIMITERS
from tests.benchmarks.reports import Cell, Goal, Table
from tests.servers import SiteProcess

CONNECTIONS, SECONDS = 16, 1

SERVERS = {
    "gunicorn, 1 sync worker": ("gunicorn", 1),
    "gunicorn, 1 worker of 8 threads": ("gunicorn", 8),
    "uvicorn, 1 worker": ("uvicorn", 1),
}
SYNC = ("none", "floor", "tiers", "decorator", "smart-static", "smart")
QUICK = ("none", "tiers", "decorator")
ASYNC = ("none", "floor", "tiers", "smart-static")
"""The decorators, and the nearest peer's tiers, are not for event loops."""

OURS = ("none", "floor", "tiers")


USERS_SCRIPT = """
local number = 0
function request()
  number = (number + 1) % 100
  return wrk.format('GET', nil, {['X-User'] = tostring(number)})
end
"""


def measure(bench: Bench) -> None:
    """Add a table for each kind of server; skipped, and said so, without wrk."""
    if shutil.which("wrk") is None:
        about = "Not measured: wrk is not installed (apt-get install wrk)."
        bench.report.tables.append(Table("Real servers", about, ("",), []))
        return
    for name, (server, threads) in list(SERVERS.items())[: bench.choose(1, len(SERVERS))]:
        compared = QUICK if bench.quick else ASYNC if server == "uvicorn" else SYNC
        with ExitStack() as stack:
            sites = {
                limiter: stack.enter_context(_site(bench, server, threads, limiter))
                for limiter in compared
            }
            rates = _load(bench, sites)
        _report(bench, name, rates)


def _site(bench: Bench, server: str, threads: int, limiter: str) -> SiteProcess:
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        "LIMITER": limiter,
        "REDIS_URL": bench.valkey.url,
        "DATABASE_URL": bench.database_url,
    }
    return SiteProcess(server, threads=threads, env=env)


def _load(bench: Bench, sites: Mapping[str, SiteProcess]) -> dict[str, list[float]]:
    """Return the requests per second of each round; the first one is not told."""
    rates: dict[str, list[float]] = {limiter: [] for limiter in sites}
    for number in range(bench.choose(1, 9) + 1):  # many and short: the machine has other guests
        for limiter in sorted(sites, reverse=bool(number % 2)):
            site = sites[limiter]
            path = ASYNC_RULED if site.server == "uvicorn" else LIMITERS[limiter].path
            rate = _wrk(site.url + path)
            if number:  # the first time, users and rules are looked up
                rates[limiter].append(rate)
    return rates


def _wrk(url: str) -> float:
    with NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(USERS_SCRIPT)
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", script.name, url]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    if (
        "Non-2xx" in done.stdout
        or (found := re.search(r"Requests/sec: *([0-9.]+)", done.stdout)) is None
    ):
        raise RuntimeError(done.stdout)
    return float(found[1])


def _report(bench: Bench, name: str, rates: Mapping[str, Sequence[float]]) -> None:
    none = rates["none"]
    shares = {
        limiter: median(own / bare for own, bare in zip(rounds, none, strict=True))
        for limiter, rounds in rates.items()
    }
    rows: list[tuple[Cell, ...]] = [
        (LIMITERS[limiter].name, median(rounds), 100 * shares[limiter])
        for limiter, rounds in rates.items()
    ]
    about = f"wrk with {CONNECTIONS} connections on the same machine; all servers took turns."
    columns = ("", "requests/s", "% of no limiter")
    bench.report.tables.append(Table(f"Real servers: {name}", about, columns, rows))
    best = max(share for limiter, share in shares.items() if limiter not in OURS)
    bench.report.goals.append(
        Goal(f"throughput beside the best peer, {name}", shares["tiers"] / best, least=1, unit=" x")
    )
