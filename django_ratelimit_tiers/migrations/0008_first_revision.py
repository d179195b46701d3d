"""Records the installation as the first revision: since then refusals are recorded."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def record_installation(apps: Any, schema_editor: Any) -> None:
    """Record a revision of everything, unless the policy was edited before."""
    alias = schema_editor.connection.alias
    revisions = apps.get_model("django_ratelimit_tiers", "PolicyRevision").objects.using(alias)
    if not revisions.exists():
        revisions.create(model="django_ratelimit_tiers.tier", reason="installed")


class Migration(migrations.Migration):
    dependencies = (("django_ratelimit_tiers", "0007_readable_moments"),)

    operations = (migrations.RunPython(record_installation, migrations.RunPython.noop),)
