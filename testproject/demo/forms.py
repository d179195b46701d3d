"""HTML forms as a browser would read them and send them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

Fields = dict[str, list[str]]

Attributes = list[tuple[str, str | None]]

UNSENT = frozenset(("submit", "button", "image", "reset", "file"))


def form_fields(html: str) -> Fields:
    """Return the fields of all POST forms of a page with the values that they show."""
    return _read(html).fields


def errors(html: str) -> list[str]:
    """Return the texts of the page's error lists."""
    return _read(html).errors


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


@dataclass(slots=True)
class _Choice:
    name: str
    is_multiple: bool
    options: list[str] = field(default_factory=list)
    selected: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[str]:
        if self.selected or self.is_multiple:
            return self.selected
        return self.options[:1]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: Fields = {}
        self.errors: list[str] = []
        self._in_form = self._in_errors = False
        self._choice: _Choice | None = None
        self._textarea = ""

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        values = {name: value or "" for name, value in attrs}
        name = values.get("name", "")
        if tag == "form":
            self._in_form = values.get("method", "").lower() == "post"
        elif tag == "ul" and "errorlist" in values.get("class", ""):
            self._in_errors = True
        elif not self._in_form or "disabled" in values:
            return
        elif tag == "input" and name:
            self._read_input(name, values)
        elif tag == "select" and name:
            self._choice = _Choice(name, "multiple" in values)
        elif tag == "option" and self._choice is not None:
            self._choice.options.append(values.get("value", ""))
            if "selected" in values:
                self._choice.selected.append(values.get("value", ""))
        elif tag == "textarea" and name:
            self._textarea = name
            self.fields[name] = [""]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._in_form = False
        elif tag == "ul":
            self._in_errors = False
        elif tag == "select" and self._choice is not None:
            self.fields.setdefault(self._choice.name, []).extend(self._choice.values)
            self._choice = None
        elif tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            text = self.fields[self._textarea]
            text[0] += data if text[0] else data.removeprefix("\n")
        elif self._in_errors and data.strip():
            self.errors.append(data.strip())

    def _read_input(self, name: str, values: dict[str, str]) -> None:
        kind = values.get("type", "text")
        if kind in UNSENT:
            return
        if kind in ("checkbox", "radio"):
            if "checked" in values:
                self.fields.setdefault(name, []).append(values.get("value", "on"))
            return
        self.fields.setdefault(name, []).append(values.get("value", ""))
