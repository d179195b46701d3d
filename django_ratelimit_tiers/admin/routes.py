"""The names of the project's own views, for those who choose one for a rule."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from django.contrib.admin.widgets import AdminTextInputWidget
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString


def view_names() -> list[str]:
    """Return every view name that a request of this project can resolve to."""
    return sorted(set(_names(get_resolver(), ())))


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


def _names(resolver: URLResolver, namespaces: tuple[str, ...]) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield ":".join((*namespaces, pattern.name or pattern.lookup_str))
        else:
            inner = (*namespaces, pattern.namespace) if pattern.namespace else namespaces
            yield from _names(pattern, inner)
