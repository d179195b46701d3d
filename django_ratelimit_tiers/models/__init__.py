"""What staff edits, and the history it is shown."""

from django_ratelimit_tiers.models.accounts import ServiceAccount, TierAssignment, user_key
from django_ratelimit_tiers.models.alerts import (
    Alert,
    AlertNotice,
    AlertRule,
    SeriesHour,
)
from django_ratelimit_tiers.models.history import (
    PolicyRevision,
    ThrottleCount,
    ThrottleEvent,
    UsageCount,
)
from django_ratelimit_tiers.models.rules import EndpointRule, RulePolicy
from django_ratelimit_tiers.models.tiers import Tier, TierPolicy

__all__ = [
    "Alert",
    "AlertNotice",
    "AlertRule",
    "EndpointRule",
    "PolicyRevision",
    "RulePolicy",
    "SeriesHour",
    "ServiceAccount",
    "ThrottleCount",
    "ThrottleEvent",
    "Tier",
    "TierAssignment",
    "TierPolicy",
    "UsageCount",
    "user_key",
]
