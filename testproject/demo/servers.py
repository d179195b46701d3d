"""The servers of the demo: started on private ports, stopped by their process ids."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from testproject.demo import users

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
START_SECONDS = 60
STOP_SECONDS = 10
THREADS = 4

LOG_FORMAT = f'%({{x-forwarded-for}}i)s - %({{{users.HEADER}}}o)s %(t)s "%(r)s" %(s)s %(b)s'
"""The common log format, with the address that the proxy tells and the user whom the site tells."""


class ServerDidNotStart(Exception):
    """A server of the demo ended, or did not answer in time; the message says what it wrote."""


def environment(redis_url: str, directory: Path) -> dict[str, str]:
    """Return the environment variables of every process that belongs to the demo's site.

    The demo plays the proxy that tells the addresses of its clients, and uses keys of its own: a
    Redis that was given to it may hold other things. A call of the store may take long: how busy
    this machine is shall not decide what is admitted.
    """
    ratelimit: dict[str, Any] = {
        "TRUSTED_PROXIES": [HOST],
        "KEY_PREFIX": f"rlt-demo-{secrets.token_hex(4)}",
        "STORE_TIMEOUT": 10,
    }
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "testproject.demo.settings",
        "DATABASE_URL": f"sqlite:///{directory / 'demo.sqlite3'}",
        "REDIS_URL": redis_url,
        "RATELIMIT_TIERS": json.dumps(ratelimit),
        "PASSWORD_HASHER": "django.contrib.auth.hashers.MD5PasswordHasher",
        "SECRET_KEY": secrets.token_hex(32),
        "PYTHONUNBUFFERED": "1",
    }


def manage(env: Mapping[str, str], *arguments: str, given: str = "") -> str:
    """Run a management command of the test project, give it a text and return what it printed."""
    command = [sys.executable, str(ROOT / "testproject" / "manage.py"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=env, input=given, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerDidNotStart(f"manage.py {' '.join(arguments)}\n{done.stderr[-4000:]}")
    return done.stdout


def load_samples(env: Mapping[str, str]) -> dict[str, Any]:
    """Load the sample data and return what clients need to know of it."""
    samples: dict[str, Any] = json.loads(manage(env, "load_samples"))
    return samples


@contextmanager
def running(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[Any]:
    """Run a process of the demo until the block ends; it writes to a log file."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt is for the demo, which then stops its servers
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def site(env: Mapping[str, str], workers: int, directory: Path) -> Iterator[str]:
    """Serve the test project with gunicorn until the block ends; yields its base URL."""
    url = f"http://{HOST}:{free_port()}"
    log = directory / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "testproject.demo.wsgi:application"]
    command += ["--config", str(ROOT / "testproject" / "gunicorn.conf.py")]
    command += ["--bind", url.removeprefix("http://"), "--workers", str(workers)]
    command += ["--worker-class", "gthread", "--threads", str(THREADS)]
    # Longer than the demo: a connection stays with the worker that accepted it.
    command += ["--keep-alive", "600", "--timeout", "300", "--graceful-timeout", "2"]
    command += ["--access-logfile", str(access_log(directory)), "--access-logformat", LOG_FORMAT]
    with running(command, env, log) as process:
        deadline = time.monotonic() + START_SECONDS
        while not answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerDidNotStart(f"gunicorn\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield url


def access_log(directory: Path) -> Path:
    """Return where the site logs its requests."""
    return directory / "access.log"


def answers(url: str) -> bool:
    """Return whether the site answers."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health/", timeout=10).status_code == 200
    return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
