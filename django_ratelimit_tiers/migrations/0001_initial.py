"""Creates the tables."""
# ruff: noqa: E501

import django.core.validators
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.comparison
import django.db.models.lookups
from django.conf import settings
from django.db import migrations, models

import django_ratelimit_tiers.models.accounts
import django_ratelimit_tiers.models.deletion
import django_ratelimit_tiers.models.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AlertRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True, verbose_name="name")),
                (
                    "kind",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("spike", "spike of refusals"),
                            ("ip_rotation", "one client from many addresses"),
                            ("account_farming", "many accounts from one address"),
                            ("slow_drip", "steadily just under the limit"),
                            ("near_limit", "close to the daily limit"),
                        ],
                        max_length=20,
                        verbose_name="what to look for",
                    ),
                ),
                ("is_active", models.BooleanField(default=True, verbose_name="active")),
                (
                    "sensitivity",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[("low", "low"), ("normal", "normal"), ("high", "high")],
                        default="normal",
                        max_length=10,
                        verbose_name="sensitivity",
                    ),
                ),
                (
                    "minimum_volume",
                    models.PositiveIntegerField(
                        default=20,
                        help_text="Less than this in a minute is never an alert.",
                        verbose_name="minimum volume",
                    ),
                ),
                (
                    "grouping",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("total", "all refusals together"),
                            ("policy", "each policy"),
                            ("endpoint", "each endpoint"),
                            ("tier", "each tier"),
                        ],
                        default="total",
                        max_length=10,
                        verbose_name="watch",
                    ),
                ),
                (
                    "policy",
                    models.CharField(
                        blank=True,
                        help_text="Only this one; empty for all.",
                        max_length=150,
                        verbose_name="policy",
                    ),
                ),
                (
                    "endpoint",
                    models.CharField(
                        blank=True,
                        help_text="Only this one; empty for all.",
                        max_length=255,
                        verbose_name="endpoint",
                    ),
                ),
                (
                    "tier",
                    models.CharField(
                        blank=True,
                        help_text="Only this slug; empty for all.",
                        max_length=50,
                        verbose_name="tier",
                    ),
                ),
                (
                    "cooldown",
                    models.PositiveIntegerField(
                        default=3600,
                        help_text="In seconds: an alert of the same cause is not raised again before.",
                        verbose_name="cool-down",
                    ),
                ),
                (
                    "emails",
                    django_ratelimit_tiers.models.fields.EmailsField(
                        blank=True,
                        help_text="Who is told, one on each line.",
                        verbose_name="e-mail addresses",
                    ),
                ),
                (
                    "webhook_url",
                    models.CharField(
                        blank=True,
                        help_text="An http or https address that accepts JSON.",
                        max_length=500,
                        validators=[django.core.validators.URLValidator(schemes=("http", "https"))],
                        verbose_name="webhook",
                    ),
                ),
                (
                    "webhook_secret",
                    models.CharField(
                        blank=True,
                        help_text="Signs what is sent to the webhook.",
                        max_length=255,
                        verbose_name="webhook secret",
                    ),
                ),
            ],
            options={
                "verbose_name": "alert rule",
                "verbose_name_plural": "alert rules",
                "ordering": ("name",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "kind__in",
                                [
                                    "spike",
                                    "ip_rotation",
                                    "account_farming",
                                    "slow_drip",
                                    "near_limit",
                                ],
                            )
                        ),
                        name="rlt_alertrule_kind_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("sensitivity__in", ["low", "normal", "high"])),
                        name="rlt_alertrule_sensitivity_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("grouping__in", ["total", "policy", "endpoint", "tier"])
                        ),
                        name="rlt_alertrule_grouping_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("webhook_url", ""),
                            ("webhook_url__startswith", "http://"),
                            ("webhook_url__startswith", "https://"),
                            _connector="OR",
                        ),
                        name="rlt_alertrule_webhook_by_http",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("spike", "spike of refusals"),
                            ("ip_rotation", "one client from many addresses"),
                            ("account_farming", "many accounts from one address"),
                            ("slow_drip", "steadily just under the limit"),
                            ("near_limit", "close to the daily limit"),
                        ],
                        max_length=20,
                        verbose_name="kind",
                    ),
                ),
                (
                    "cause",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=255, verbose_name="cause"
                    ),
                ),
                (
                    "state",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("open", "open"),
                            ("acknowledged", "acknowledged"),
                            ("closed", "closed"),
                        ],
                        default="open",
                        max_length=15,
                        verbose_name="state",
                    ),
                ),
                ("opened_at", models.DateTimeField(verbose_name="opened at")),
                ("last_seen_at", models.DateTimeField(verbose_name="last seen at")),
                (
                    "closed_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="closed at"),
                ),
                (
                    "acknowledged_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="acknowledged at"),
                ),
                ("peak", models.FloatField(default=0, verbose_name="peak")),
                ("baseline", models.FloatField(default=0, verbose_name="baseline")),
                ("detail", models.JSONField(blank=True, default=dict, verbose_name="detail")),
                (
                    "acknowledged_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="acknowledged by",
                    ),
                ),
                (
                    "rule",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="alerts",
                        to="django_ratelimit_tiers.alertrule",
                        verbose_name="alert rule",
                    ),
                ),
            ],
            options={
                "verbose_name": "alert",
                "verbose_name_plural": "alerts",
                "ordering": ("-opened_at",),
            },
        ),
        migrations.CreateModel(
            name="EndpointRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True, verbose_name="name")),
                (
                    "mode",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("enforce", "enforce"),
                            ("shadow", "shadow (only record)"),
                            ("off", "off"),
                        ],
                        default="enforce",
                        max_length=10,
                        verbose_name="mode",
                    ),
                ),
                (
                    "methods",
                    django_ratelimit_tiers.models.fields.MethodsField(
                        blank=True,
                        help_text="Separated by commas, like GET,POST; empty for all. HEAD counts as GET.",
                        max_length=100,
                        verbose_name="methods",
                    ),
                ),
                (
                    "path",
                    models.CharField(
                        blank=True,
                        help_text="Like /api/users/*/export or /api/**: * is one segment, ** is the rest.",
                        max_length=255,
                        verbose_name="path",
                    ),
                ),
                (
                    "view_name",
                    models.CharField(
                        blank=True,
                        help_text="The name of a route, like users:detail; instead of a path.",
                        max_length=255,
                        verbose_name="view name",
                    ),
                ),
                (
                    "identify_by",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("user_or_ip", "user, or address when anonymous"),
                            ("user", "user"),
                            ("ip", "address"),
                            ("api_key", "API key"),
                            ("field", "field of the request"),
                            ("everyone", "everyone together"),
                        ],
                        default="user_or_ip",
                        max_length=12,
                        verbose_name="count by",
                    ),
                ),
                (
                    "request_field",
                    models.CharField(
                        blank=True,
                        help_text="The form or JSON field to count by, like username.",
                        max_length=100,
                        verbose_name="request field",
                    ),
                ),
                (
                    "cost",
                    models.PositiveIntegerField(
                        default=1,
                        help_text="How much one request takes from each limit.",
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000000000),
                        ],
                        verbose_name="cost",
                    ),
                ),
                (
                    "count",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[("all", "every request"), ("failed", "only requests that failed")],
                        default="all",
                        max_length=10,
                        verbose_name="what is counted",
                    ),
                ),
                (
                    "scope",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("rule", "one counter for the rule"),
                            ("route", "one counter for each route"),
                        ],
                        default="rule",
                        max_length=10,
                        verbose_name="scope",
                    ),
                ),
                (
                    "tier_policies",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("also", "apply as well"),
                            ("replace", "are replaced by this rule"),
                        ],
                        default="also",
                        max_length=10,
                        verbose_name="limits of the tier",
                    ),
                ),
                (
                    "exempt",
                    models.BooleanField(
                        default=False,
                        help_text="No limit applies to these requests, whatever other rules say.",
                        verbose_name="exempt",
                    ),
                ),
                (
                    "on_store_failure",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True,
                        choices=[
                            ("open", "let requests pass"),
                            ("closed", "refuse requests"),
                            ("local", "count in each process"),
                        ],
                        help_text="Empty for the setting ON_STORE_FAILURE.",
                        max_length=10,
                        verbose_name="while the store is unavailable",
                    ),
                ),
                (
                    "disclose",
                    models.BooleanField(
                        default=True,
                        help_text="Turn off for logins and the like: clients then only learn when to retry.",
                        verbose_name="tell clients the numbers",
                    ),
                ),
                (
                    "starts_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="starts at"),
                ),
                ("ends_at", models.DateTimeField(blank=True, null=True, verbose_name="ends at")),
                ("notes", models.TextField(blank=True, verbose_name="notes")),
            ],
            options={
                "verbose_name": "endpoint rule",
                "verbose_name_plural": "endpoint rules",
                "ordering": ("name",),
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("mode__in", ["enforce", "shadow", "off"])),
                        name="rlt_endpointrule_mode_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "identify_by__in",
                                ["user_or_ip", "user", "ip", "api_key", "field", "everyone"],
                            )
                        ),
                        name="rlt_endpointrule_identify_by_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("count__in", ["all", "failed"])),
                        name="rlt_endpointrule_count_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("scope__in", ["rule", "route"])),
                        name="rlt_endpointrule_scope_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("tier_policies__in", ["also", "replace"])),
                        name="rlt_endpointrule_tier_policies_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("on_store_failure__in", ["open", "closed", "local", ""])
                        ),
                        name="rlt_endpointrule_on_store_failure_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("path", ""), models.Q(("view_name", ""), _negated=True)),
                            models.Q(models.Q(("path", ""), _negated=True), ("view_name", "")),
                            _connector="OR",
                        ),
                        name="rlt_endpointrule_path_xor_view_name",
                        violation_error_message="Give a path or a view name, and not both.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("identify_by", "field"),
                                models.Q(("request_field", ""), _negated=True),
                            ),
                            models.Q(
                                models.Q(("identify_by", "field"), _negated=True),
                                ("request_field", ""),
                            ),
                            _connector="OR",
                        ),
                        name="rlt_endpointrule_request_field_if_used",
                        violation_error_message="A request field is given exactly when requests are counted by it.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("cost__gte", 1), ("cost__lte", 1000000000)),
                        name="rlt_endpointrule_cost_in_range",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("starts_at__isnull", True),
                            ("ends_at__isnull", True),
                            ("starts_at__lt", models.F("ends_at")),
                            _connector="OR",
                        ),
                        name="rlt_endpointrule_starts_at_before_ends_at",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PolicyRevision",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(auto_now_add=True, db_index=True, verbose_name="at"),
                ),
                ("model", models.CharField(max_length=100, verbose_name="model")),
                ("reason", models.CharField(max_length=255, verbose_name="reason")),
                ("subjects", models.JSONField(blank=True, default=list, verbose_name="subjects")),
                (
                    "author",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="author",
                    ),
                ),
            ],
            options={
                "verbose_name": "policy revision",
                "verbose_name_plural": "policy revisions",
                "ordering": ("-pk",),
            },
        ),
        migrations.CreateModel(
            name="ServiceAccount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100, unique=True, verbose_name="name")),
                (
                    "owner",
                    models.CharField(
                        help_text="Who answers for it: a person or a team.",
                        max_length=200,
                        verbose_name="owner",
                    ),
                ),
                (
                    "reason",
                    models.TextField(help_text="Why no limit may apply.", verbose_name="reason"),
                ),
                (
                    "key_digest",
                    django_ratelimit_tiers.models.fields.KeyDigestField(
                        blank=True,
                        editable=False,
                        max_length=36,
                        null=True,
                        unique=True,
                        verbose_name="key",
                    ),
                ),
                (
                    "networks",
                    django_ratelimit_tiers.models.fields.NetworksField(
                        blank=True,
                        help_text="Like 192.0.2.0/24, one on each line. The user or key then only counts there.",
                        verbose_name="networks",
                    ),
                ),
                ("is_active", models.BooleanField(default=True, verbose_name="active")),
                (
                    "expires_at",
                    models.DateTimeField(
                        default=django_ratelimit_tiers.models.accounts.a_year_ahead,
                        verbose_name="expires at",
                    ),
                ),
                (
                    "last_used_at",
                    models.DateTimeField(
                        blank=True, editable=False, null=True, verbose_name="last used at"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django_ratelimit_tiers.models.deletion.delete_too,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "service account",
                "verbose_name_plural": "service accounts",
                "ordering": ("name",),
                "abstract": False,
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="ThrottleCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "policy",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=150, verbose_name="policy"
                    ),
                ),
                (
                    "tier",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True, max_length=50, verbose_name="tier"
                    ),
                ),
                (
                    "endpoint",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="endpoint"
                    ),
                ),
                (
                    "subject",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=150, verbose_name="subject"
                    ),
                ),
                (
                    "mode",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("enforce", "enforce"),
                            ("shadow", "shadow (only record)"),
                            ("off", "off"),
                        ],
                        default="enforce",
                        max_length=10,
                        verbose_name="mode",
                    ),
                ),
                ("minute", models.DateTimeField(verbose_name="from")),
                (
                    "resolution",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[("minute", "minute"), ("hour", "hour"), ("day", "day")],
                        default="minute",
                        max_length=10,
                        verbose_name="for one",
                    ),
                ),
                ("count", models.PositiveBigIntegerField(default=0, verbose_name="refusals")),
            ],
            options={
                "verbose_name": "throttle count",
                "verbose_name_plural": "throttle counts",
                "ordering": ("-minute", "-count"),
                "indexes": [models.Index(fields=["subject", "minute"], name="rlt_count_subject")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "resolution",
                            "minute",
                            "policy",
                            "tier",
                            "endpoint",
                            "subject",
                            "mode",
                        ),
                        name="rlt_throttlecount_one_each",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ThrottleEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "policy",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=150, verbose_name="policy"
                    ),
                ),
                (
                    "tier",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True, max_length=50, verbose_name="tier"
                    ),
                ),
                (
                    "endpoint",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="endpoint"
                    ),
                ),
                (
                    "subject",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=150, verbose_name="subject"
                    ),
                ),
                (
                    "mode",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("enforce", "enforce"),
                            ("shadow", "shadow (only record)"),
                            ("off", "off"),
                        ],
                        default="enforce",
                        max_length=10,
                        verbose_name="mode",
                    ),
                ),
                ("at", models.DateTimeField(db_index=True, verbose_name="at")),
                (
                    "decision_id",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=64, verbose_name="decision"
                    ),
                ),
                ("method", models.CharField(max_length=20, verbose_name="method")),
                ("path", models.CharField(max_length=500, verbose_name="path")),
                ("address", models.CharField(blank=True, max_length=64, verbose_name="address")),
                (
                    "user_agent",
                    models.CharField(blank=True, max_length=255, verbose_name="user agent"),
                ),
                ("rule", models.CharField(blank=True, max_length=100, verbose_name="rule")),
                (
                    "retry_after",
                    models.PositiveBigIntegerField(
                        blank=True, null=True, verbose_name="retry after"
                    ),
                ),
                (
                    "revision",
                    models.PositiveBigIntegerField(blank=True, null=True, verbose_name="revision"),
                ),
            ],
            options={
                "verbose_name": "throttle event",
                "verbose_name_plural": "throttle events",
                "ordering": ("-at",),
                "indexes": [models.Index(fields=["subject", "at"], name="rlt_event_subject")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("decision_id", "policy"), name="rlt_throttleevent_one_each"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Tier",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "slug",
                    django_ratelimit_tiers.models.fields.ExactSlugField(
                        unique=True, verbose_name="slug"
                    ),
                ),
                ("name", models.CharField(max_length=100, verbose_name="name")),
                ("description", models.TextField(blank=True, verbose_name="description")),
                (
                    "rank",
                    models.PositiveSmallIntegerField(
                        default=0,
                        help_text="Who is in several groups gets the tier with the highest rank.",
                        verbose_name="rank",
                    ),
                ),
                (
                    "unlimited",
                    models.BooleanField(
                        default=False,
                        help_text="No limits of the tier apply, only rules do.",
                        verbose_name="unlimited",
                    ),
                ),
                (
                    "default_for",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        blank=True,
                        choices=[
                            ("anonymous", "anonymous clients"),
                            ("authenticated", "signed-in users"),
                            ("unverified", "signed-in users who are not verified yet"),
                        ],
                        help_text="Who has this tier without being assigned one; one tier for each.",
                        max_length=20,
                        verbose_name="default for",
                    ),
                ),
            ],
            options={
                "verbose_name": "tier",
                "verbose_name_plural": "tiers",
                "ordering": ("rank", "slug"),
                "abstract": False,
                "base_manager_name": "objects",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("default_for__in", ["anonymous", "authenticated", "unverified", ""])
                        ),
                        name="rlt_tier_default_for_known",
                    ),
                    models.UniqueConstraint(
                        django.db.models.functions.comparison.NullIf(
                            "default_for", models.Value("")
                        ),
                        name="rlt_tier_one_per_default",
                        violation_error_message="Another tier is the default for these clients.",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RulePolicy",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("requests", models.PositiveBigIntegerField(verbose_name="requests")),
                (
                    "period",
                    models.PositiveBigIntegerField(
                        help_text="In seconds: 60 is a minute, 3600 an hour, 86400 a day.",
                        verbose_name="period",
                    ),
                ),
                (
                    "algorithm",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("sliding_window_counter", "sliding window counter"),
                            ("token_bucket", "token bucket (allows bursts)"),
                            ("fixed_window", "fixed window"),
                            ("sliding_window_log", "sliding window log (exact)"),
                        ],
                        default="sliding_window_counter",
                        max_length=32,
                        verbose_name="algorithm",
                    ),
                ),
                (
                    "burst",
                    models.PositiveBigIntegerField(
                        blank=True,
                        help_text="Only for the token bucket: how many requests may come at once.",
                        null=True,
                        verbose_name="burst",
                    ),
                ),
                (
                    "rule",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="policies",
                        to="django_ratelimit_tiers.endpointrule",
                        verbose_name="rule",
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty: every tier without a row of its own.",
                        null=True,
                        on_delete=django_ratelimit_tiers.models.deletion.delete_too,
                        related_name="rule_policies",
                        to="django_ratelimit_tiers.tier",
                        verbose_name="tier",
                    ),
                ),
            ],
            options={
                "verbose_name": "limit of a rule",
                "verbose_name_plural": "limits of rules",
                "ordering": ("rule", "tier", "period", "algorithm"),
                "abstract": False,
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="TierAssignment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "api_key",
                    django_ratelimit_tiers.models.fields.KeyDigestField(
                        blank=True,
                        help_text="Only a digest of it is stored and shown.",
                        max_length=36,
                        null=True,
                        unique=True,
                        verbose_name="API key",
                    ),
                ),
                (
                    "expires_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="expires at"),
                ),
                ("note", models.CharField(blank=True, max_length=255, verbose_name="note")),
                (
                    "group",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django_ratelimit_tiers.models.deletion.delete_too,
                        related_name="+",
                        to="auth.group",
                        verbose_name="group",
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="assignments",
                        to="django_ratelimit_tiers.tier",
                        verbose_name="tier",
                    ),
                ),
                (
                    "user",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django_ratelimit_tiers.models.deletion.delete_too,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "tier assignment",
                "verbose_name_plural": "tier assignments",
                "ordering": ("pk",),
                "abstract": False,
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="TierPolicy",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("requests", models.PositiveBigIntegerField(verbose_name="requests")),
                (
                    "period",
                    models.PositiveBigIntegerField(
                        help_text="In seconds: 60 is a minute, 3600 an hour, 86400 a day.",
                        verbose_name="period",
                    ),
                ),
                (
                    "algorithm",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("sliding_window_counter", "sliding window counter"),
                            ("token_bucket", "token bucket (allows bursts)"),
                            ("fixed_window", "fixed window"),
                            ("sliding_window_log", "sliding window log (exact)"),
                        ],
                        default="sliding_window_counter",
                        max_length=32,
                        verbose_name="algorithm",
                    ),
                ),
                (
                    "burst",
                    models.PositiveBigIntegerField(
                        blank=True,
                        help_text="Only for the token bucket: how many requests may come at once.",
                        null=True,
                        verbose_name="burst",
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="policies",
                        to="django_ratelimit_tiers.tier",
                        verbose_name="tier",
                    ),
                ),
            ],
            options={
                "verbose_name": "limit of a tier",
                "verbose_name_plural": "limits of tiers",
                "ordering": ("tier", "period", "algorithm"),
                "abstract": False,
                "base_manager_name": "objects",
            },
        ),
        migrations.CreateModel(
            name="UsageCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.DateTimeField(verbose_name="hour")),
                (
                    "subject",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=150, verbose_name="subject"
                    ),
                ),
                ("allowed", models.PositiveBigIntegerField(default=0, verbose_name="allowed")),
                ("refused", models.PositiveBigIntegerField(default=0, verbose_name="refused")),
            ],
            options={
                "verbose_name": "usage count",
                "verbose_name_plural": "usage counts",
                "ordering": ("-hour", "-allowed"),
                "indexes": [models.Index(fields=["subject", "hour"], name="rlt_usage_subject")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("hour", "subject"), name="rlt_usagecount_one_each"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AlertNotice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "event",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[("opened", "opened"), ("closed", "closed")],
                        max_length=10,
                        verbose_name="event",
                    ),
                ),
                (
                    "channel",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[("email", "e-mail"), ("webhook", "webhook")],
                        max_length=10,
                        verbose_name="channel",
                    ),
                ),
                (
                    "target",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        max_length=500, verbose_name="target"
                    ),
                ),
                (
                    "state",
                    django_ratelimit_tiers.models.fields.ExactCharField(
                        choices=[
                            ("pending", "pending"),
                            ("sending", "sending"),
                            ("sent", "sent"),
                            ("failed", "failed"),
                        ],
                        default="pending",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0, verbose_name="attempts")),
                (
                    "next_attempt_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="next attempt at"),
                ),
                ("sent_at", models.DateTimeField(blank=True, null=True, verbose_name="sent at")),
                ("error", models.CharField(blank=True, max_length=255, verbose_name="last error")),
                (
                    "alert",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="notices",
                        to="django_ratelimit_tiers.alert",
                        verbose_name="alert",
                    ),
                ),
            ],
            options={
                "verbose_name": "alert notice",
                "verbose_name_plural": "alert notices",
                "ordering": ("pk",),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("event__in", ["opened", "closed"])),
                        name="rlt_alertnotice_event_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("channel__in", ["email", "webhook"])),
                        name="rlt_alertnotice_channel_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["pending", "sending", "sent", "failed"])),
                        name="rlt_alertnotice_state_known",
                    ),
                    models.UniqueConstraint(
                        fields=("alert", "event", "channel", "target"),
                        name="rlt_alertnotice_sent_once",
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="alert",
            index=models.Index(fields=["cause", "opened_at"], name="rlt_alert_cause"),
        ),
        migrations.AddConstraint(
            model_name="alert",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "kind__in",
                        ["spike", "ip_rotation", "account_farming", "slow_drip", "near_limit"],
                    )
                ),
                name="rlt_alert_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="alert",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["open", "acknowledged", "closed"])),
                name="rlt_alert_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="alert",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("closed_at__isnull", False), ("state", "closed")),
                    models.Q(
                        models.Q(("state", "closed"), _negated=True), ("closed_at__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="rlt_alert_closed_at_if_closed",
            ),
        ),
        migrations.AddConstraint(
            model_name="alert",
            constraint=models.UniqueConstraint(
                models.Case(
                    models.When(
                        models.Q(("state", "closed"), _negated=True), then=models.F("cause")
                    )
                ),
                name="rlt_alert_one_open_per_cause",
            ),
        ),
        migrations.AddConstraint(
            model_name="serviceaccount",
            constraint=models.CheckConstraint(
                condition=models.Q(("owner", ""), _negated=True),
                name="rlt_serviceaccount_owner_filled",
            ),
        ),
        migrations.AddConstraint(
            model_name="serviceaccount",
            constraint=models.CheckConstraint(
                condition=models.Q(("reason", ""), _negated=True),
                name="rlt_serviceaccount_reason_filled",
            ),
        ),
        migrations.AddConstraint(
            model_name="serviceaccount",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("user__isnull", False),
                    ("key_digest__isnull", False),
                    models.Q(("networks", ""), _negated=True),
                    _connector="OR",
                ),
                name="rlt_serviceaccount_identified",
                violation_error_message="Name a user or networks, or issue a key.",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("requests__gte", 1),
                    ("requests__lte", 1000000000),
                    models.Q(
                        models.Q(("algorithm", "sliding_window_log"), _negated=True),
                        ("requests__lte", 100000),
                        _connector="OR",
                    ),
                ),
                name="rlt_rulepolicy_requests_countable",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(("period__gte", 1), ("period__lte", 31622400)),
                name="rlt_rulepolicy_period_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burst__isnull", True), ("algorithm", "token_bucket"), _connector="OR"
                ),
                name="rlt_rulepolicy_burst_only_for_bucket",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burst__isnull", True),
                    models.Q(("burst__gte", 1), ("burst__lte", 1000000000)),
                    _connector="OR",
                ),
                name="rlt_rulepolicy_burst_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burst__isnull", True),
                    django.db.models.lookups.LessThanOrEqual(
                        django.db.models.expressions.CombinedExpression(
                            models.F("burst"), "*", models.F("period")
                        ),
                        django.db.models.expressions.CombinedExpression(
                            models.F("requests"), "*", models.Value(31622400)
                        ),
                    ),
                    _connector="OR",
                ),
                name="rlt_rulepolicy_burst_refills",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "algorithm__in",
                        [
                            "sliding_window_counter",
                            "token_bucket",
                            "fixed_window",
                            "sliding_window_log",
                        ],
                    )
                ),
                name="rlt_rulepolicy_algorithm_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="rulepolicy",
            constraint=models.UniqueConstraint(
                models.F("rule"),
                django.db.models.functions.comparison.Coalesce("tier", models.Value(0)),
                models.F("period"),
                models.F("algorithm"),
                name="rlt_rulepolicy_one_per_period",
                violation_error_message="This rule already has a limit of this period and algorithm for the tier.",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierassignment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("api_key__isnull", True), ("group__isnull", True), ("user__isnull", False)
                    ),
                    models.Q(
                        ("api_key__isnull", True), ("group__isnull", False), ("user__isnull", True)
                    ),
                    models.Q(
                        ("api_key__isnull", False), ("group__isnull", True), ("user__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="rlt_tierassignment_one_subject",
                violation_error_message="Give a user, a group or an API key: exactly one.",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("requests__gte", 1),
                    ("requests__lte", 1000000000),
                    models.Q(
                        models.Q(("algorithm", "sliding_window_log"), _negated=True),
                        ("requests__lte", 100000),
                        _connector="OR",
                    ),
                ),
                name="rlt_tierpolicy_requests_countable",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(("period__gte", 1), ("period__lte", 31622400)),
                name="rlt_tierpolicy_period_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burst__isnull", True), ("algorithm", "token_bucket"), _connector="OR"
                ),
                name="rlt_tierpolicy_burst_only_for_bucket",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burst__isnull", True),
                    models.Q(("burst__gte", 1), ("burst__lte", 1000000000)),
                    _connector="OR",
                ),
                name="rlt_tierpolicy_burst_in_range",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burst__isnull", True),
                    django.db.models.lookups.LessThanOrEqual(
                        django.db.models.expressions.CombinedExpression(
                            models.F("burst"), "*", models.F("period")
                        ),
                        django.db.models.expressions.CombinedExpression(
                            models.F("requests"), "*", models.Value(31622400)
                        ),
                    ),
                    _connector="OR",
                ),
                name="rlt_tierpolicy_burst_refills",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "algorithm__in",
                        [
                            "sliding_window_counter",
                            "token_bucket",
                            "fixed_window",
                            "sliding_window_log",
                        ],
                    )
                ),
                name="rlt_tierpolicy_algorithm_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="tierpolicy",
            constraint=models.UniqueConstraint(
                fields=("tier", "period", "algorithm"), name="rlt_tierpolicy_one_per_period"
            ),
        ),
    ]
