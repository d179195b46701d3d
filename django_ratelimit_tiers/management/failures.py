"""What commands say when they cannot do their work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import Error

from django_ratelimit_tiers.exceptions import StoreUnavailable


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turn a failure of the store or of the database into an error that says what to look at."""
    try:
        yield
    except StoreUnavailable as error:
        raise CommandError(f"The store does not answer: {error}") from error
    except Error as error:
        advice = "Look at DATABASES, and run `manage.py migrate`."
        raise CommandError(f"The database cannot be read: {error}. {advice}") from error
