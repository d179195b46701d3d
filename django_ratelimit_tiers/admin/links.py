"""Links between the pages of the admin, and the names of those that subjects stand for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from django_ratelimit_tiers.models import (
    ServiceAccount,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)


def row_link(site: AdminSite, row: Model, text: str = "") -> str:
    """Return a link to the page of a row; only its text where the site has no such page."""
    return _link(site, type(row), "change", [row.pk], "", text or str(row))


def list_link(site: AdminSite, model: type[Model], text: Any, **filters: Any) -> str:
    """Return a link to the filtered list of a model; only its text where the site has none."""
    return _link(site, model, "changelist", [], f"?{urlencode(filters)}", text)


def subject_links(site: AdminSite, subject: str) -> SafeString:
    """Return who a subject is, and links to everything that is known of it."""
    models = (ThrottleCount, ThrottleEvent, UsageCount)
    lists = [(list_link(site, m, m._meta.verbose_name_plural, subject=subject),) for m in models]
    who = _who(subject)
    named = format_html("{} ({})", subject, row_link(site, who)) if who else subject
    return format_html("{} · {}", named, format_html_join(" · ", "{}", lists))


def _link(
    site: AdminSite, model: type[Model], view: str, args: list[Any], query: str, text: Any
) -> str:
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}"
    try:
        url = reverse(name, args=args, current_app=site.name)
    except NoReverseMatch:
        return str(text)
    return format_html('<a href="{}{}">{}</a>', url, query, text)


def _who(subject: str) -> Model | None:
    """Return the user or service account behind a subject, if there is one."""
    kind, _, key = subject.partition(":")
    models: dict[str, Any] = {"user": get_user_model(), "account": ServiceAccount}
    try:
        found: Model | None = models[kind]._default_manager.filter(pk=key).first()
    except (KeyError, ValueError, ValidationError):  # another kind, or no key of these models
        return None
    return found
