"""The pages of alerts and of what raises them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import floatformat
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters

from django_ratelimit_tiers.admin.pages import ReadOnlyAdmin, log_changes, where_written
from django_ratelimit_tiers.admin.periods import NumberField
from django_ratelimit_tiers.admin.words import moment_words
from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.alerts import AlertKind, AlertState
from django_ratelimit_tiers.models import Alert, AlertNotice, AlertRule, SeriesHour
from django_ratelimit_tiers.models.words import number_words
from django_ratelimit_tiers.querysets import primary

MOST_LISTED = 100
"""How many hours of series the page that deletes alert rules lists; there may be very many."""


class AlertRuleForm(forms.ModelForm):
    """An alert rule whose secret is never sent back to a browser."""

    class Meta:
        model = AlertRule
        fields = "__all__"  # noqa: DJ007 (staff edits every field)
        field_classes = {"minimum_volume": NumberField, "cooldown": NumberField}
        widgets = {
            "emails": forms.Textarea({"rows": 3}),
            "webhook_secret": forms.PasswordInput({"autocomplete": "new-password"}),
        }
        help_texts = {"webhook_secret": _("Signs what is sent. Empty: as it is.")}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.initial["webhook_secret"] = ""  # so that only a typed one counts as a change

    def clean(self) -> dict[str, Any]:
        """Keep the secret when none was typed, and forget it together with its webhook."""
        cleaned = super().clean() or self.cleaned_data
        if not cleaned.get("webhook_secret"):
            kept = self.instance.webhook_secret if cleaned.get("webhook_url") else ""
            cleaned["webhook_secret"] = kept
        return cleaned

    def _post_clean(self) -> None:
        """Say that a secret got lost with a form that is refused: it is not sent back either."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors and "webhook_secret" in self.changed_data:
            self.add_error("webhook_secret", _("Type the secret again: it is not shown here."))


