"""A small but real API on django-ratelimit-tiers, for the tests and for the demo."""

from __future__ import annotations

from testproject.celery import app as celery_app

__all__ = ["celery_app"]
