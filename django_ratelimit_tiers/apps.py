"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig

from django_ratelimit_tiers import checks  # noqa: F401 - importing them registers them


class RateLimitTiersConfig(AppConfig):
    """Rate limits that staff edit in the admin."""

    name = "django_ratelimit_tiers"
    verbose_name = "Rate limits"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the receivers, which need the models."""
        from django_ratelimit_tiers import receivers  # noqa: PLC0415

        receivers.connect()
