"""The tiers that users and keys were assigned, looked up once and remembered for a while."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import FieldDoesNotExist
from django.db import DatabaseError, InterfaceError
from django.db.models import ManyToManyField, Model, Q
from django.utils import timezone

from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.events.log_gates import LogGate
from django_ratelimit_tiers.models import TierAssignment, user_key
from django_ratelimit_tiers.querysets import apart, primary

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 300.0
"""A looked-up tier is forgotten after this long: sooner than its subject's revision."""

UNREADABLE_SECONDS = 1.0
"""How soon a tier is looked up again after the database failed."""

MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class Assignment:
    """What one user or key was assigned: slugs of tiers, None where nothing was.

    `revision` is the subject's token in the store when it was looked up, `until` the monotonic
    time at which it must be looked up again: at once, as soon as it is no longer remembered. So
    whoever keeps one need not ask for the subject.
    """

    direct: str | None
    through_group: str | None
    revision: str
    until: float


UNASSIGNED = Assignment(None, None, "", 0.0)


class AssignmentCache:
    """The assignments of the subjects that this process has seen lately.

    What a `former` cache held counts only where the database fails to answer anew.
    """

    def __init__(
        self,
        seconds: float = REMEMBERED_SECONDS,
        former: AssignmentCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._clock = seconds, clock
        self._assignments: OrderedDict[str, Assignment] = OrderedDict()
        self._former: Mapping[str, Assignment] = {}
        if former is not None:
            self._former = former._assignments or former._former
        self._lock = Lock()
        self._gate = LogGate()

    def get(self, subject: str) -> Assignment | None:
        """Return what is remembered of a subject."""
        assignment = self._assignments.get(subject)
        return assignment if assignment and self._clock() < assignment.until else None

    def holds(self, assignments: Iterable[Assignment]) -> bool:
        """Return whether all of these are still what is remembered."""
        now = self._clock()
        for assignment in assignments:  # noqa: SIM110 - asked every request, quicker than all()
            if now >= assignment.until:
                return False
        return True

    def look_up_user(self, subject: str, user: Any, revision: str) -> Assignment:
        """Ask the database for a user's own tier and that of the best group, in one query.

        A user that the database cannot have is assigned nothing, without a query.
        """
        pk = _primary_key(user)
        condition = Q(pk__in=()) if pk is None else Q(user_id=pk)
        groups = group_field()
        if pk is not None and groups is not None:
            rows = groups.remote_field.through._base_manager.filter(**{groups.m2m_field_name(): pk})
            condition |= Q(group__in=rows.values(groups.m2m_reverse_field_name()))
        return self._remember(subject, condition, revision)

    def look_up_key(self, subject: str, digests: Iterable[str], revision: str) -> Assignment:
        """Ask the database for the tier of a verified key."""
        return self._remember(subject, Q(api_key__in=list(digests)), revision)

    def forget(self, subject: str) -> None:
        """Let one subject be looked up anew, because its assignment was edited."""
        with self._lock:
            self._outdate(self._assignments.get(subject))

    def _remember(self, subject: str, condition: Q, revision: str) -> Assignment:
        try:
            with apart(TierAssignment):
                assignment = _read(condition, revision, self._seconds, self._clock)
        except (DatabaseError, InterfaceError) as error:
            if self._gate.passes(most=1)[0]:
                words = "the tier of %s and others stays what it was, the database fails: %s"
                logger.warning(words, printable(subject), error)
            last = self._assignments.get(subject) or self._former.get(subject) or UNASSIGNED
            until = self._clock() + UNREADABLE_SECONDS
            assignment = replace(last, revision=revision, until=until)
        with self._lock:
            self._outdate(self._assignments.get(subject))
            self._assignments[subject] = assignment
            while len(self._assignments) > MAX_REMEMBERED:
                self._outdate(self._assignments.popitem(last=False)[1])
        return assignment

    def _outdate(self, assignment: Assignment | None) -> None:
        if assignment is not None:
            assignment.until = -math.inf


def group_field() -> Any:
    """Return the field by which users are in Django's own groups, None without such a field.

    The `groups` of another user model may be anything.
    """
    users: Any = get_user_model()  # not only Django's own, of whose groups more is known
    try:
        field = users._meta.get_field("groups")
    except FieldDoesNotExist:
        return None
    is_ours = isinstance(field, ManyToManyField) and issubclass(field.related_model, Group)
    return field if is_ours else None


def _primary_key(user: Any) -> Any:
    """Return the primary key of a user as the database has it, None if it cannot have it."""
    if isinstance(user, Model):
        return user.pk if isinstance(user, get_user_model()) else None
    return user_key(user.pk)


def _read(condition: Q, revision: str, seconds: float, clock: Callable[[], float]) -> Assignment:
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
    return Assignment(direct, through_group, revision, clock() + seconds)
