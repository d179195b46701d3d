"""Webhooks are refused in forms for what they would be refused for when something is sent."""

from django.db import migrations, models

import django_ratelimit_tiers.models.fields


class Migration(migrations.Migration):
    dependencies = [
        ("django_ratelimit_tiers", "0009_tier_mode"),
    ]

    operations = [
        migrations.AlterField(
            model_name="alertrule",
            name="webhook_url",
            field=models.CharField(
                blank=True,
                help_text="An http or https address that accepts JSON.",
                max_length=500,
                validators=[django_ratelimit_tiers.models.fields.validate_webhook],
                verbose_name="webhook",
            ),
        ),
    ]
