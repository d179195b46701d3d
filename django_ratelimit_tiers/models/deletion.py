"""What happens to rows whose user, group or tier is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Model
from django.db.models.deletion import Collector


def delete_too(
    collector: Collector, field: Any, objects: Sequence[Model], _using: str | None
) -> None:
    """Delete the rows, too, as CASCADE does, but never make them name nobody first.

    CASCADE sets a nullable column to NULL before it deletes, where a database cannot defer the
    check of foreign keys, like MySQL. A limit of one tier would be one of all tiers in between,
    and an assignment one of nobody, which the constraints refuse.
    """
    collector.collect(
        objects,
        source=field.remote_field.model,
        source_attr=field.name,
        fail_on_restricted=False,
    )
