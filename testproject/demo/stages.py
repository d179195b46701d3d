"""What every step of the demo works with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testproject.demo.screens import Screen


@dataclass(frozen=True, slots=True)
class Stage:
    """The running site.

    A step that needs more processes starts them with `environment` and enters them into
    `processes`, which stops them in the end; their logs belong into `directory`. `redis_url` is
    empty when the limits are counted in the memory of the one worker. `samples` is what
    `manage.py load_samples` printed.
    """

    screen: Screen
    processes: ExitStack
    directory: Path
    environment: Mapping[str, str]
    redis_url: str
    url: str
    workers: int
    samples: dict[str, Any]
