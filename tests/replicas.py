"""A site that reads from a replica, which nobody can reach here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, models
from django.test import override_settings


class ReadReplica:
    """A router as in Django's documentation."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "django_ratelimit_tiers" else None

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return "default"


@contextmanager
def unreachable_replica() -> Iterator[None]:
    """Have the app's rows read from a second database that nobody can read."""
    nowhere = {**connections.settings["default"], "NAME": "/nowhere/replica"}
    connections.settings["replica"] = nowhere
    _ = connections["replica"]  # makes it, even where nobody asks it for anything
    try:
        with override_settings(DATABASE_ROUTERS=[ReadReplica()]):
            yield
    finally:
        del connections["replica"], connections.settings["replica"]
