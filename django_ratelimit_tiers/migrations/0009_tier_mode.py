"""Tiers can be in shadow mode."""
# ruff: noqa: E501

from django.db import migrations, models

import django_ratelimit_tiers.models.fields


class Migration(migrations.Migration):
    dependencies = [
        ("django_ratelimit_tiers", "0008_first_revision"),
    ]

    operations = [
        migrations.AddField(
            model_name="tier",
            name="mode",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[("enforce", "enforce"), ("shadow", "shadow (only record)")],
                default="enforce",
                help_text="In shadow mode nobody is refused: throttle counts show who would have been.",
                max_length=10,
                verbose_name="mode",
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=models.CheckConstraint(
                condition=models.Q(("mode__in", ["enforce", "shadow"])),
                name="rlt_tier_mode_known",
            ),
        ),
    ]
