"""Creates the tiers to start with; staff's own edits are never overwritten."""

from __future__ import annotations

from typing import Any

from django.db import migrations

MINUTE, DAY = 60, 86_400

# slug, name, rank, default_for, unlimited, per minute, burst, per day
TIERS = (
    ("anonymous", "Anonymous", 0, "anonymous", False, 10, 15, 500),
    ("free", "Free", 10, "authenticated", False, 60, 100, 5_000),
    ("pro", "Pro", 20, "", False, 300, 500, 50_000),
    ("business", "Business", 30, "", False, 1_000, 2_000, 200_000),
    ("enterprise", "Enterprise", 40, "", False, None, None, None),
    ("internal", "Internal", 50, "", True, None, None, None),
)


def create_tiers(apps: Any, schema_editor: Any) -> None:
    """Create each missing tier with its limits, and leave alone what is there."""
    alias = schema_editor.connection.alias
    tiers = apps.get_model("django_ratelimit_tiers", "Tier").objects.using(alias)
    limits = apps.get_model("django_ratelimit_tiers", "TierPolicy").objects.using(alias)
    for slug, name, rank, default_for, unlimited, per_minute, burst, per_day in TIERS:
        taken = default_for and tiers.filter(default_for=default_for).exists()
        tier, created = tiers.get_or_create(
            slug=slug,
            defaults={
                "name": name,
                "rank": rank,
                "default_for": "" if taken else default_for,
                "unlimited": unlimited,
            },
        )
        if created and per_minute is not None:
            limits.create(
                tier=tier, requests=per_minute, period=MINUTE, algorithm="token_bucket", burst=burst
            )
            limits.create(
                tier=tier, requests=per_day, period=DAY, algorithm="sliding_window_counter"
            )


class Migration(migrations.Migration):
    dependencies = (("django_ratelimit_tiers", "0001_initial"),)

    operations = (migrations.RunPython(create_tiers, migrations.RunPython.noop),)
