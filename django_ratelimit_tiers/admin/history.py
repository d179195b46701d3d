"""The pages of what was refused, who used how much, and how the policy was edited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename, get_user_model
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.links import LinkingAdmin
from django_ratelimit_tiers.admin.pages import ReadOnlyAdmin, log_changes
from django_ratelimit_tiers.admin.words import moment_words
from django_ratelimit_tiers.core.refusals import OTHERS, printable
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import (
    EndpointRule,
    PolicyRevision,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.models.words import model_words, number_words
from django_ratelimit_tiers.policy.explanations import explain
from django_ratelimit_tiers.policy.revisions import start_anew
from django_ratelimit_tiers.store.configured import configured_store

MOST_RESETS = 1_000
"""How many clients one action lets start anew; each is a call of the store."""


class ClientHistoryAdmin(LinkingAdmin, ReadOnlyAdmin):
    """History of clients, which staff can let start anew."""

    actions = ("start_anew",)

    @admin.display(description=_("subject"))
    def client(self, row: Any) -> str:
        return self.subject_links(row)

    @admin.action(description=_("Let the clients start anew"), permissions=["reset"])
    def start_anew(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Forget what the subjects of the rows have used; their limits stay."""
        done, level = self._reset(request, queryset.exclude(subject=OTHERS))
        self.message_user(request, done, level)

    def _reset(self, request: HttpRequest, queryset: QuerySet[Any]) -> tuple[str, int]:
        if not configured_store().shared:
            message = gettext("Each process counts in its own memory, which no other can reset.")
            return message, messages.ERROR
        # History is long and subjects are few: the database is asked for them, not for all rows.
        subjects = queryset.order_by().values_list("subject").annotate(Max("pk"))
        rows = dict(subjects[: MOST_RESETS + 1])
        if len(rows) > MOST_RESETS:
            message = gettext("Select fewer: at most %(n)s clients.")
            return message % {"n": number_words(MOST_RESETS)}, messages.ERROR
        try:
            for subject in rows:
                start_anew(subject)
        except StoreUnavailable:
            return gettext("The store does not answer: try again."), messages.ERROR
        log_changes(request, list(self.model.objects.in_bulk(rows.values()).values()), "usage")
        message = ngettext("%(n)s client starts anew.", "%(n)s clients start anew.", len(rows))
        return message % {"n": len(rows)}, messages.SUCCESS

    def has_reset_permission(self, request: HttpRequest) -> bool:
        """Whoever may change this history may let its clients start anew, and nothing else."""
        codename = get_permission_codename("change", self.opts)
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")


@admin.register(ThrottleCount)
class ThrottleCountAdmin(ClientHistoryAdmin):
    """Refusals by minute, hour or day."""

    list_display = (
        "time",
        "resolution",
        "count",
        "policy",
        "mode",
        "subject",
        "endpoint",
        "tier",
    )
    list_filter = ("resolution", "mode", "minute")
    search_fields = ("policy", "endpoint", "subject")
    fields = ("time", "resolution", "count", "policy", "tier", "endpoint", "mode", "client")
    readonly_fields = ("time", "client")

    @admin.display(description=_("time"), ordering="minute")
    def time(self, count: ThrottleCount) -> str:
        return moment_words(count.minute)


