"""What is watched, what was seen and who was told."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Case, F, Q, When
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.core.alerts import AlertState, Grouping, NoticeState, Sensitivity
from django_ratelimit_tiers.core.webhooks import MOST_URL
from django_ratelimit_tiers.models.choices import (
    ALERT_EVENTS,
    ALERT_KINDS,
    ALERT_STATES,
    CHANNELS,
    GROUPINGS,
    NOTICE_STATES,
    SENSITIVITIES,
)
from django_ratelimit_tiers.models.constraints import UniqueKeyConstraint, one_of, unique_key
from django_ratelimit_tiers.models.fields import EmailsField, ExactCharField, validate_webhook
from django_ratelimit_tiers.querysets import NaturalQuerySet


class AlertRule(models.Model):
    """What is watched, how sensitively, and who is told."""

    natural_fields = ("name",)

    name = models.CharField(_("name"), max_length=100, unique=True)
    kind = ExactCharField(_("what to look for"), max_length=20, choices=ALERT_KINDS)
    is_active = models.BooleanField(_("active"), default=True)
    sensitivity = ExactCharField(
        _("sensitivity"),
        max_length=10,
        choices=SENSITIVITIES,
        default=Sensitivity.NORMAL.value,
    )
    minimum_volume = models.PositiveIntegerField(
        _("minimum volume"),
        default=20,
        help_text=_(
            "Spikes: fewer refusals in a minute are never one. Many addresses or accounts: how "
            "many of them in an hour are too many. Otherwise: smaller limits are not looked at."
        ),
    )
    grouping = ExactCharField(
        _("watch"),
        max_length=10,
        choices=GROUPINGS,
        default=Grouping.TOTAL.value,
        help_text=_("These four fields narrow down spikes; the other kinds look at everything."),
    )
    policy = models.CharField(
        _("policy"),
        max_length=150,
        blank=True,
        help_text=_("Only this one, written as in throttle counts: free-minute. Empty for all."),
    )
    endpoint = models.CharField(
        _("endpoint"),
        max_length=255,
        blank=True,
        help_text=_("Only this one, written as in throttle counts: GET api/search/."),
    )
    tier = models.CharField(
        _("tier"), max_length=50, blank=True, help_text=_("Only the tier with this slug.")
    )
    cooldown = models.PositiveIntegerField(
        _("cool-down"),
        default=3600,
        help_text=_("In seconds: an alert of the same cause is not raised again before."),
    )
    emails = EmailsField(
        _("e-mail addresses"), blank=True, help_text=_("Who is told, one on each line.")
    )
    webhook_url = models.CharField(
        _("webhook"),
        max_length=MOST_URL,
        blank=True,
        validators=(validate_webhook,),
        help_text=_("An http or https address that accepts JSON."),
    )
    webhook_secret = models.CharField(
        _("webhook secret"),
        max_length=255,
        blank=True,
        help_text=_("Signs what is sent to the webhook."),
    )

    objects = NaturalQuerySet.as_manager()

    class Meta:
        verbose_name = _("alert rule")
        verbose_name_plural = _("alert rules")
        ordering = ("name",)
        constraints = (
            one_of("kind", ALERT_KINDS),
            one_of("sensitivity", SENSITIVITIES),
            one_of("grouping", GROUPINGS),
            models.CheckConstraint(
                condition=Q(webhook_url="")
                | Q(webhook_url__startswith="http://")
                | Q(webhook_url__startswith="https://"),
                name="rlt_%(class)s_webhook_by_http",
            ),
        )

    def __str__(self) -> str:
        return self.name

    def natural_key(self) -> tuple[str]:
        """Return by what other installations know the rule."""
        return (self.name,)

    def clean(self) -> None:
        """Write the webhook's scheme as the database wants it; refuse what would not be used."""
        super().clean()
        if ": " in self.name:
            message = _("Leave out “: ”: what follows it in an alert is what the rule has found.")
            raise ValidationError({"name": message})
        if self.webhook_secret and not self.webhook_url:
            raise ValidationError({"webhook_url": _("A secret is only used with a webhook.")})
        scheme, mark, rest = self.webhook_url.partition("://")
        self.webhook_url = scheme.lower() + mark + rest


