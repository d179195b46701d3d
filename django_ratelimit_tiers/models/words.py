"""Numbers, periods, limits and models in words: for the admin, previews and reports."""

from __future__ import annotations

from django.apps import apps
from django.utils.formats import number_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy, override

from django_ratelimit_tiers.core.policies import QuotaPolicy

UNITS = (
    (7 * 86_400, ngettext_lazy("week", "%(n)s weeks", "n")),
    (86_400, ngettext_lazy("day", "%(n)s days", "n")),
    (3_600, ngettext_lazy("hour", "%(n)s hours", "n")),
    (60, ngettext_lazy("minute", "%(n)s minutes", "n")),
    (1, ngettext_lazy("second", "%(n)s seconds", "n")),
)


def number_words(number: int) -> str:
    """Return a number with its thousands apart: "5,000"."""
    return number_format(number, force_grouping=True)


def period_words(seconds: int) -> str:
    """Return a period in its largest whole unit: "minute", "6 hours", "90 seconds"."""
    size, words = next(unit for unit in UNITS if seconds % unit[0] == 0)
    return words % {"n": seconds // size}


def limit_words(requests: int, period: int, burst: int | None = None) -> str:
    """Return a limit as a phrase: "60 per minute, burst 100"."""
    rate = {"requests": number_words(requests), "period": period_words(period)}
    phrase = _("%(requests)s per %(period)s") % rate
    if burst is None:
        return phrase
    return _("%(limit)s, burst %(burst)s") % {"limit": phrase, "burst": number_words(burst)}


def policy_words(policy: QuotaPolicy) -> str:
    """Return the limit of a policy as a phrase in English, whatever language is active."""
    with override("en"):
        return limit_words(policy.requests, policy.period, policy.burst)


def model_words(label: str) -> str:
    """Return the name of a model in words: "Endpoint rule"; the label of one that has gone."""
    try:
        return str(capfirst(apps.get_model(label)._meta.verbose_name))
    except (LookupError, ValueError):
        return label
