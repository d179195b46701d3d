"""Querysets that announce what they write; Django sends no signal for these write paths.

`bulk_update` and the async methods of a queryset go through the methods here, and `delete` sends
the signals of each row, so this is all there is to override.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.conf import settings
from django.db import connections, models, router, transaction

from django_ratelimit_tiers.signals import policy_edited, subject_edited

MAX_SUBJECTS = 1_000
"""How many subjects one edit names at most; a larger one counts as an edit of the policy."""


def primary(model: type[models.Model]) -> models.QuerySet[Any]:
    """Return all rows of a model, read where they are written.

    A replica may not have an edit yet that was announced; who read it there would take the old
    policy for the new one.
    """
    return model._default_manager.using(router.db_for_write(model))


def apart(model: type[models.Model]) -> AbstractContextManager[Any]:
    """Return a context whose queries on a model may fail and leave the transaction as it is.

    PostgreSQL refuses whatever follows in a transaction, and a view may be in one.
    """
    connection = connections[router.db_for_write(model)]
    if connection.in_atomic_block and connection.vendor == "postgresql":
        return transaction.atomic(using=connection.alias)
    return nullcontext()


def announce_edit(
    sender: type[models.Model], subjects: Collection[str | None], *, using: str, reason: str
) -> None:
    """Announce an edit of the tiers of these subjects; None stands for more than are known."""
    named = {subject for subject in subjects if subject is not None}
    if None in subjects or len(named) > MAX_SUBJECTS:
        policy_edited.send(sender, using=using, reason=reason)
    elif named:
        subject_edited.send(sender, using=using, subjects=tuple(sorted(named)), reason=reason)


class NaturalQuerySet(models.QuerySet[Any]):
    """A queryset of a model whose rows have names by which another installation knows them, too."""

    def get_by_natural_key(self, *key: object) -> Any:
        """Return the row that has this `natural_key`, as `loaddata` asks; raises DoesNotExist."""
        return self.get(**dict(zip(self.model.natural_fields, key, strict=True)))


class PolicyQuerySet(NaturalQuerySet):
    """A queryset whose `update` and `bulk_create` announce an edit of the policy."""

    def update(self, **fields: Any) -> int:
        """Update the rows and raise the revision, in one transaction."""
        if fields.keys() <= self.model.quiet_fields:
            return super().update(**fields)
        self._for_write = True
        with transaction.atomic(using=self.db, savepoint=False):
            rows = super().update(**fields)
            if rows:
                policy_edited.send(self.model, using=self.db, reason="updated in bulk")
        return rows

    def bulk_create(
        self,
        objs: Iterable[Any],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Any]:
        """Create the rows and raise the revision, in one transaction."""
        conflicts = (ignore_conflicts, update_conflicts, update_fields, unique_fields)
        self._for_write = True
        with transaction.atomic(using=self.db, savepoint=False):
            created = super().bulk_create(objs, batch_size, *conflicts)
            if created:
                self._announce_created(created, replaced=update_conflicts)
        return created

    def _announce_created(self, created: list[Any], *, replaced: bool) -> None:
        policy_edited.send(self.model, using=self.db, reason="created in bulk")


class AssignmentQuerySet(PolicyQuerySet):
    """A queryset of tier assignments: it announces the subjects it touched, before and after."""

    def update(self, **fields: Any) -> int:
        """Update the rows and raise the revision of everyone they named or name now."""
        self._for_write = True
        with transaction.atomic(using=self.db, savepoint=False):
            rows = self._lock(self.order_by().values_list("pk", flat=True)[: MAX_SUBJECTS + 1])
            before = list(map(_known_subject, rows))
            updated = models.QuerySet.update(self, **fields)
            after = map(_known_subject, self._lock([row.pk for row in rows]))
            # A row that matched only after it was looked for has unknown subjects.
            known = updated == len(rows)
            self.announce([*before, *after] if known else [None], "updated in bulk")
        return updated

    def announce(self, subjects: Collection[str | None], reason: str) -> None:
        """Announce an edit that touched these subjects; None stands for more than are known."""
        announce_edit(self.model, subjects, using=self.db, reason=reason)

    def announce_stored(self, pk: object) -> None:
        """Announce whom a row names in the database, before it is changed or deleted."""
        with transaction.atomic(using=self.db, savepoint=False):
            self.announce([*map(_known_subject, self._lock([pk]))], "changed or deleted")

    def _lock(self, pks: Iterable[object]) -> list[Any]:
        """Return these rows, kept from other writers until the transaction ends."""
        rows = self.model._base_manager.using(self.db).filter(pk__in=list(pks))
        return list(rows.select_for_update())

    def _announce_created(self, created: list[Any], *, replaced: bool) -> None:
        self.announce([None if replaced else row.subject for row in created], "created in bulk")


def _known_subject(stored: Any) -> str | None:
    """Return whom a stored row names, as requests know them; None where that is not known.

    A key's digest may be one under a former secret, and requests know the key by the present one.
    """
    is_of_key = stored.api_key is not None
    return None if is_of_key and settings.SECRET_KEY_FALLBACKS else stored.subject