class Alert(models.Model):
    """Something unusual that was seen; one of each cause at a time.

    `detail` holds the top subjects, endpoints and addresses, `alarm` what the detector needs to go
    on from one minute to the next.
    """

    kind = ExactCharField(_("kind"), max_length=20, choices=ALERT_KINDS)
    cause = ExactCharField(_("cause"), max_length=255)
    rule = models.ForeignKey(
        AlertRule,
        verbose_name=_("alert rule"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="alerts",
    )
    state = ExactCharField(
        _("state"), max_length=15, choices=ALERT_STATES, default=AlertState.OPEN.value
    )
    opened_at = models.DateTimeField(_("opened at"))
    last_seen_at = models.DateTimeField(_("last seen at"))
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("acknowledged by"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    acknowledged_at = models.DateTimeField(_("acknowledged at"), null=True, blank=True)
    peak = models.FloatField(_("peak"), default=0)
    baseline = models.FloatField(_("baseline"), default=0)
    detail = models.JSONField(_("detail"), default=dict, blank=True)
    alarm = models.JSONField(_("alarm"), default=dict, blank=True, editable=False)

    open_cause = unique_key(
        Case(When(~Q(state=AlertState.CLOSED.value), then=F("cause"))),
        ExactCharField(max_length=255, null=True),
    )

    class Meta:
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        ordering = ("-opened_at",)
        constraints = (
            one_of("kind", ALERT_KINDS),
            one_of("state", ALERT_STATES),
            models.CheckConstraint(
                condition=Q(state=AlertState.CLOSED.value, closed_at__isnull=False)
                | (~Q(state=AlertState.CLOSED.value) & Q(closed_at__isnull=True)),
                name="rlt_%(class)s_closed_at_if_closed",
            ),
            UniqueKeyConstraint(fields=("open_cause",), name="rlt_%(class)s_one_open_per_cause"),
        )
        indexes = (models.Index(fields=("cause", "opened_at"), name="rlt_alert_cause"),)

    def __str__(self) -> str:
        return str(self.cause)


class SeriesHour(models.Model):
    """One hour of a series that an alert rule watches: what later hours are compared with."""

    rule = models.ForeignKey(
        AlertRule, verbose_name=_("alert rule"), on_delete=models.CASCADE, related_name="hours"
    )
    series = ExactCharField(_("series"), max_length=255, blank=True)
    hour = models.DateTimeField(_("hour"))
    total = models.PositiveBigIntegerField(_("refusals"), default=0)
    peak = models.PositiveBigIntegerField(_("highest minute"), default=0)

    class Meta:
        verbose_name = _("hour of a series")
        verbose_name_plural = _("hours of series")
        ordering = ("-hour",)
        constraints = (
            models.UniqueConstraint(
                fields=("rule", "series", "hour"), name="rlt_%(class)s_one_each"
            ),
        )

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:%M} {self.series}: {self.total}"


class AlertNotice(models.Model):
    """One message about an alert to one target, sent once."""

    alert = models.ForeignKey(
        Alert, verbose_name=_("alert"), on_delete=models.CASCADE, related_name="notices"
    )
    event = ExactCharField(_("event"), max_length=10, choices=ALERT_EVENTS)
    channel = ExactCharField(_("channel"), max_length=10, choices=CHANNELS)
    target = ExactCharField(_("target"), max_length=MOST_URL)
    state = ExactCharField(
        _("state"), max_length=10, choices=NOTICE_STATES, default=NoticeState.PENDING.value
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True, blank=True)
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    error = models.CharField(_("last error"), max_length=255, blank=True)

    class Meta:
        verbose_name = _("alert notice")
        verbose_name_plural = _("alert notices")
        ordering = ("pk",)
        constraints = (
            one_of("event", ALERT_EVENTS),
            one_of("channel", CHANNELS),
            one_of("state", NOTICE_STATES),
            models.UniqueConstraint(
                fields=("alert", "event", "channel", "target"), name="rlt_%(class)s_sent_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_event_display()}: {self.target}"
