"""What the numbers of a run were taken with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import redis

PACKAGES = (
    "Django",
    "djangorestframework",
    "redis",
    "hiredis",
    "django-redis",
    "django-ratelimit",
    "django-smart-ratelimit",
    "limits",
    "throttled-py",
    "pyrate-limiter",
    "gunicorn",
    "uvicorn",
)


def machine(client: redis.Redis) -> dict[str, str]:
    """Return the machine and the versions of everything that takes part."""
    info = client.info("server")
    server = info.get("valkey_version") or info["redis_version"]
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "server": f"{info.get('server_name', 'redis')} {server}, over TCP on loopback",
        "packages": ", ".join(filter(None, map(_package, PACKAGES))),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""
