"""Makes constraints over expressions ones over columns: MariaDB has no others."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models.functions import Coalesce, NullIf

from django_ratelimit_tiers.models.constraints import UniqueKeyConstraint
from django_ratelimit_tiers.models.fields import ExactCharField


class Migration(migrations.Migration):
    dependencies = [
        ("django_ratelimit_tiers", "0004_alert_rules"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="alert", name="rlt_alert_one_open_per_cause"),
        migrations.RemoveConstraint(model_name="rulepolicy", name="rlt_rulepolicy_one_per_period"),
        migrations.RemoveConstraint(model_name="tier", name="rlt_tier_one_per_default"),
        migrations.AddField(
            model_name="alert",
            name="open_cause",
            field=models.GeneratedField(
                db_persist=True,
                expression=models.Case(
                    models.When(~models.Q(state="closed"), then=models.F("cause"))
                ),
                output_field=ExactCharField(max_length=255, null=True),
                serialize=False,
            ),
        ),
        migrations.AddField(
            model_name="rulepolicy",
            name="tier_key",
            field=models.GeneratedField(
                db_persist=True,
                expression=Coalesce("tier", models.Value(0)),
                output_field=models.BigIntegerField(),
                serialize=False,
            ),
        ),
        migrations.AddField(
            model_name="tier",
            name="default_key",
            field=models.GeneratedField(
                db_persist=True,
                expression=NullIf("default_for", models.Value("")),
                output_field=ExactCharField(max_length=20, null=True),
                serialize=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="alert",
            constraint=UniqueKeyConstraint(
                fields=("open_cause",), name="rlt_alert_one_open_per_cause"
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=UniqueKeyConstraint(
                fields=("rule", "tier_key", "period", "algorithm"),
                name="rlt_rulepolicy_one_per_period",
                violation_error_message=(
                    "This rule already has a limit of this period and algorithm for the tier."
                ),
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=UniqueKeyConstraint(
                fields=("default_key",),
                name="rlt_tier_one_per_default",
                violation_error_message="Another tier is the default for these clients.",
            ),
        ),
    ]
