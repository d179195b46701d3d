"""Creates the alert rules to start with; staff decides which are active and who is told."""

from __future__ import annotations

from typing import Any

from django.db import migrations

# name, kind, watched series, least volume, active
RULES = (
    ("Spike of all refusals", "spike", "total", 20, True),
    ("Spike at one endpoint", "spike", "endpoint", 20, True),
    ("Spike of one policy", "spike", "policy", 20, False),
    ("Spike in one tier", "spike", "tier", 20, False),
    ("One client from many addresses", "ip_rotation", "total", 20, True),
    ("Many accounts from one address", "account_farming", "total", 25, True),
    ("Steadily just under the limit", "slow_drip", "total", 20, True),
    ("Close to the daily limit", "near_limit", "total", 20, False),
)


def create_alert_rules(apps: Any, schema_editor: Any) -> None:
    """Create each missing rule, and leave alone what is there."""
    alias = schema_editor.connection.alias
    rules = apps.get_model("django_ratelimit_tiers", "AlertRule").objects.using(alias)
    for name, kind, grouping, minimum_volume, is_active in RULES:
        rules.get_or_create(
            name=name,
            defaults={
                "kind": kind,
                "grouping": grouping,
                "minimum_volume": minimum_volume,
                "is_active": is_active,
            },
        )


class Migration(migrations.Migration):
    dependencies = (("django_ratelimit_tiers", "0003_alarms"),)

    operations = (migrations.RunPython(create_alert_rules, migrations.RunPython.noop),)
