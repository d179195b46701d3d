"""Quotas of days that run short: told once for each subject, window and mark."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import IntegrityError, router, transaction

from django_ratelimit_tiers.core.alerts import AlertEvent
from django_ratelimit_tiers.core.consumption import MARKS, DayQuota, near_limit
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.core.words import distinct
from django_ratelimit_tiers.events.alerts import alerts_of, close, tell
from django_ratelimit_tiers.events.batches import batches
from django_ratelimit_tiers.events.times import minute_start
from django_ratelimit_tiers.models import Alert, AlertRule
from django_ratelimit_tiers.querysets import primary
from django_ratelimit_tiers.store.records import Records


def judge_quotas(rule: AlertRule, minute: int, records: Records) -> None:
    """Open an alert for each mark that was reached, and close those whose window is over."""
    quotas = records.quotas()
    over = [quota for quota in quotas if quota.window <= minute]
    short = (q for q in quotas if q.window > minute and q.limit >= rule.minimum_volume)
    for some in batches(short):
        _judge(rule, some, minute)
    for alert in alerts_of(rule).filter(closed_at__isnull=True):
        if alert.alarm["window"] <= minute:
            close(alert, minute_start(minute))
    records.forget_quotas(over)


def _judge(rule: AlertRule, quotas: Sequence[DayQuota], minute: int) -> None:
    causes = [{_cause(rule, quota, mark): mark for mark in MARKS} for quota in quotas]
    asked = [cause for marks in causes for cause in marks]
    known = set(primary(Alert).filter(cause__in=asked).values_list("cause", flat=True))
    for quota, marks in zip(quotas, causes, strict=True):
        verdict = near_limit(quota, [marks[cause] for cause in marks.keys() & known])
        if verdict.mark is not None:
            _open(rule, quota, _cause(rule, quota, verdict.mark), verdict.explanation, minute)


def _open(rule: AlertRule, quota: DayQuota, cause: str, explanation: str, minute: int) -> None:
    alert = Alert(
        kind=rule.kind,
        cause=cause,
        rule=rule,
        opened_at=minute_start(minute),
        last_seen_at=minute_start(minute),
        peak=quota.used,
        baseline=quota.limit,
        detail={"explanation": explanation, "subject": printable(quota.subject)},
        alarm={"window": quota.window},
    )
    try:
        with transaction.atomic(using=router.db_for_write(Alert)):
            alert.save(force_insert=True)
            tell(alert, AlertEvent.OPENED)
    except IntegrityError:
        return  # another worker was faster


def _cause(rule: AlertRule, quota: DayQuota, mark: int) -> str:
    last_day = f"{minute_start(quota.window - 1):%Y-%m-%d}"
    policy, subject = distinct(quota.policy), distinct(quota.subject)
    return f"{mark}% of {policy} by {subject} until {last_day} ({rule.pk})"
