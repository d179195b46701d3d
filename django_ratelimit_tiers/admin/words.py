"""Limits and rules in the words that lists show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _

from django_ratelimit_tiers.models.tiers import Limit
from django_ratelimit_tiers.models.words import limit_words, number_words


def limits_words(limits: Iterable[Limit]) -> str:
    """Return limits as one line, shortest period first: "60 per minute; 5,000 per day"."""
    ordered = sorted(limits, key=lambda limit: (limit.period, limit.algorithm))
    return "; ".join(limit_words(limit.requests, limit.period, limit.burst) for limit in ordered)


def limit_lines(limits: Iterable[tuple[str | None, Limit]]) -> list[str]:
    """Return the limits of a rule as a line for each tier; None is every other tier."""
    by_tier: dict[str | None, list[Limit]] = defaultdict(list)
    for tier, limit in limits:
        by_tier[tier].append(limit)
    names = sorted(name for name in by_tier if name is not None)
    lines = [_named(name, by_tier[name]) for name in names]
    if None not in by_tier:
        return lines
    if not lines:
        return [limits_words(by_tier[None])]
    return [*lines, _named(_("every other tier"), by_tier[None])]


def count_words(cost: int, only_failed: bool) -> list[str]:
    """Return what is unusual about how a rule counts, on a line each."""
    words = []
    if cost > 1:
        words.append(_("cost %(cost)s") % {"cost": number_words(cost)})
    if only_failed:
        words.append(_("only failed requests"))
    return words


def moment_words(moment: datetime) -> SafeString:
    """Return a moment to the second, with its zone, on one line: people far apart compare them."""
    local = localtime(moment) if is_aware(moment) else moment
    words = date_format(local, "Y-m-d H:i:s T")
    return format_html('<span class="nowrap">{}</span>', words)


def request_words(methods: str, path: str, view_name: str) -> str:
    """Return which requests a rule is about: "GET, POST /api/search"."""
    what = path or _("view %(name)s") % {"name": view_name}
    return f"{methods.replace(',', ', ')} {what}" if methods else what


def _named(tier: str, limits: Iterable[Limit]) -> str:
    return _("%(tier)s: %(limits)s") % {"tier": tier, "limits": limits_words(limits)}
