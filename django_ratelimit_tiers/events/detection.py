"""One run of the detectors: every active alert rule looks at the last closed minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.utils import timezone

from django_ratelimit_tiers.core.alerts import AlertKind
from django_ratelimit_tiers.events.alerts import AlertBook, close, unwatched
from django_ratelimit_tiers.events.notices import send_notices
from django_ratelimit_tiers.events.quotas import judge_quotas
from django_ratelimit_tiers.events.watches import (
    DripWatch,
    FarmingWatch,
    RotationWatch,
    SpikeWatch,
    Watch,
)
from django_ratelimit_tiers.models import AlertRule
from django_ratelimit_tiers.querysets import primary
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.records import MARGIN, MINUTE, Records

logger = logging.getLogger("django_ratelimit_tiers.alerts")

LOCK, LOCK_SECONDS = "detect", 60

WATCHES: dict[str, Callable[[AlertRule, int, Records], Watch]] = {
    AlertKind.SPIKE: SpikeWatch,
    AlertKind.IP_ROTATION: RotationWatch,
    AlertKind.ACCOUNT_FARMING: FarmingWatch,
    AlertKind.SLOW_DRIP: DripWatch,
}


def detect_anomalies(*, now: int | None = None) -> int:
    """Judge every rule, send the notices that are due, and return how many were sent.

    Returns 0 when another process is at it. `now` is in epoch seconds, the store's clock if None.
    A run that is repeated or was missed does no harm: each minute is judged again, and changes
    nothing that it changed before. What one rule raises is logged; the others are judged.
    """
    records = configured_store().records
    with records.lock(LOCK, LOCK_SECONDS) as lease:
        if lease is None:
            return 0
        minute = judged_minute(records, records.now() if now is None else now)
        for rule in primary(AlertRule).filter(is_active=True):
            try:
                _judge(rule, minute, records)
            except Exception:  # one rule that fails must not silence the others
                logger.exception("the alert rule %r could not be judged", rule.name)
            if not lease.renew():
                return 0
        for alert in unwatched():
            close(alert, timezone.now())
        return send_notices()


def judged_minute(records: Records, now: int) -> int:
    """Return the last minute, since the epoch, that is over and whose counts are written."""
    last = (now - MARGIN) // MINUTE - 1
    waiting = [minute // MINUTE for minute in records.minutes()]
    return min([last, *(minute - 1 for minute in waiting)])


def _judge(rule: AlertRule, minute: int, records: Records) -> None:
    if rule.kind == AlertKind.NEAR_LIMIT:
        judge_quotas(rule, minute, records)
        return
    watch = WATCHES[rule.kind](rule, minute, records)
    book = AlertBook(rule, watch.pace, minute)
    names = sorted(watch.candidates | book.open_names)
    watch.look_up(names)
    for name in names:
        book.judge(name, watch)
