"""The names of the project's own views, for those who choose one for a rule."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from django.contrib.admin.widgets import AdminTextInputWidget
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from django_ratelimit_tiers.policy.routes import route_map


def view_names() -> list[str]:
    """Return what a rule may call the views of this project: names of routes, and dotted paths."""
    endpoints = route_map().endpoints
    return sorted({name for one in endpoints for name in (*one.view_names, one.view_path)})


def similar_names(name: str) -> list[str]:
    """Return the view names that somebody may have meant by this one."""
    return get_close_matches(name, view_names(), n=3)


class ViewNameInput(AdminTextInputWidget):
    """A text input that suggests the project's view names."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        suggestions = f"{name}-suggestions"
        attrs = {**(attrs or {}), "list": suggestions, "autocomplete": "off"}
        return format_html(
            '{}<datalist id="{}">{}</datalist>',
            super().render(name, value, attrs, renderer),
            suggestions,
            format_html_join("", '<option value="{}"></option>', ((n,) for n in view_names())),
        )
