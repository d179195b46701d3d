"""Links between the pages of the admin, and the names of those that subjects stand for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.pages import may_view
from django_ratelimit_tiers.models import (
    ServiceAccount,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)


class LinkingAdmin(admin.ModelAdmin):
    """An admin whose pages link to what their reader may see."""

    def get_object(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Let a row know for whom it is shown: what shows its links is told nothing else."""
        row: Any = super().get_object(request, *args, **options)
        if row is not None:
            row.shown_for = request
        return row

    def may_see(self, page: Any, model: type[Model]) -> bool:
        """Return whether the reader of the page of a row may view the rows of a model."""
        request = page.shown_for
        if self.admin_site.is_registered(model):
            return self.admin_site.get_model_admin(model).has_view_permission(request)
        return may_view(request, model)

    def row_link(self, page: Any, row: Model, text: str = "") -> str:
        """Return a link to the page of a row; only its text where there is none for the reader."""
        return self._link(page, type(row), "change", [row.pk], "", text or str(row))

    def list_link(self, page: Any, model: type[Model], text: Any, **filters: Any) -> str:
        """Return a link to a filtered list; only its text where there is none for the reader."""
        return self._link(page, model, "changelist", [], f"?{urlencode(filters)}", text)

    def subject_links(self, page: Any) -> SafeString:
        """Return who the subject of a row is, and links to everything that is known of it."""
        subject, models = page.subject, (ThrottleCount, ThrottleEvent, UsageCount)
        links = (
            (self.list_link(page, m, m._meta.verbose_name_plural, subject=subject),) for m in models
        )
        who, named = _who(subject), subject
        if who is not None and self.may_see(page, type(who)):
            named = format_html("{} ({})", subject, self.row_link(page, who))
        return format_html("{} · {}", named, format_html_join(" · ", "{}", links))

    def _link(
        self, page: Any, model: type[Model], view: str, args: list[Any], query: str, text: Any
    ) -> str:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}"
        if not self.may_see(page, model):
            return str(text)
        try:
            url = reverse(name, args=args, current_app=self.admin_site.name)
        except NoReverseMatch:
            return str(text)
        return format_html('<a href="{}{}">{}</a>', url, query, text)


class RelatedAdmin(LinkingAdmin):
    """An admin whose pages of rows that exist end with links to related lists."""

    readonly_fields = ("related",)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        related = (_("Related"), {"fields": ("related",)})
        return (*super().get_fieldsets(request, obj), *([related] if obj else []))

    @admin.display(description=_("see"))
    def related(self, row: Any) -> str:
        return format_html_join(" · ", "{}", ((link,) for link in self.related_links(row)))

    def related_links(self, row: Any) -> tuple[str, ...]:
        """Return a link to each list."""
        raise NotImplementedError


def _who(subject: str) -> Model | None:
    """Return the user or service account behind a subject, if there is one."""
    kind, _, key = subject.partition(":")
    models: dict[str, Any] = {"user": get_user_model(), "account": ServiceAccount}
    try:
        found: Model | None = models[kind]._default_manager.filter(pk=key).first()
    except (KeyError, ValueError, ValidationError):  # another kind, or no key of these models
        return None
    return found
