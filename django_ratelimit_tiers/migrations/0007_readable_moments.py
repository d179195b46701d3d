"""Bounds the moments that staff types, as PostgreSQL keeps some that nobody can read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import migrations, models
from django.utils import timezone

from django_ratelimit_tiers.models.accounts import a_year_ahead
from django_ratelimit_tiers.models.fields import validate_year

FIRST = datetime(1970, 1, 1)  # noqa: DTZ001 - the site says whether it has a zone
LAST = datetime(9000, 12, 31)  # noqa: DTZ001

# model, field, what stands for a moment before the first year and for one after the last
MOMENTS = (
    ("ServiceAccount", "expires_at", FIRST, LAST),
    ("TierAssignment", "expires_at", FIRST, None),
    ("EndpointRule", "starts_at", None, LAST),
    ("EndpointRule", "ends_at", FIRST, None),
)


def bring_into_range(apps: Any, schema_editor: Any) -> None:
    """Replace moments that cannot be read, without reading them, and raise the revision."""
    alias = schema_editor.connection.alias
    for model, field, early, late in MOMENTS:
        rows = apps.get_model("django_ratelimit_tiers", model).objects.using(alias)
        replaced = rows.filter(**{f"{field}__year__lt": FIRST.year}).update(
            **{field: _of_site(early)}
        )
        replaced += rows.filter(**{f"{field}__year__gt": LAST.year}).update(
            **{field: _of_site(late)}
        )
        if replaced:
            revisions = apps.get_model("django_ratelimit_tiers", "PolicyRevision")
            label = f"django_ratelimit_tiers.{model.lower()}"
            revisions.objects.using(alias).create(model=label, reason="updated in bulk")


def _of_site(moment: datetime | None) -> datetime | None:
    return timezone.make_aware(moment) if moment and settings.USE_TZ else moment


def _never_empty() -> models.DateTimeField[Any, Any]:
    return models.DateTimeField(
        default=a_year_ahead, validators=(validate_year,), verbose_name="expires at"
    )


def _may_be_empty(verbose_name: str, help_text: str) -> models.DateTimeField[Any, Any]:
    return models.DateTimeField(
        blank=True,
        help_text=help_text,
        null=True,
        validators=(validate_year,),
        verbose_name=verbose_name,
    )


def _readable(model: str, field: str) -> migrations.AddConstraint:
    in_range = models.Q((f"{field}__year__gte", 1969), (f"{field}__year__lte", 9001))
    return migrations.AddConstraint(
        model_name=model,
        constraint=models.CheckConstraint(
            condition=models.Q((f"{field}__isnull", True), in_range, _connector="OR"),
            name=f"rlt_{model}_{field}_readable",
        ),
    )


class Migration(migrations.Migration):
    dependencies = (("django_ratelimit_tiers", "0006_words_for_staff"),)

    operations = (
        migrations.RunPython(bring_into_range, migrations.RunPython.noop),
        migrations.AlterField("serviceaccount", "expires_at", _never_empty()),
        migrations.AlterField(
            "tierassignment", "expires_at", _may_be_empty("expires at", "Empty: never.")
        ),
        migrations.AlterField(
            "endpointrule", "starts_at", _may_be_empty("starts at", "Empty: at once.")
        ),
        migrations.AlterField("endpointrule", "ends_at", _may_be_empty("ends at", "Empty: never.")),
        _readable("serviceaccount", "expires_at"),
        _readable("tierassignment", "expires_at"),
        _readable("endpointrule", "starts_at"),
        _readable("endpointrule", "ends_at"),
    )
