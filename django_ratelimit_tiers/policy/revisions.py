"""Announcements of edits to every process, this one first."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.configured import configured_store

logger = logging.getLogger(__name__)


class OwnEdits:
    """What this process has edited or reset itself: its next request need not wait to obey it."""

    last: object = None

    def add(self) -> None:
        """Note one more."""
        self.last = object()


own_edits = OwnEdits()


def announce_policy() -> None:
    """Tell every process that tiers, rules or service accounts have changed.

    Call it after the commit. An announcement that the store cannot take is logged: processes also
    compare with the database from time to time.
    """
    try:
        configured_store().announce_policy()
    except StoreUnavailable as error:
        logger.warning("could not announce an edit of the policy: %s", error)
    own_edits.add()


def announce_subjects(subjects: Iterable[str]) -> None:
    """Tell every process that the tier of these subjects may have changed."""
    try:
        configured_store().announce_subjects(subjects)
    except StoreUnavailable as error:
        logger.warning("could not announce an edit of assignments: %s", error)
    own_edits.add()


def start_anew(subject: str) -> None:
    """Forget what a subject has used; raises StoreUnavailable when the store does not answer."""
    configured_store().reset(subject)
    own_edits.add()
