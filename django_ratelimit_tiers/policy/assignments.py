"""The tiers that users and keys were assigned, looked up once and remembered for a while."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.models import Q
from django.utils import timezone

from django_ratelimit_tiers.models import TierAssignment
from django_ratelimit_tiers.querysets import primary

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 300.0
"""A looked-up tier is forgotten after this long: sooner than its subject's revision."""

UNREADABLE_SECONDS = 1.0
"""How soon a tier is looked up again that the database could not tell."""

MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one user or key was assigned: slugs of tiers, None where nothing was.

    `revision` is the subject's token in the store when it was looked up, `until` the monotonic
    time at which it must be looked up again.
    """

    direct: str | None
    through_group: str | None
    revision: str
    until: float


class AssignmentCache:
    """The assignments of the subjects that this process has seen lately."""

    def __init__(self, seconds: float = REMEMBERED_SECONDS) -> None:
        self._seconds = seconds
        self._assignments: OrderedDict[str, Assignment] = OrderedDict()
        self._lock = Lock()

    def get(self, subject: str) -> Assignment | None:
        """Return what is remembered of a subject."""
        assignment = self._assignments.get(subject)
        return assignment if assignment and time.monotonic() < assignment.until else None

    def look_up_user(self, subject: str, user: Any, revision: str) -> Assignment:
        """Ask the database for a user's own tier and that of the best group, in one query."""
        condition = Q(user_id=user.pk)
        if hasattr(user, "groups"):
            condition |= Q(group__in=user.groups.all())
        return self._remember(subject, condition, revision)

    def look_up_key(self, subject: str, digests: Iterable[str], revision: str) -> Assignment:
        """Ask the database for the tier of a verified key."""
        return self._remember(subject, Q(api_key__in=list(digests)), revision)

    def forget(self, subject: str) -> None:
        """Forget one subject, because its assignment was edited."""
        with self._lock:
            self._assignments.pop(subject, None)

    def _remember(self, subject: str, condition: Q, revision: str) -> Assignment:
        try:
            assignment = _read(condition, revision, self._seconds)
        except (DatabaseError, InterfaceError) as error:
            logger.warning(
                "the tier of %s stays what it was, the database fails: %s", subject, error
            )
            last = self._assignments.get(subject) or Assignment(None, None, revision, 0)
            assignment = replace(last, until=time.monotonic() + UNREADABLE_SECONDS)
        with self._lock:
            self._assignments[subject] = assignment
            while len(self._assignments) > MAX_REMEMBERED:
                self._assignments.popitem(last=False)
        return assignment


def _read(condition: Q, revision: str, seconds: float) -> Assignment:
    rows = (
        primary(TierAssignment)
        .filter(condition)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))
        .order_by("tier__rank", "tier_id")
        .values_list("group_id", "tier__slug", "expires_at")
    )
    direct = through_group = None
    for group_id, slug, expires_at in rows:
        if group_id is None:
            direct = slug
        else:
            through_group = slug
        if expires_at is not None:
            seconds = min(seconds, (expires_at - timezone.now()).total_seconds())
    return Assignment(direct, through_group, revision, time.monotonic() + seconds)
