"""What the admin pages of this package have in common."""

from __future__ import annotations

from typing import Any

import django
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import model_ngettext
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth import get_permission_codename
from django.db import router, transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.models.history import edits_by


class IdInput(ForeignKeyRawIdWidget):
    """A typed id that does not tell whose it is."""

    def label_and_url_for_value(self, value: Any) -> tuple[str, str]:
        return "", ""


class PolicyAdmin(admin.ModelAdmin):
    """An admin whose edits are recorded with the staff member who made them."""

    def changeform_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        with edits_by(request.user):
            return super().changeform_view(request, *args, **options)

    def changelist_view(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        with edits_by(request.user):
            return super().changelist_view(request, *args, **options)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        with edits_by(request.user):
            return super().delete_view(request, object_id, extra_context)

    def own_page(self, request: HttpRequest, name: str, title: str, **context: Any) -> HttpResponse:
        """Return a page that Django's admin does not have, by the name of its template."""
        shown = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "has_view_permission": self.has_view_or_change_permission(request),
            "breadcrumbs_are_a_list": django.VERSION >= (6, 1),  # as Django's own write them
            **context,
        }
        return TemplateResponse(request, f"admin/django_ratelimit_tiers/{name}.html", shown)

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        """Return the relations this staff member may search; the others are typed as ids."""
        return [name for name in self.raw_id_fields if self._is_searchable(request, name)]

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Name nobody to staff who may not view them: whoever types ids would learn all names."""
        site, related = self.admin_site, db_field.related_model
        own = site.get_model_admin(related) if site.is_registered(related) else None
        if db_field.name in self.raw_id_fields and own and not own.has_view_permission(request):
            options["widget"] = IdInput(db_field.remote_field, site)
        return super().formfield_for_foreignkey(db_field, request, **options)

    def _is_searchable(self, request: HttpRequest, name: str) -> bool:
        related = self.model._meta.get_field(name).related_model
        if not self.admin_site.is_registered(related):
            return False
        own = self.admin_site.get_model_admin(related)
        return bool(own.search_fields) and own.has_view_permission(request)


class ModeAdmin(PolicyAdmin):
    """An admin of rows that have a mode, which actions change."""

    actions: tuple[str, ...] = ("enforce", "shadow")

    @admin.action(description=_("Enforce selected %(verbose_name_plural)s"), permissions=["change"])
    def enforce(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.set_mode(request, queryset, Mode.ENFORCE)

    @admin.action(
        description=_("Put selected %(verbose_name_plural)s into shadow mode"),
        permissions=["change"],
    )
    def shadow(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self.set_mode(request, queryset, Mode.SHADOW)

    def set_mode(self, request: HttpRequest, queryset: QuerySet[Any], mode: Mode) -> None:
        """Give the rows a mode, with an entry in the history of each that had another one."""
        queryset = where_written(queryset)
        with transaction.atomic(using=queryset.db):
            rows = list(queryset.exclude(mode=mode))
            stored = self.model._default_manager.using(queryset.db)
            stored.filter(pk__in=[row.pk for row in rows]).update(mode=mode)
            log_changes(request, rows, "mode")
        words = {"n": len(rows), "rows": model_ngettext(self.opts, len(rows))}
        message = ngettext("%(n)s %(rows)s was changed.", "%(n)s %(rows)s were changed.", len(rows))
        self.message_user(request, message % words, messages.SUCCESS)


def where_written(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return the rows that an action is to change, where they are written: no replica."""
    return queryset.using(router.db_for_write(queryset.model))


class ReadOnlyAdmin(admin.ModelAdmin):
    """An admin of rows that only the machinery writes."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ExpiryFilter(admin.SimpleListFilter):
    """Rows that have expired, or have not."""

    title = _("expiry")
    parameter_name = "expired"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("no", _("not expired")), ("yes", _("expired"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        expired = Q(expires_at__lte=timezone.now())
        if self.value() == "yes":
            return queryset.filter(expired)
        return queryset.exclude(expired) if self.value() == "no" else queryset


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Return whether the permissions of a staff member let them view the rows of a model."""
    options, staff = model._meta, request.user
    names = (get_permission_codename(action, options) for action in ("view", "change"))
    return any(staff.has_perm(f"{options.app_label}.{name}") for name in names)


def log_changes(request: HttpRequest, rows: list[Model], field: str) -> None:
    """Add an entry to the history of each row: this field was changed."""
    staff: Any = request.user
    if rows:
        LogEntry.objects.log_actions(
            user_id=staff.pk,
            queryset=rows,
            action_flag=CHANGE,
            change_message=[{"changed": {"fields": [field]}}],
        )
