"""Links between the pages of the admin, and the names of those that subjects stand for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

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


def row_link(row: Model, text: str = "") -> str:
    """Return a link to the page of a row; only its text where the admin has no such page."""
    text = text or str(row)
    try:
        url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return text
    return format_html('<a href="{}">{}</a>', url, text)


def list_link(model: type[Model], text: Any, **filters: Any) -> SafeString:
    """Return a link to the list of a model of this package, filtered."""
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return format_html('<a href="{}?{}">{}</a>', url, urlencode(filters), text)


def subject_links(subject: str) -> SafeString:
    """Return who a subject is, and links to everything that is known of it."""
    models = (ThrottleCount, ThrottleEvent, UsageCount)
    lists = [(list_link(m, m._meta.verbose_name_plural, subject=subject),) for m in models]
    who = _who(subject)
    named = format_html("{} ({})", subject, row_link(who)) if who else subject
    return format_html("{} · {}", named, format_html_join(" · ", "{}", lists))


def _who(subject: str) -> Model | None:
    """Return the user or service account behind a subject, if there is one."""
    kind, _, key = subject.partition(":")
    models: dict[str, Any] = {"user": get_user_model(), "account": ServiceAccount}
    try:
        found: Model | None = models[kind]._default_manager.filter(pk=key).first()
    except (KeyError, ValueError, ValidationError):  # another kind, or no key of these models
        return None
    return found
