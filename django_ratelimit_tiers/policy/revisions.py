"""Announcements of edits to every process."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.configured import configured_store

logger = logging.getLogger(__name__)


def announce_policy() -> None:
    """Tell every process that tiers, rules or service accounts have changed.

    Call it after the commit. An announcement that the store cannot take is logged: processes also
    compare with the database from time to time.
    """
    try:
        configured_store().announce_policy()
    except StoreUnavailable as error:
        logger.warning("could not announce an edit of the policy: %s", error)


def announce_subjects(subjects: Iterable[str]) -> None:
    """Tell every process that the tier of these subjects may have changed."""
    try:
        configured_store().announce_subjects(subjects)
    except StoreUnavailable as error:
        logger.warning("could not announce an edit of assignments: %s", error)
