"""The pages of endpoint rules."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import escape, format_html_join
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.limits import LimitedAdmin, RulePolicyInline
from django_ratelimit_tiers.admin.links import RelatedAdmin
from django_ratelimit_tiers.admin.pages import ModeAdmin
from django_ratelimit_tiers.admin.periods import NumberField
from django_ratelimit_tiers.admin.routes import ViewNameInput, similar_names, view_names
from django_ratelimit_tiers.admin.trials import TrialAdmin
from django_ratelimit_tiers.admin.words import count_words, limit_lines, request_words
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.rules import Count, IdentifyBy
from django_ratelimit_tiers.models import EndpointRule, ThrottleCount, ThrottleEvent
from django_ratelimit_tiers.policy.compilation import policy_names


class EndpointRuleForm(forms.ModelForm):
    """A rule whose view exists."""

    class Meta:
        model = EndpointRule
        fields = "__all__"  # noqa: DJ007 (staff edits every field)
        field_classes = {"cost": NumberField}
        widgets = {
            "path": AdminTextInputWidget({"class": "vTextField", "spellcheck": "false"}),
            "view_name": ViewNameInput({"class": "vTextField", "spellcheck": "false"}),
            "notes": forms.Textarea({"rows": 3, "class": "vLargeTextField"}),
        }

    def clean_view_name(self) -> str:
        """Refuse a new name that no view has; one that was right before may stay."""
        name: str = self.cleaned_data["view_name"]
        if not name or "view_name" not in self.changed_data or name in view_names():
            return name
        self.instance.view_name = name  # or the rule would also be told that it has none
        if similar := similar_names(name):
            message = _("No view of this project has this name. Is it one of %(similar)s?")
            raise ValidationError(message, "unknown", {"similar": ", ".join(similar)})
        raise ValidationError(_("No view of this project has this name."), "unknown")


class LimitTierFilter(admin.RelatedFieldListFilter):
    """Rules with a limit for a tier, or for no tier in particular."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.empty_value_display = escape(gettext("no tier in particular"))


@admin.register(EndpointRule)
class EndpointRuleAdmin(ModeAdmin, LimitedAdmin, TrialAdmin, RelatedAdmin):
    """Endpoint rules with their limits."""

    form = EndpointRuleForm
    inlines = (RulePolicyInline,)
    list_display = ("name", "requests", "limits", "counted_by", "in_force")
    list_filter = ("mode", "exempt", "identify_by", "count", ("policies__tier", LimitTierFilter))
    search_fields = ("name", "path", "view_name", "notes")
    actions = (*ModeAdmin.actions, "turn_off")
    save_as = True
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (_("Which requests"), {"fields": ("path", "view_name", "methods")}),
        (
            _("How they are counted"),
            {"fields": ("identify_by", "request_field", "count", "scope", "cost")},
        ),
        (
            _("What follows"),
            {"fields": ("tier_policies", "exempt", "disclose", "on_store_failure")},
        ),
        (
            _("When, and why"),
            {"fields": (("starts_at", "ends_at"), "notes"), "classes": ("collapse",)},
        ),
    )

    def related_links(self, rule: EndpointRule) -> tuple[str, ...]:
        """Lead from a rule to what it refused, or would have refused."""
        policies = ",".join(policy_names(rule))
        return (
            self.list_link(rule, ThrottleCount, _("throttle counts"), policy__in=policies),
            self.list_link(rule, ThrottleEvent, _("throttle events"), rule=rule.name),
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("policies__tier")

    @admin.display(description=_("requests"), ordering="path")
    def requests(self, rule: EndpointRule) -> str:
        return request_words(rule.methods, rule.path, rule.view_name)

    @admin.display(description=_("limits"))
    def limits(self, rule: EndpointRule) -> str:
        if rule.exempt:
            return gettext("exempt")
        rows = ((limit.tier and limit.tier.name, limit) for limit in rule.policies.all())
        lines = [*limit_lines(rows), *count_words(rule.cost, rule.count == Count.FAILED)]
        return format_html_join("\n", "<div>{}</div>", ((line,) for line in lines))

    @admin.display(description=_("count by"), ordering="identify_by")
    def counted_by(self, rule: EndpointRule) -> str:
        if rule.identify_by == IdentifyBy.FIELD:
            return gettext("field “%(name)s” of the request") % {"name": rule.request_field}
        return rule.get_identify_by_display()

    @admin.display(description=_("in force"), ordering="mode")
    def in_force(self, rule: EndpointRule) -> str:
        now = timezone.now()
        if rule.mode == Mode.OFF:
            return gettext("no")
        if rule.starts_at and rule.starts_at > now:
            return gettext("not yet")
        if rule.ends_at and rule.ends_at <= now:
            return gettext("no longer")
        return gettext("only recorded") if rule.mode == Mode.SHADOW else gettext("yes")

    @admin.action(description=_("Turn selected endpoint rules off"), permissions=["change"])
    def turn_off(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.set_mode(request, queryset, Mode.OFF)
