"""When the tasks run: one line in a project's settings.

    CELERY_BEAT_SCHEDULE = beat_schedule()

Nothing here imports Celery or a model, so settings can.
"""

from __future__ import annotations

from typing import Any

TASKS = "django_ratelimit_tiers.tasks"

EVERY_SECONDS = 30.0
"""How long a minute that is over waits at most to be written, and as long again to be judged."""

MOST_SECONDS = 1800
"""Half of the hour that each run looks back: one run may be missed."""

PRUNE_SECONDS = 3600.0

LATE_SECONDS = 3600.0
"""How much later than the next one a run may start.

Beat says by its own clock when a task expires, and the worker looks at its own: one of them may be
wrong. In the hour after clocks are put back, Celery before 5.7 is wrong by an hour where
`CELERY_TIMEZONE` names such a place.
"""


def beat_schedule(every: float = EVERY_SECONDS) -> dict[str, dict[str, Any]]:
    """Return the entries for Celery's `beat_schedule`, with tasks every so many seconds.

    A run that could not start within an hour after the next one is due is dropped. Raises
    ValueError unless `every` is a number from 1 to 1800: each run judges the hour before it.
    """
    try:
        can_be_kept = 1 <= every <= MOST_SECONDS
    except TypeError:
        can_be_kept = False
    if not can_be_kept:
        raise ValueError(
            f"every must be a number of seconds from 1 to {MOST_SECONDS}, not {every!r}"
        )
    names = {"aggregate_throttle_events": every, "detect_anomalies": every}
    return {
        f"ratelimit-{name.replace('_', '-')}": {
            "task": f"{TASKS}.{name}",
            "schedule": seconds,
            "options": {"expires": seconds + LATE_SECONDS},
        }
        for name, seconds in {**names, "prune_history": PRUNE_SECONDS}.items()
    }
