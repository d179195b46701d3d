"""Who is told of an alert: once for each moment, channel and target.

A notice is "sending" before anything is sent and "sent" afterwards. A worker that dies in between
leaves it "sending", and nobody sends it again: it may have arrived.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db.models import Case, F, Q, When
from django.utils import timezone

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.alerts import AlertEvent, AlertKind, Channel, NoticeState
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.core.words import universal
from django_ratelimit_tiers.events.webhooks import WebhookRefused, post
from django_ratelimit_tiers.models import Alert, AlertNotice
from django_ratelimit_tiers.querysets import primary

logger = logging.getLogger("django_ratelimit_tiers.alerts")

MOST_ATTEMPTS = 6
"""After so many attempts a notice has failed: the last is about half an hour after the first."""

FIRST_WAIT = timedelta(minutes=1)
"""How long after the first attempt the next one comes; each later wait is twice as long."""

AT_ONCE = 50
"""Notices sent in one run; the others are sent by the next one."""

SECONDS_AT_ONCE = 30
"""After so many seconds a run sends no more, whatever its targets make it wait for."""

IS_OF_QUOTA = Case(When(alert__kind=AlertKind.NEAR_LIMIT.value, then=1), default=0)
"""Whether a notice tells of one client's daily limit, as a number to sort by."""

MAIL_TIMEOUT = 10.0
"""Seconds to wait for each answer of a mail server, where the site has set none."""


def prepare_notices(alert: Alert, event: AlertEvent) -> None:
    """Write down who is to be told; those who have been told of this moment are left out."""
    AlertNotice.objects.bulk_create(
        [
            AlertNotice(alert=alert, event=event.value, channel=channel.value, target=target)
            for channel, target in dict.fromkeys(_targets(alert))
        ],
        ignore_conflicts=True,
    )


def send_notices(*, now: datetime | None = None) -> int:
    """Send what is due and return how many were sent; each failure waits for a later run.

    What was never tried comes first, so that a target which hangs holds nobody up for long, and
    daily limits come last: thousands of clients may reach theirs while an attack is to be told.
    """
    now, end = timezone.now() if now is None else now, time.monotonic() + SECONDS_AT_ONCE
    due = Q(next_attempt_at__isnull=True) | Q(next_attempt_at__lte=now)
    pending = primary(AlertNotice).filter(due, state=NoticeState.PENDING.value)
    in_order = pending.select_related("alert__rule").order_by("attempts", IS_OF_QUOTA, "pk")
    sent = 0
    for notice in in_order[:AT_ONCE]:
        if time.monotonic() < end:
            sent += _send_once(notice, now)
    return sent


def message(notice: AlertNotice) -> tuple[str, str]:
    """Return the subject and the text of a notice, on printable lines."""
    alert = notice.alert
    word = "Alert"
    if AlertEvent(notice.event) is not AlertEvent.OPENED:
        word = "Alert still going on" if _is_settled(alert) else "Alert over"
    lines = [
        alert.cause,
        str(alert.detail.get("explanation", "")),
        f"Since {universal(alert.opened_at)}.",
        f"Peak {alert.peak:,.0f}, usual {alert.baseline:,.0f}.",
        _ending(alert),
    ]
    lists = ((name, found) for name, found in alert.detail.items() if isinstance(found, list))
    lines += [f"{name}: {', '.join(map(str, found))}" for name, found in lists if found]
    return printable(f"{word}: {alert.cause}")[:200], "\n".join(map(printable, filter(None, lines)))


def _ending(alert: Alert) -> str:
    """Return how a closed alert has ended, nothing of an open one."""
    if alert.closed_at is None:
        return ""
    since = universal(alert.closed_at)
    if not _is_settled(alert):
        return f"Over since {since}."
    if alert.kind == AlertKind.SLOW_DRIP:  # no hours in a row are ever usual
        return "Still going on. If it lasts, there will be another alert."
    return f"Still going on. From {since} on it is taken for usual and reported no more."


