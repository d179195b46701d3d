"""Words of refusal history and of the alerts raised from it."""

from __future__ import annotations

from enum import StrEnum


class Resolution(StrEnum):
    """The length of time that one stored count covers."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class AlertKind(StrEnum):
    """What a detector has seen."""

    SPIKE = "spike"
    IP_ROTATION = "ip_rotation"
    ACCOUNT_FARMING = "account_farming"
    SLOW_DRIP = "slow_drip"
    NEAR_LIMIT = "near_limit"


class AlertState(StrEnum):
    """Where an alert is between being raised and being over."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"


class Sensitivity(StrEnum):
    """How far from usual something must be before it is an alert."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Grouping(StrEnum):
    """Which series a detector watches: all refusals together, or one series for each value."""

    TOTAL = "total"
    POLICY = "policy"
    ENDPOINT = "endpoint"
    TIER = "tier"


class AlertEvent(StrEnum):
    """The moments of an alert's life of which people are told."""

    OPENED = "opened"
    CLOSED = "closed"


class Channel(StrEnum):
    """How people are told."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class NoticeState(StrEnum):
    """How far a notice has got; "sending" survives a worker that died between send and record."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