@admin.register(AlertRule)
class AlertRuleAdmin(admin.ModelAdmin):
    """What is watched, and who is told."""

    form = AlertRuleForm
    list_display = ("name", "kind", "watched", "sensitivity", "is_active", "told")
    list_filter = ("kind", "is_active", "sensitivity")
    search_fields = ("name", "emails", "policy", "endpoint", "tier")
    fieldsets = (
        (None, {"fields": ("name", "is_active", "kind")}),
        (_("What is watched"), {"fields": ("grouping", "policy", "endpoint", "tier")}),
        (_("How sensitively"), {"fields": ("sensitivity", "minimum_volume", "cooldown")}),
        (
            _("Who is told"),
            {
                "fields": ("emails", "webhook_url", "webhook_secret"),
                "description": _("And whom the settings RECIPIENTS and WEBHOOK name."),
            },
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Keep the secret from those who may only look: they are shown values, not widgets."""
        fieldsets: Any = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        shown = {"webhook_secret": "has_secret"}
        return [
            (title, options | {"fields": [shown.get(name, name) for name in options["fields"]]})
            for title, options in fieldsets
        ]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Tell how many hours of series go with the rules where there are many, and list none."""
        rules = list(objs)
        hours = primary(SeriesHour).filter(rule__in=rules).count()
        if hours <= MOST_LISTED:
            return super().get_deleted_objects(rules, request)
        name, names = self.opts.verbose_name, self.opts.verbose_name_plural
        hours_name = SeriesHour._meta.verbose_name_plural
        listed = [f"{capfirst(name)}: {rule}" for rule in rules]
        is_allowed = all(self.has_delete_permission(request, rule) for rule in rules)
        counts = {names: len(rules), hours_name: hours}
        missing = set() if is_allowed else {name}
        return [*listed, f"{number_words(hours)} {hours_name}"], counts, missing, []

    @method_decorator(sensitive_post_parameters("webhook_secret"))
    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Keep a secret that was typed out of what Django mails of an error."""
        return super().changeform_view(request, *args, **options)

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Refuse to filter by the secret: what is listed would tell it letter by letter."""
        secret = lookup.startswith("webhook_secret")
        return not secret and super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("has a webhook secret"), boolean=True)
    def has_secret(self, rule: AlertRule) -> bool:
        return bool(rule.webhook_secret)

    @admin.display(description=_("watch"), ordering="grouping")
    def watched(self, rule: AlertRule) -> str:
        if rule.kind != AlertKind.SPIKE:
            return ""
        only = ", ".join(filter(None, (rule.policy, rule.endpoint, rule.tier)))
        words = rule.get_grouping_display()
        return (
            gettext("%(watched)s, of %(only)s") % {"watched": words, "only": only}
            if only
            else words
        )

    @admin.display(description=_("who is told"))
    def told(self, rule: AlertRule) -> str:
        emails = dict.fromkeys([*rule.emails.split(), *conf.EVENTS["RECIPIENTS"]])
        webhook = [gettext("webhook")] if rule.webhook_url or conf.EVENTS["WEBHOOK"] else []
        return ", ".join([*emails, *webhook])


class AlertNoticeInline(admin.TabularInline):
    """Who was told of an alert."""

    model = AlertNotice
    fields = ("event", "channel", "target", "state", "attempts", "sent_at", "error")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    """Alerts, which staff can acknowledge."""

    inlines = (AlertNoticeInline,)
    list_display = ("opened", "cause", "explanation", "state", "closed")
    list_filter = ("state", "kind", "opened_at")
    search_fields = ("cause",)
    search_help_text = _("A cause: the name of an alert rule, a subject, an endpoint, a policy.")
    actions = ("acknowledge",)
    readonly_fields = (
        "explanation",
        "opened",
        "last_seen",
        "closed",
        "acknowledged",
        "highest",
        "usual",
        "details",
    )
    fieldsets = (
        (None, {"fields": ("cause", "explanation", "state")}),
        (_("When"), {"fields": ("opened", "last_seen", "closed", "acknowledged")}),
        (_("Why"), {"fields": ("rule", "kind", "highest", "usual", "details")}),
    )

    @admin.display(description=_("explanation"))
    def explanation(self, alert: Alert) -> str:
        return str(alert.detail.get("explanation", "-"))

    @admin.display(description=_("opened at"), ordering="opened_at")
    def opened(self, alert: Alert) -> str:
        return moment_words(alert.opened_at)

    @admin.display(description=_("last seen at"))
    def last_seen(self, alert: Alert) -> str:
        return moment_words(alert.last_seen_at)

    @admin.display(description=_("closed at"), ordering="closed_at")
    def closed(self, alert: Alert) -> str:
        return moment_words(alert.closed_at) if alert.closed_at else self.get_empty_value_display()

    @admin.display(description=_("acknowledged"))
    def acknowledged(self, alert: Alert) -> str:
        if alert.acknowledged_at is None:
            return self.get_empty_value_display()
        name = alert.acknowledged_by or gettext("somebody who has gone")
        return format_html(gettext("{} by {}"), moment_words(alert.acknowledged_at), name)

    @admin.display(description=_("peak"))
    def highest(self, alert: Alert) -> str:
        return floatformat(alert.peak, "-1g")

    @admin.display(description=_("baseline"))
    def usual(self, alert: Alert) -> str:
        return floatformat(alert.baseline, "-1g")

    @admin.display(description=_("what was seen"))
    def details(self, alert: Alert) -> str:
        seen = ((key, value) for key, value in alert.detail.items() if key != "explanation")
        lines = (
            (key, ", ".join(map(str, value)) if isinstance(value, list) else value)
            for key, value in seen
        )
        return format_html_join("\n", "<div><b>{}</b>: {}</div>", lines)

    @admin.action(description=_("Acknowledge selected alerts"), permissions=["acknowledge"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Acknowledge the open ones among the alerts, by this staff member and now."""
        queryset = where_written(queryset)
        with transaction.atomic(using=queryset.db):
            alerts = list(queryset.filter(state=AlertState.OPEN))
            Alert.objects.using(queryset.db).filter(
                pk__in=[alert.pk for alert in alerts], state=AlertState.OPEN
            ).update(
                state=AlertState.ACKNOWLEDGED,
                acknowledged_by=request.user.pk,
                acknowledged_at=timezone.now(),
            )
            log_changes(request, alerts, "state")
        message = ngettext("%(n)s alert acknowledged.", "%(n)s alerts acknowledged.", len(alerts))
        self.message_user(request, message % {"n": len(alerts)}, messages.SUCCESS)

    def has_acknowledge_permission(self, request: HttpRequest) -> bool:
        """Whoever may change alerts may acknowledge them, and nothing else."""
        return request.user.has_perm("django_ratelimit_tiers.change_alert")