def _is_settled(alert: Alert) -> bool:
    """Return whether an alert was closed because it has lasted so long (`core.alarms.Pace`)."""
    return bool(alert.alarm.get("settled"))


def _targets(alert: Alert) -> Iterator[tuple[Channel, str]]:
    rule = alert.rule
    own = rule.emails.split() if rule else []
    for address in [*own, *conf.EVENTS["RECIPIENTS"]]:
        yield Channel.EMAIL, address
    for url in (rule.webhook_url if rule else "", conf.EVENTS["WEBHOOK"]):
        if url:
            yield Channel.WEBHOOK, url


def _send_once(notice: AlertNotice, now: datetime) -> bool:
    mine = AlertNotice.objects.filter(pk=notice.pk)
    claimed = mine.filter(state=NoticeState.PENDING.value).update(
        state=NoticeState.SENDING.value, attempts=F("attempts") + 1
    )
    if not claimed:
        return False
    notice.attempts += 1
    try:
        if notice.channel == Channel.EMAIL:
            _mail(notice)
        else:
            _post(notice, now)
    except Exception as error:  # whatever a mail backend raises: the other notices are still sent
        mine.update(**_failure(notice, error, now))
        # A target can be a secret, and errors tell it: the admin shows both.
        kind = type(error).__name__
        logger.warning("notice %s by %s failed: %s", notice.pk, notice.channel, kind)
        return False
    mine.update(state=NoticeState.SENT.value, sent_at=now, error="", next_attempt_at=None)
    return True


def _failure(notice: AlertNotice, error: Exception, now: datetime) -> dict[str, Any]:
    text = printable(f"{type(error).__name__}: {error}")[:255]
    if isinstance(error, WebhookRefused) or notice.attempts >= MOST_ATTEMPTS:
        return {"state": NoticeState.FAILED.value, "error": text, "next_attempt_at": None}
    wait = FIRST_WAIT * 2 ** (notice.attempts - 1)
    return {"state": NoticeState.PENDING.value, "error": text, "next_attempt_at": now + wait}


def _mail(notice: AlertNotice) -> None:
    subject, text = message(notice)
    with _bounded_waits():
        send_mail(subject, text, settings.DEFAULT_FROM_EMAIL, [notice.target])


@contextmanager
def _bounded_waits() -> Iterator[None]:
    """Let connections that are opened here wait no longer than MAIL_TIMEOUT, unless told else.

    Without `EMAIL_TIMEOUT` Django's own would wait for ever. Only workers and commands come here.
    """
    usual = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MAIL_TIMEOUT if usual is None else usual)
    try:
        yield
    finally:
        socket.setdefaulttimeout(usual)


def _post(notice: AlertNotice, now: datetime) -> None:
    alert = notice.alert
    subject, text = message(notice)
    body = {
        "text": _escaped(f"{subject}\n{text}"),
        "id": notice.pk,
        "event": notice.event,
        "alert": {
            "id": alert.pk,
            "kind": alert.kind,
            "cause": alert.cause,
            "state": alert.state,
            "opened_at": _iso(alert.opened_at),
            "closed_at": _iso(alert.closed_at) if alert.closed_at else None,
            "peak": alert.peak,
            "baseline": alert.baseline,
            "detail": alert.detail,
        },
    }
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "X-RateLimit-Notice": str(notice.pk)}
    if secret := _secret(notice):
        headers["X-RateLimit-Signature"] = signature(secret, int(now.timestamp()), content)
    post(notice.target, content, headers)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def signature(secret: str, at: int, content: bytes) -> str:
    """Return what proves to a receiver that content was sent by us at that epoch second."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + content, hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


def _secret(notice: AlertNotice) -> str:
    rule = notice.alert.rule
    if rule is not None and rule.webhook_url == notice.target and rule.webhook_secret:
        return str(rule.webhook_secret)
    return str(conf.EVENTS["WEBHOOK_SECRET"]) if notice.target == conf.EVENTS["WEBHOOK"] else ""


def _escaped(text: str) -> str:
    """Return a text in which chat programs find no commands, links or mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
