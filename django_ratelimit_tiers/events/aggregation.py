"""From the store's counts to rows: closed minutes only, and nothing lost or counted twice.

What the store counted of a closed minute is final, so rows are assigned that value and never
added to: done again, or by two at once, it leaves the same rows. The store forgets a minute only
after its rows are committed, so it can be done again at whatever point it was interrupted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.db import connections, router, transaction
from django.db.models import Model, Q

from django_ratelimit_tiers.core.alerts import Resolution
from django_ratelimit_tiers.core.policies import MICROSECONDS, whole_seconds
from django_ratelimit_tiers.core.refusals import Counts, RefusalKey, SampledRefusal
from django_ratelimit_tiers.core.tallies import Usage
from django_ratelimit_tiers.events.times import moment
from django_ratelimit_tiers.models import ServiceAccount, ThrottleCount, ThrottleEvent, UsageCount
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.records import HOUR, MINUTE, Lease, Records, closed

LOCK = "aggregate"

LOCK_SECONDS = 20
"""How long others wait for one that died; renewed after each minute that was written."""

BATCH = 500
"""Rows in one statement."""

COUNT_KEY = ("resolution", "minute", "policy", "tier", "endpoint", "subject", "mode")

CountKey = tuple[Any, ...]


def aggregate_throttle_events(*, now: int | None = None) -> int:
    """Write everything that is over by the store's clock, and return how many refusals that was.

    Returns 0 when another process is at it. `now` is in epoch seconds, the store's clock if None.
    Raises StoreUnavailable or DatabaseError; then the next run goes on where this one stopped. Not
    to be called in a transaction, which could be rolled back when the store has forgotten already.
    """
    records = configured_store().records
    with records.lock(LOCK, LOCK_SECONDS) as lease:
        if lease is None:
            return 0
        now = records.now() if now is None else now
        written = _write_minutes(records, lease, now)
        _write_usage(records, lease, now)
        _write_accounts(records)
        _write_sample(records)
        return written


def upsert(model: type[Model], rows: Sequence[Any], key: Sequence[str], fields: list[str]) -> None:
    """Create rows, or assign these fields where the key exists, on every database.

    Rows are written in the order of their keys: two at once that lock the same rows in different
    orders would be a deadlock.
    """
    database = router.db_for_write(model)
    names_target = connections[database].features.supports_update_conflicts_with_target
    model._default_manager.using(database).bulk_create(
        sorted(rows, key=attrgetter(*key)),
        batch_size=BATCH,
        update_conflicts=True,
        update_fields=fields,
        unique_fields=list(key) if names_target else None,
    )


def count_rows(
    keys: Iterable[tuple[RefusalKey, int]], start: datetime, resolution: Resolution
) -> list[ThrottleCount]:
    """Return the rows of one minute, hour or day, added up where keys are alike once cut."""
    totals: Counter[CountKey] = Counter()
    for key, count in keys:
        totals[_cut(key)] += count
    return [
        ThrottleCount(
            resolution=resolution.value,
            minute=start,
            policy=policy,
            tier=tier,
            endpoint=endpoint,
            subject=subject,
            mode=mode,
            count=count,
        )
        for (policy, tier, endpoint, subject, mode), count in totals.items()
    ]


def _write_minutes(records: Records, lease: Lease, now: int) -> int:
    written = 0
    for minute in closed(records.minutes(), MINUTE, now):
        counts = records.counts(minute)
        _write_counts(minute, counts)
        records.forget_minute(minute)
        written += sum(counts.values())
        if not lease.renew():
            break
    return written


def _write_counts(minute: int, counts: Counts) -> None:
    rows = count_rows(counts.items(), moment(minute), Resolution.MINUTE)
    with transaction.atomic(using=router.db_for_write(ThrottleCount), durable=True):
        upsert(ThrottleCount, rows, COUNT_KEY, ["count"])


def _write_sample(records: Records) -> None:
    sample = records.sample()
    if sample:
        # In the order of their keys, as in `upsert`.
        rows = sorted(map(_event, sample), key=attrgetter("decision_id", "policy"))
        ThrottleEvent.objects.bulk_create(rows, batch_size=BATCH, ignore_conflicts=True)
        records.forget_sample()


def _event(refusal: SampledRefusal) -> ThrottleEvent:
    policy, tier, endpoint, subject, mode = _cut(refusal.key)
    return ThrottleEvent(
        policy=policy,
        tier=tier,
        endpoint=endpoint,
        subject=subject,
        mode=mode,
        at=moment(refusal.at / MICROSECONDS),
        decision_id=refusal.decision_id[:64],
        method=refusal.method[:20],
        path=refusal.path[:500],
        address=refusal.address[:64],
        user_agent=refusal.user_agent[:255],
        rule=refusal.rule[:100],
        retry_after=whole_seconds(refusal.retry_after),
        revision=refusal.revision,
    )


def _write_usage(records: Records, lease: Lease, now: int) -> None:
    for hour in closed(records.hours(), HOUR, now):
        usage = records.usage(hour)
        rows = _usage_rows(hour, usage)
        with transaction.atomic(using=router.db_for_write(UsageCount)):
            upsert(UsageCount, rows, ("hour", "subject"), ["allowed", "refused", "hourly_limit"])
        records.forget_hour(hour)
        if not lease.renew():
            break


def _usage_rows(hour: int, usage: Mapping[str, Usage]) -> list[UsageCount]:
    """Return the rows of one hour, added up where subjects are alike once cut."""
    rows: dict[str, UsageCount] = {}
    for subject, numbers in usage.items():
        cut = subject[:150]
        row = rows.setdefault(cut, UsageCount(hour=moment(hour), subject=cut))
        row.allowed += numbers.allowed
        row.refused += numbers.refused
        row.hourly_limit = row.hourly_limit or numbers.hourly_limit
    return list(rows.values())


def _write_accounts(records: Records) -> None:
    for account, at in records.accounts_used().items():
        last_used = moment(at)
        unknown_yet = Q(last_used_at__isnull=True) | Q(last_used_at__lt=last_used)
        ServiceAccount.objects.filter(unknown_yet, pk=account).update(last_used_at=last_used)


def _cut(key: RefusalKey) -> CountKey:
    """Return a key cut to what the columns hold."""
    return key.policy[:150], key.tier[:50], key.endpoint[:255], key.subject[:150], key.mode.value
