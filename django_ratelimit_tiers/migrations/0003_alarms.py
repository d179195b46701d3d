"""Keeps what detectors need from one minute to the next."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

import django_ratelimit_tiers.models.fields


class Migration(migrations.Migration):
    dependencies = [
        ("django_ratelimit_tiers", "0002_tier_table"),
    ]

    operations = [
        migrations.AddField(
            model_name="alert",
            name="alarm",
            field=models.JSONField(blank=True, default=dict, editable=False, verbose_name="alarm"),
        ),
        migrations.AddField(
            model_name="usagecount",
            name="hourly_limit",
            field=models.PositiveBigIntegerField(default=0, verbose_name="limit in an hour"),
        ),
        migrations.CreateModel(
            name="SeriesHour",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "series",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="series"
                    ),
                ),
                ("hour", models.DateTimeField(verbose_name="hour")),
                ("total", models.PositiveBigIntegerField(default=0, verbose_name="refusals")),
                ("peak", models.PositiveBigIntegerField(default=0, verbose_name="highest minute")),
                (
                    "rule",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="hours",
                        to="django_ratelimit_tiers.alertrule",
                        verbose_name="alert rule",
                    ),
                ),
            ],
            options={
                "verbose_name": "hour of a series",
                "verbose_name_plural": "hours of series",
                "ordering": ("-hour",),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("rule", "series", "hour"), name="rlt_serieshour_one_each"
                    )
                ],
            },
        ),
    ]
