"""Alerts in the database: one open for each cause, and everybody told once of its moments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from datetime import datetime
from functools import partial

from django.db import IntegrityError, router, transaction
from django.db.models import F, Q, QuerySet

from django_ratelimit_tiers.core.alarms import Alarm, Change, Pace, advance
from django_ratelimit_tiers.core.alerts import AlertEvent, AlertState
from django_ratelimit_tiers.core.verdicts import MINUTE, Verdict
from django_ratelimit_tiers.events.notices import prepare_notices
from django_ratelimit_tiers.events.times import minute_of, minute_start
from django_ratelimit_tiers.events.watches import Watch, cause_of
from django_ratelimit_tiers.models import Alert, AlertRule
from django_ratelimit_tiers.querysets import primary
from django_ratelimit_tiers.signals import alert_closed, alert_opened

logger = logging.getLogger("django_ratelimit_tiers.alerts")

CLOSED = AlertState.CLOSED.value

KEPT = frozenset(field.name for field in fields(Alarm))
"""What this version keeps of an alarm: a newer one, beside it or before it, may keep more."""


class AlertBook:
    """The alerts of one rule that are open or cooling down, by the name of what is watched."""

    def __init__(self, rule: AlertRule, pace: Pace, minute: int) -> None:
        self._rule = rule
        self._pace = replace(pace, cool_down=rule.cooldown // MINUTE)
        since = minute_start(minute - self._pace.cool_down - pace.longest)
        recent = alerts_of(rule).filter(~Q(state=CLOSED) | Q(closed_at__gte=since))
        self._alerts = {
            alert.alarm["name"]: alert
            for alert in recent.order_by("opened_at", "pk")
            if "name" in alert.alarm
        }

    @property
    def open_names(self) -> set[str]:
        """What has an open alert, and so is judged in any case."""
        return {name for name, alert in self._alerts.items() if alert.state != CLOSED}

    def judge(self, name: str, watch: Watch) -> None:
        """Bring the alert of one cause forward by the verdicts of its watch."""
        alert = self._alerts.get(name)
        for verdict in watch.verdicts(name, _alarm(alert).minute if alert else None):
            self._advance(name, verdict, watch)

    def _advance(self, name: str, verdict: Verdict, watch: Watch) -> None:
        alert = self._alerts.get(name)
        before = _alarm(alert) if alert else None
        step = advance(before, verdict, self._pace)
        if step.change is Change.NONE:
            if alert is not None and step.alarm is not None and step.alarm != before:
                _remember(alert, name, step.alarm)
                alert.save(update_fields=["alarm"])
            return
        assert step.alarm is not None  # noqa: S101 (only no change at all forgets an alarm)
        if step.change is Change.OPENED:
            opened = self._open(name, step.alarm, verdict, watch)
            if opened is not None:
                self._alerts[name] = opened
        elif alert is not None:
            self._change(alert, name, step.change, step.alarm, verdict, watch)

    def _open(self, name: str, alarm: Alarm, verdict: Verdict, watch: Watch) -> Alert | None:
        alert = Alert(
            kind=self._rule.kind,
            cause=cause_of(self._rule, name),
            rule=self._rule,
            opened_at=minute_start(alarm.opened_at),
            last_seen_at=minute_start(alarm.high_at),
            peak=alarm.peak,
            baseline=alarm.level,
            detail={
                "explanation": verdict.explanation,
                **watch.detail(name, alarm.opened_at, verdict.minute),
            },
        )
        _remember(alert, name, alarm)
        try:
            with transaction.atomic(using=router.db_for_write(Alert)):
                alert.save(force_insert=True)
                tell(alert, AlertEvent.OPENED)
        except IntegrityError:
            logger.warning("an alert of this cause is open already: %s", alert.cause)
            return None
        return alert

    def _change(
        self,
        alert: Alert,
        name: str,
        change: Change,
        alarm: Alarm,
        verdict: Verdict,
        watch: Watch,
    ) -> None:
        fields = ["alarm", "peak", "last_seen_at"]
        alert.peak = alarm.peak
        alert.last_seen_at = minute_start(alarm.high_at)
        _remember(alert, name, alarm)
        if change in (Change.EXTENDED, Change.REOPENED):
            alert.detail |= watch.detail(name, alarm.opened_at, verdict.minute)
            fields.append("detail")
        if change is Change.REOPENED:
            alert.state, alert.closed_at = AlertState.OPEN.value, None
            fields += ["state", "closed_at"]
        with transaction.atomic(using=router.db_for_write(Alert)):
            alert.save(update_fields=fields)
            if alarm.closed_at is not None:
                close(alert, minute_start(alarm.closed_at))


def alerts_of(rule: AlertRule) -> QuerySet[Alert]:
    """Return the alerts that a rule has raised by looking at what it looks at now."""
    return primary(Alert).filter(rule=rule, kind=rule.kind).select_related("rule")


def close(alert: Alert, at: datetime) -> None:
    """Close an alert and tell people so, unless it is closed already."""
    with transaction.atomic(using=router.db_for_write(Alert)):
        still_open = Alert.objects.filter(pk=alert.pk).exclude(state=CLOSED)
        if still_open.update(state=CLOSED, closed_at=at):
            alert.state, alert.closed_at = CLOSED, at
            tell(alert, AlertEvent.CLOSED)


def unwatched() -> Iterator[Alert]:
    """Yield the open alerts whose rule is gone, or does not look for such things any more."""
    abandoned = Q(rule__isnull=True) | Q(rule__is_active=False) | ~Q(rule__kind=F("kind"))
    yield from primary(Alert).filter(abandoned).exclude(state=CLOSED).select_related("rule")


def tell(alert: Alert, event: AlertEvent) -> None:
    """Write down who is to be told of a moment, and announce it once that is committed."""
    prepare_notices(alert, event)
    transaction.on_commit(partial(announce, alert, event), using=router.db_for_write(Alert))


def announce(alert: Alert, event: AlertEvent) -> None:
    """Send the signal of a moment; what a receiver raises is logged, not raised."""
    signal = alert_opened if event is AlertEvent.OPENED else alert_closed
    logger.warning("alert %s: %s", event.value, alert.cause, extra={"alert": alert.pk})
    signal.send_robust(Alert, alert=alert)


def _alarm(alert: Alert) -> Alarm:
    """Return what was kept of an alert; whether it is closed its row says, whoever closed it."""
    stored = {key: value for key, value in alert.alarm.items() if key in KEPT}
    at = alert.closed_at
    return replace(Alarm(**stored), closed_at=minute_of(at) if at else None)


def _remember(alert: Alert, name: str, alarm: Alarm) -> None:
    alert.alarm = {"name": name, **asdict(alarm)}