@admin.register(ThrottleEvent)
class ThrottleEventAdmin(ClientHistoryAdmin):
    """A sample of refused requests."""

    list_display = ("time", "request", "policy", "mode", "wait", "subject", "address")
    list_filter = ("mode", "at")
    search_fields = ("subject", "address", "path", "policy", "=decision_id")
    search_help_text = _("A subject, an address, a path, a policy or the id of a decision.")
    readonly_fields = ("explanation", "time", "client", "rule_link", "wait", "revision_link")
    fieldsets = (
        (None, {"fields": ("explanation",)}),
        (_("Request"), {"fields": ("time", "method", "path", "endpoint", "user_agent")}),
        (_("Client"), {"fields": ("client", "address", "tier")}),
        (
            _("Decision"),
            {"fields": ("policy", "rule_link", "mode", "wait", "decision_id", "revision_link")},
        ),
    )

    @admin.display(description=_("time"), ordering="at")
    def time(self, event: ThrottleEvent) -> str:
        return moment_words(event.at)

    @admin.display(description=_("request"), ordering="path")
    def request(self, event: ThrottleEvent) -> str:
        return Truncator(f"{event.method} {event.path}").chars(60)

    @admin.display(description=_("retry after"), ordering="retry_after")
    def wait(self, event: ThrottleEvent) -> str:
        if event.retry_after is None:
            return self.get_empty_value_display()
        return gettext("%(n)s s") % {"n": number_words(event.retry_after)}

    @admin.display(description=_("rule"))
    def rule_link(self, event: ThrottleEvent) -> str:
        known = EndpointRule.objects.only("name") if event.rule else ()
        rule = next((rule for rule in known if printable(rule.name) == event.rule), None)
        if rule is None:
            return event.rule or self.get_empty_value_display()
        return self.row_link(event, rule)

    @admin.display(description=_("revision"))
    def revision_link(self, event: ThrottleEvent) -> str:
        if event.revision is None:
            return self.get_empty_value_display()
        revision = PolicyRevision.objects.filter(pk=event.revision).first()
        if revision is None:
            return str(event.revision)
        return self.row_link(event, revision, str(revision.pk))

    @admin.display(description=_("explanation"))
    def explanation(self, event: ThrottleEvent) -> str:
        """Say why the request was refused and how things stand now."""
        lines = explain(event, names_authors=self.may_see(event, get_user_model()))
        return format_html_join("\n", "<div>{}</div>", ((line,) for line in lines))


@admin.register(UsageCount)
class UsageCountAdmin(ClientHistoryAdmin):
    """The busiest subjects of each hour."""

    list_display = ("time", "subject", "allowed", "refused", "hourly_limit")
    list_filter = ("hour",)
    search_fields = ("subject",)
    fields = ("time", "allowed", "refused", "hourly_limit", "client")
    readonly_fields = ("time", "client")

    @admin.display(description=_("hour"), ordering="hour")
    def time(self, usage: UsageCount) -> str:
        return moment_words(usage.hour)


class EditedModelFilter(admin.AllValuesFieldListFilter):
    """The models that were edited, by their names in words."""

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for choice in super().choices(changelist):
            label, space, count = str(choice["display"]).partition(" ")
            yield {**choice, "display": f"{model_words(label)}{space}{count}"}


@admin.register(PolicyRevision)
class PolicyRevisionAdmin(ReadOnlyAdmin):
    """Every edit of the policy."""

    list_display = ("id", "time", "edited", "reason", "concerns", "author")
    list_filter = (("model", EditedModelFilter), "created_at")
    search_fields = ("reason", "subjects")
    list_select_related = ("author",)
    fields = ("id", "time", "edited", "reason", "everybody", "author")
    readonly_fields = ("id", "time", "edited", "everybody")

    @admin.display(description=_("time"), ordering="created_at")
    def time(self, revision: PolicyRevision) -> str:
        return moment_words(revision.created_at)

    @admin.display(description=_("edited"), ordering="model")
    def edited(self, revision: PolicyRevision) -> str:
        return model_words(revision.model)

    @admin.display(description=_("concerns"))
    def concerns(self, revision: PolicyRevision) -> str:
        first, *others = revision.subjects or [gettext("everyone")]
        if not others:
            return str(first)
        words = {"first": first, "others": number_words(len(others))}
        return gettext("%(first)s and %(others)s more") % words

    @admin.display(description=_("concerns"))
    def everybody(self, revision: PolicyRevision) -> str:
        return ", ".join(revision.subjects) or gettext("everyone")
