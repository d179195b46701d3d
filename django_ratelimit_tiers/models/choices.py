"""The enums of the core with words for staff, as choices of model fields."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.core.alerts import (
    AlertEvent,
    AlertKind,
    AlertState,
    Channel,
    Grouping,
    NoticeState,
    Resolution,
    Sensitivity,
)
from django_ratelimit_tiers.core.decisions import FailurePolicy
from django_ratelimit_tiers.core.policies import Algorithm, Mode
from django_ratelimit_tiers.core.rules import Count, IdentifyBy, Scope, TierPolicies


class DefaultFor(models.TextChoices):
    """The clients that have a tier without being assigned one."""

    ANONYMOUS = "anonymous", _("anonymous clients")
    AUTHENTICATED = "authenticated", _("signed-in users")
    UNVERIFIED = "unverified", _("signed-in users who are not verified yet")


ALGORITHMS = [
    (Algorithm.SLIDING_WINDOW_COUNTER.value, _("sliding window counter")),
    (Algorithm.TOKEN_BUCKET.value, _("token bucket (allows bursts)")),
    (Algorithm.FIXED_WINDOW.value, _("fixed window")),
    (Algorithm.SLIDING_WINDOW_LOG.value, _("sliding window log (exact)")),
]
MODES = [
    (Mode.ENFORCE.value, _("enforce")),
    (Mode.SHADOW.value, _("shadow (only record)")),
    (Mode.OFF.value, _("off")),
]
TIER_MODES = [(mode, words) for mode, words in MODES if mode != Mode.OFF.value]
IDENTIFICATIONS = [
    (IdentifyBy.USER_OR_IP.value, _("user, or address when anonymous")),
    (IdentifyBy.USER.value, _("user")),
    (IdentifyBy.IP.value, _("address")),
    (IdentifyBy.API_KEY.value, _("API key")),
    (IdentifyBy.FIELD.value, _("field of the request")),
    (IdentifyBy.EVERYONE.value, _("everyone together")),
]
COUNTS = [
    (Count.ALL.value, _("every request")),
    (Count.FAILED.value, _("only requests that failed")),
]
SCOPES = [
    (Scope.RULE.value, _("one counter for the rule")),
    (Scope.ROUTE.value, _("one counter for each route")),
]
TIER_POLICIES = [
    (TierPolicies.ALSO.value, _("apply as well")),
    (TierPolicies.REPLACE.value, _("are replaced by this rule")),
]
FAILURE_POLICIES = [
    (FailurePolicy.OPEN.value, _("let requests pass")),
    (FailurePolicy.CLOSED.value, _("refuse requests")),
    (FailurePolicy.LOCAL.value, _("count in each process")),
]
RESOLUTIONS = [
    (Resolution.MINUTE.value, _("minute")),
    (Resolution.HOUR.value, _("hour")),
    (Resolution.DAY.value, _("day")),
]
ALERT_KINDS = [
    (AlertKind.SPIKE.value, _("spike of refusals")),
    (AlertKind.IP_ROTATION.value, _("one client from many addresses")),
    (AlertKind.ACCOUNT_FARMING.value, _("many accounts from one address")),
    (AlertKind.SLOW_DRIP.value, _("steadily just under the limit")),
    (AlertKind.NEAR_LIMIT.value, _("close to the daily limit")),
]
ALERT_STATES = [
    (AlertState.OPEN.value, _("open")),
    (AlertState.ACKNOWLEDGED.value, _("acknowledged")),
    (AlertState.CLOSED.value, _("closed")),
]
SENSITIVITIES = [
    (Sensitivity.LOW.value, _("low")),
    (Sensitivity.NORMAL.value, _("normal")),
    (Sensitivity.HIGH.value, _("high")),
]
GROUPINGS = [
    (Grouping.TOTAL.value, _("all refusals together")),
    (Grouping.POLICY.value, _("each policy")),
    (Grouping.ENDPOINT.value, _("each endpoint")),
    (Grouping.TIER.value, _("each tier")),
]
ALERT_EVENTS = [
    (AlertEvent.OPENED.value, _("opened")),
    (AlertEvent.CLOSED.value, _("closed")),
]
CHANNELS = [
    (Channel.EMAIL.value, _("e-mail")),
    (Channel.WEBHOOK.value, _("webhook")),
]
NOTICE_STATES = [
    (NoticeState.PENDING.value, _("pending")),
    (NoticeState.SENDING.value, _("sending")),
    (NoticeState.SENT.value, _("sent")),
    (NoticeState.FAILED.value, _("failed")),
]
