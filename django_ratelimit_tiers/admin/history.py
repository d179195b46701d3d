"""The pages of what was refused, who used how much, and how the policy was edited."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html_join
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.pages import ReadOnlyAdmin
from django_ratelimit_tiers.models import (
    PolicyRevision,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.models.words import number_words
from django_ratelimit_tiers.policy.explanations import explain


@admin.register(ThrottleCount)
class ThrottleCountAdmin(ReadOnlyAdmin):
    """Refusals by minute, hour or day."""

    list_display = (
        "minute",
        "resolution",
        "count",
        "policy",
        "endpoint",
        "tier",
        "subject",
        "mode",
    )
    list_filter = ("resolution", "mode", "minute")
    search_fields = ("policy", "endpoint", "subject")
    date_hierarchy = "minute"


@admin.register(ThrottleEvent)
class ThrottleEventAdmin(ReadOnlyAdmin):
    """A sample of refused requests."""

    list_display = ("at", "request", "subject", "address", "policy", "retry_after", "mode")
    list_filter = ("mode", "at")
    search_fields = ("subject", "address", "path", "policy", "=decision_id")
    date_hierarchy = "at"

    @admin.display(description=_("request"), ordering="path")
    def request(self, event: ThrottleEvent) -> str:
        return Truncator(f"{event.method} {event.path}").chars(60)

    readonly_fields = ("explanation",)

    @admin.display(description=_("explanation"))
    def explanation(self, event: ThrottleEvent) -> str:
        """Say why the request was refused and how things stand now."""
        return format_html_join("\n", "<div>{}</div>", ((line,) for line in explain(event)))


@admin.register(UsageCount)
class UsageCountAdmin(ReadOnlyAdmin):
    """The busiest subjects of each hour."""

    list_display = ("hour", "subject", "allowed", "refused")
    list_filter = ("hour",)
    search_fields = ("subject",)
    date_hierarchy = "hour"


@admin.register(PolicyRevision)
class PolicyRevisionAdmin(ReadOnlyAdmin):
    """Every edit of the policy."""

    list_display = ("id", "created_at", "model", "reason", "concerns", "author")
    list_filter = ("model", "created_at")
    search_fields = ("reason", "subjects")
    list_select_related = ("author",)

    @admin.display(description=_("concerns"))
    def concerns(self, revision: PolicyRevision) -> str:
        first, *others = revision.subjects or [gettext("everyone")]
        if not others:
            return str(first)
        words = {"first": first, "others": number_words(len(others))}
        return gettext("%(first)s and %(others)s more") % words
