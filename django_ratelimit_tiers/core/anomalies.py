"""Every detector in one place: what `detect_anomalies` builds on, and projects may call.

All of them are pure: counts and a minute in, a verdict out. docs/anomalies.md explains them.
"""

from __future__ import annotations

from django_ratelimit_tiers.core.alarms import (
    SPIKE_PACE,
    SUBJECT_PACE,
    Alarm,
    Change,
    Pace,
    Step,
    advance,
)
from django_ratelimit_tiers.core.alerts import Sensitivity
from django_ratelimit_tiers.core.consumption import (
    DayQuota,
    DripVerdict,
    HourUsage,
    NearLimitVerdict,
    SubjectUsage,
    near_limit,
    slow_drip,
)
from django_ratelimit_tiers.core.series import History, Hour, rolled_up
from django_ratelimit_tiers.core.sightings import (
    FarmingVerdict,
    NetworkSubjects,
    RotationVerdict,
    Sighting,
    SubjectNetworks,
    account_farming,
    ip_rotation,
)
from django_ratelimit_tiers.core.spikes import Baseline, SpikeVerdict, baseline_at, spike
from django_ratelimit_tiers.core.verdicts import Verdict

__all__ = [
    "SPIKE_PACE",
    "SUBJECT_PACE",
    "Alarm",
    "Baseline",
    "Change",
    "DayQuota",
    "DripVerdict",
    "FarmingVerdict",
    "History",
    "Hour",
    "HourUsage",
    "NearLimitVerdict",
    "NetworkSubjects",
    "Pace",
    "RotationVerdict",
    "Sensitivity",
    "Sighting",
    "SpikeVerdict",
    "Step",
    "SubjectNetworks",
    "SubjectUsage",
    "Verdict",
    "account_farming",
    "advance",
    "baseline_at",
    "ip_rotation",
    "near_limit",
    "rolled_up",
    "slow_drip",
    "spike",
]
