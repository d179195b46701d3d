"""The fields of a form in which staff types numbers, and periods: in seconds, or "5 minutes"."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.forms.models import InlineForeignKeyField
from django.utils.translation import gettext_lazy as _

UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 7 * 86_400}

HELP = _("In seconds, or in words: “minute”, “5 minutes”, “6 hours”, “1 day”, “2 weeks”.")

INVALID = _("Write a period like 300 or “5 minutes”.")

_WORDS = re.compile(rf"([0-9]{{0,12}})\s*({'|'.join(UNITS)})s?", re.IGNORECASE)


class NumberField(forms.IntegerField):
    """A whole number; 5.000 is none, for it is five thousand to some and five to Django."""

    default_error_messages: ClassVar[Any] = {"point": _("Write a number without points: 5000.")}

    def to_python(self, value: Any) -> int | None:
        """Return the number; raises ValidationError for what has a point in it."""
        if "." in str(value):
            raise ValidationError(self.error_messages["point"], "point")
        return super().to_python(value)


class PeriodField(NumberField):
    """A whole number of seconds that can also be typed in words; shown as a number."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"widget": forms.TextInput({"size": 12})})

    def to_python(self, value: Any) -> int | None:
        """Return seconds; raises ValidationError for what is neither a number nor a period."""
        words = _WORDS.fullmatch(str(value).strip())
        if words is None:
            return super().to_python(value)
        return int(words[1] or 1) * UNITS[words[2].lower()]


class LimitForm(forms.ModelForm):
    """A limit whose period can be typed in words."""

    class Meta:
        field_classes = {"requests": NumberField, "period": PeriodField, "burst": NumberField}
        help_texts = {"period": HELP}
        error_messages = {"period": {"invalid": INVALID, "point": INVALID}}

    def _get_validation_exclusions(self) -> set[str]:
        """Leave duplicates to the check of all rows together: rows may change places."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # no stub
        parents = (
            name for name, field in self.fields.items() if isinstance(field, InlineForeignKeyField)
        )
        return excluded.union(parents)
