"""Starts everything, shows every part, and keeps serving until interrupted: `make demo`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import httpx

from testproject.demo import servers
from testproject.demo.alerts import show_alert
from testproject.demo.replays import show_replay
from testproject.demo.screens import Screen
from testproject.demo.servers import ServerDidNotStart
from testproject.demo.staff import FormRefused, show_edit
from testproject.demo.stages import Stage
from testproject.demo.stores import StoreUnusable, store
from testproject.demo.traffic import show_traffic

WORKERS = 2

STEPS: tuple[Callable[[Stage], None], ...] = (show_traffic, show_replay, show_edit, show_alert)
"""What is shown, in this order."""


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the demo; returns 0 when everything held."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end instead of serving on")
    once = parser.parse_args().once
    for number in STOPPING:
        signal.signal(number, _stop)
    screen = Screen()
    try:
        with ExitStack() as processes:
            try:
                stage = start(screen, processes)
                for step in STEPS:
                    step(stage)
                conclude(stage, once)
            finally:
                for number in STOPPING:  # the servers shall end, whatever arrives meanwhile
                    signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        screen.line("\nStopped.")
    except (ServerDidNotStart, StoreUnusable, FormRefused, httpx.HTTPError) as error:
        screen.promise(f"the demo ran to its end ({type(error).__name__})", False, str(error))
    return 1 if screen.failures else 0


def start(screen: Screen, processes: ExitStack) -> Stage:
    """Start the servers on private ports, with fresh sample data."""
    directory = Path(tempfile.mkdtemp(prefix="ratelimit-tiers-demo-"))
    processes.callback(shutil.rmtree, directory, ignore_errors=True)
    screen.title("Servers")
    given = os.environ.get("REDIS_URL", "")
    redis_url, words = processes.enter_context(store(given, directory))
    screen.line(f"  limits counted in  {words}")
    workers = WORKERS if redis_url else 1
    environment = servers.environment(redis_url, directory)
    servers.manage(environment, "migrate", "--verbosity", "0")
    samples = servers.load_samples(environment)
    screen.line("  database           a private SQLite file, migrated, with sample tiers and rules")
    url = processes.enter_context(servers.site(environment, workers, directory))
    count = "one worker" if workers == 1 else f"{workers} workers"
    screen.line(f"  site               {url}, served by gunicorn with {count}")
    return Stage(screen, processes, directory, environment, redis_url, url, workers, samples)


def conclude(stage: Stage, once: bool) -> None:
    """Say how it went and where the admin is, and serve on unless told otherwise."""
    screen, staff = stage.screen, stage.samples["users"]["admin"]
    screen.line()
    if screen.failures:
        screen.line(f"NOT everything held: {'; '.join(screen.failures)}")
        log = stage.directory / "gunicorn.log"
        screen.line(log.read_text(errors="replace")[-2000:])
    else:
        screen.line("Everything held.")
    if once:
        return
    screen.line(f"\n  admin     {stage.url}/admin/")
    screen.line(f"  login     {staff['username']}\n  password  {staff['password']}")
    screen.line("\nServing until Ctrl-C.")
    while True:
        signal.pause()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
