"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class RateLimitTiersConfig(AppConfig):
    """Rate limits that staff edit in the admin."""

    name = "django_ratelimit_tiers"
    verbose_name = "Rate limits"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what announces edits."""
        from django_ratelimit_tiers import receivers  # noqa: PLC0415 (it needs the models loaded)

        receivers.connect()
