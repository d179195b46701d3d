"""The last part of the demo: an attack, the alert it raises, and the e-mail that tells of it."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from testproject.demo.servers import manage, running
from testproject.demo.stages import Stage
from testproject.demo.traffic import sent_by

QUIET_MINUTES = 180

ATTACKERS = tuple(f"203.0.113.{number}" for number in range(1, 6))

REQUESTS = 60
"""What each attacker sends."""

LATEST_SECOND = 30
"""An attack that would begin later waits for the next minute, so that it fits into one."""

PATIENCE_SECONDS = 180

PATH, ENDPOINT = "/plain/", "GET plain/"
"""What is attacked: nothing that an earlier part of the demo was refused at."""

RECIPIENT = "operations@example.com"


def show_alert(stage: Stage) -> None:
    """Attack the site with a Celery worker and beat running, and show what people are told."""
    screen = stage.screen
    screen.title("An attack, and who is told")
    if not stage.redis_url:
        screen.line("  left out: without a Redis or Valkey there is no broker for Celery")
        return
    mail = stage.directory / "mail"
    environment = worker_environment(stage.environment, mail)
    load_quiet_hours(environment)
    screen.line(f"  history            {QUIET_MINUTES // 60} quiet hours, made up")
    log = stage.directory / "celery.log"
    command = [sys.executable, "-m", "celery", "-A", "testproject", "worker", "--beat"]
    command += ["--schedule", str(stage.directory / "beat"), "--concurrency", "1"]
    stage.processes.enter_context(running([*command, "--loglevel", "info"], environment, log))
    screen.line("  celery             a worker and beat, on the same Valkey")
    wait_for_room_in_minute()
    began = datetime.now(UTC).replace(second=0, microsecond=0)
    refused = attack(stage)
    screen.line(f"  {len(ATTACKERS)} attackers received {refused} refusals; waiting for the minute")
    deadline = time.monotonic() + PATIENCE_SECONDS
    alert, letter, counted = None, "", 0
    while time.monotonic() < deadline and not (alert and counted >= refused):
        time.sleep(1)
        letter = first_letter(mail)
        alert = raised_alert(environment, began) if letter else None
        counted = counted_refusals(environment, began) if alert else 0
    if alert is None:
        text = log.read_text(errors="replace")[-3000:]
        screen.promise("the attack raised an alert, and an e-mail told of it", False, text)
        return
    screen.line()
    show(stage, alert, letter)
    in_time = alert["opened_at"] == stamp(began)
    screen.promise("the attack raised an alert in its first minute", in_time)
    words = "as many refusals are in the database as the attackers received"
    screen.promise(words, counted == refused, f"{counted}, received were {refused}")
    screen.promise("an e-mail told of it", RECIPIENT in letter)


def worker_environment(environment: Mapping[str, str], mail: Path) -> dict[str, str]:
    """Return the environment of the worker: it writes e-mail into files."""
    ratelimit = json.loads(environment["RATELIMIT_TIERS"])
    ratelimit["EVENTS"] = {"RECIPIENTS": [RECIPIENT]}
    return {
        **environment,
        "RATELIMIT_TIERS": json.dumps(ratelimit),
        "CELERY_BROKER_URL": environment["REDIS_URL"],
        "CELERY_KEY_PREFIX": f"{ratelimit['KEY_PREFIX']}-celery-",
        "BEAT_SECONDS": "3",
        "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
        "EMAIL_FILE_PATH": str(mail),
    }


def load_quiet_hours(environment: Mapping[str, str]) -> None:
    """Give the detector hours to compare with: at most three refusals a minute."""
    chance = random.Random(7)  # noqa: S311 (made-up numbers)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = [
        {
            "model": "django_ratelimit_tiers.throttlecount",
            "fields": {
                "minute": stamp(now - timedelta(minutes=minute)),
                "policy": "anonymous-minute",
                "tier": "anonymous",
                "endpoint": ENDPOINT,
                "subject": "ip:198.51.100.1",
                "count": chance.randint(0, 3),
            },
        }
        for minute in range(5, QUIET_MINUTES)
    ]
    manage(environment, "loaddata", "--format", "json", "-", given=json.dumps(rows))


def wait_for_room_in_minute() -> None:
    """Wait for the next minute unless an attack still fits into this one."""
    if (second := time.time() % 60) > LATEST_SECOND:
        time.sleep(60 - second)


def attack(stage: Stage) -> int:
    """Send many requests from a few addresses and return how many were refused."""
    refused = 0
    with httpx.Client(base_url=stage.url, timeout=60) as client:
        for number in range(REQUESTS):
            for address in ATTACKERS:
                answer = client.get(PATH, headers=sent_by(address))
                refused += answer.status_code == 429
            stage.screen.progress(
                "attacking", (number + 1) * len(ATTACKERS), REQUESTS * len(ATTACKERS)
            )
    return refused


def raised_alert(environment: Mapping[str, str], began: datetime) -> dict[str, Any] | None:
    """Return the alert of the endpoint that was raised since the attack began."""
    rows = json.loads(manage(environment, "dumpdata", "django_ratelimit_tiers.alert"))
    alerts = [row["fields"] for row in rows]
    since = [alert for alert in alerts if alert["opened_at"] >= stamp(began)]
    return next((alert for alert in since if ENDPOINT in alert["cause"]), None)


def counted_refusals(environment: Mapping[str, str], began: datetime) -> int:
    """Return how many refusals at the endpoint were counted since the attack began."""
    rows = json.loads(manage(environment, "dumpdata", "django_ratelimit_tiers.throttlecount"))
    found = (row["fields"] for row in rows)
    return sum(
        count["count"]
        for count in found
        if count["endpoint"] == ENDPOINT and count["minute"] >= stamp(began)
    )


def first_letter(mail: Path) -> str:
    """Return the first e-mail that was sent about the endpoint, empty if there is none."""
    letters = (path.read_text() for path in sorted(mail.glob("*.log")))
    return next((letter for letter in letters if ENDPOINT in letter.partition("\n\n")[0]), "")


def show(stage: Stage, alert: Mapping[str, Any], letter: str) -> None:
    """Write the alert as the admin shows it, and the e-mail."""
    screen = stage.screen
    for name in ("kind", "cause", "state", "opened_at", "peak", "baseline"):
        screen.line(f"  {name:<10} {alert[name]}")
    for name, found in alert["detail"].items():
        screen.line(f"  {name}: {', '.join(found) if isinstance(found, list) else found}")
    screen.line()
    headers, _, text = letter.partition("\n\n")
    told = [line for line in headers.splitlines() if line.startswith(("Subject", "From", "To"))]
    for line in [*told, "", *text.split("\n---")[0].splitlines()]:
        screen.line(f"  | {line}")
    screen.line()


def stamp(at: datetime) -> str:
    """Return a time as fixtures write it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
