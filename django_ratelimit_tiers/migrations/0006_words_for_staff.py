"""Says in more words what fields are for."""
# ruff: noqa: E501

from django.db import migrations, models

import django_ratelimit_tiers.models.fields


class Migration(migrations.Migration):
    dependencies = [
        ("django_ratelimit_tiers", "0005_unique_keys"),
    ]

    operations = [
        migrations.AlterField(
            model_name="alertrule",
            name="endpoint",
            field=models.CharField(
                blank=True,
                help_text="Only this one, written as in throttle counts: GET api/search/.",
                max_length=255,
                verbose_name="endpoint",
            ),
        ),
        migrations.AlterField(
            model_name="alertrule",
            name="grouping",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[
                    ("total", "all refusals together"),
                    ("policy", "each policy"),
                    ("endpoint", "each endpoint"),
                    ("tier", "each tier"),
                ],
                default="total",
                help_text="These four fields narrow down spikes; the other kinds look at everything.",
                max_length=10,
                verbose_name="watch",
            ),
        ),
        migrations.AlterField(
            model_name="alertrule",
            name="minimum_volume",
            field=models.PositiveIntegerField(
                default=20,
                help_text="Spikes: fewer refusals in a minute are never one. Many addresses or accounts: how many of them in an hour are too many. Otherwise: smaller limits are not looked at.",
                verbose_name="minimum volume",
            ),
        ),
        migrations.AlterField(
            model_name="alertrule",
            name="policy",
            field=models.CharField(
                blank=True,
                help_text="Only this one, written as in throttle counts: free-minute. Empty for all.",
                max_length=150,
                verbose_name="policy",
            ),
        ),
        migrations.AlterField(
            model_name="alertrule",
            name="tier",
            field=models.CharField(
                blank=True,
                help_text="Only the tier with this slug.",
                max_length=50,
                verbose_name="tier",
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="count",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[("all", "every request"), ("failed", "only requests that failed")],
                default="all",
                help_text="Failed: answered with a status of the setting FAILED_STATUSES, like 401.",
                max_length=10,
                verbose_name="what is counted",
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="ends_at",
            field=models.DateTimeField(
                blank=True, help_text="Empty: never.", null=True, verbose_name="ends at"
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="identify_by",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[
                    ("user_or_ip", "user, or address when anonymous"),
                    ("user", "user"),
                    ("ip", "address"),
                    ("api_key", "API key"),
                    ("field", "field of the request"),
                    ("everyone", "everyone together"),
                ],
                default="user_or_ip",
                help_text="By user: who is not signed in is not limited. By API key or field: requests without one are counted by address.",
                max_length=12,
                verbose_name="count by",
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="mode",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[
                    ("enforce", "enforce"),
                    ("shadow", "shadow (only record)"),
                    ("off", "off"),
                ],
                default="enforce",
                help_text="In shadow mode nobody is refused: throttle counts show who would have been.",
                max_length=10,
                verbose_name="mode",
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="scope",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[
                    ("rule", "one counter for the rule"),
                    ("route", "one counter for each route"),
                ],
                default="rule",
                help_text="Whether all that the rule covers is counted together.",
                max_length=10,
                verbose_name="scope",
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="starts_at",
            field=models.DateTimeField(
                blank=True, help_text="Empty: at once.", null=True, verbose_name="starts at"
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="tier_policies",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[("also", "apply as well"), ("replace", "are replaced by this rule")],
                default="also",
                help_text="What becomes of the limits of the client's tier for these requests.",
                max_length=10,
                verbose_name="limits of the tier",
            ),
        ),
        migrations.AlterField(
            model_name="endpointrule",
            name="view_name",
            field=models.CharField(
                blank=True,
                help_text="Instead of a path: the name of a route, like users:detail, or a view's dotted path.",
                max_length=255,
                verbose_name="view name",
            ),
        ),
        migrations.AlterField(
            model_name="policyrevision",
            name="created_at",
            field=models.DateTimeField(auto_now_add=True, db_index=True, verbose_name="time"),
        ),
        migrations.AlterField(
            model_name="policyrevision",
            name="model",
            field=models.CharField(max_length=100, verbose_name="edited"),
        ),
        migrations.AlterField(
            model_name="policyrevision",
            name="reason",
            field=models.CharField(max_length=255, verbose_name="edit"),
        ),
        migrations.AlterField(
            model_name="policyrevision",
            name="subjects",
            field=models.JSONField(blank=True, default=list, verbose_name="concerns"),
        ),
        migrations.AlterField(
            model_name="throttlecount",
            name="minute",
            field=models.DateTimeField(verbose_name="time"),
        ),
        migrations.AlterField(
            model_name="throttlecount",
            name="resolution",
            field=django_ratelimit_tiers.models.fields.ExactCharField(
                choices=[("minute", "minute"), ("hour", "hour"), ("day", "day")],
                default="minute",
                max_length=10,
                verbose_name="span",
            ),
        ),
        migrations.AlterField(
            model_name="throttleevent",
            name="at",
            field=models.DateTimeField(db_index=True, verbose_name="time"),
        ),
        migrations.AlterField(
            model_name="tier",
            name="slug",
            field=django_ratelimit_tiers.models.fields.ExactSlugField(
                help_text="Clients see it in the names of the limits, like pro-minute.",
                unique=True,
                verbose_name="slug",
            ),
        ),
        migrations.AlterField(
            model_name="tierassignment",
            name="api_key",
            field=django_ratelimit_tiers.models.fields.KeyDigestField(
                blank=True,
                help_text="What API_KEY_RESOLVER returns for it, such as its id. Only a digest is stored and shown.",
                max_length=36,
                null=True,
                unique=True,
                verbose_name="API key",
            ),
        ),
        migrations.AlterField(
            model_name="tierassignment",
            name="expires_at",
            field=models.DateTimeField(
                blank=True, help_text="Empty: never.", null=True, verbose_name="expires at"
            ),
        ),
    ]
