from __future__ import annotations

import pytest

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
from django_ratelimit_tiers.models import choices

PAIRS = [
    (Algorithm, choices.ALGORITHMS),
    (Mode, choices.MODES),
    (IdentifyBy, choices.IDENTIFICATIONS),
    (Count, choices.COUNTS),
    (Scope, choices.SCOPES),
    (TierPolicies, choices.TIER_POLICIES),
    (FailurePolicy, choices.FAILURE_POLICIES),
    (Resolution, choices.RESOLUTIONS),
    (AlertKind, choices.ALERT_KINDS),
    (AlertState, choices.ALERT_STATES),
    (Sensitivity, choices.SENSITIVITIES),
    (Grouping, choices.GROUPINGS),
    (AlertEvent, choices.ALERT_EVENTS),
    (Channel, choices.CHANNELS),
    (NoticeState, choices.NOTICE_STATES),
]


@pytest.mark.parametrize(("enum", "offered"), PAIRS)
def test_staff_chooses_from_exactly_what_the_core_knows(enum, offered):
    assert sorted(value for value, _ in offered) == sorted(member.value for member in enum)
