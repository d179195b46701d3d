from __future__ import annotations

import pytest

from django_ratelimit_tiers.core.alerts import Sensitivity
from tests.benchmarks.anomalies import MINIMUM, scored
from tests.benchmarks.synthetic_series import FAMILIES, LabelledSeries, labelled_series


@pytest.mark.parametrize("family", FAMILIES)
def test_every_clear_attack_is_found_in_time_with_at_most_one_false_alarm_a_day(
    family: str,
) -> None:
    series = labelled_series(family, 0, MINIMUM)
    score = scored(series, Sensitivity.NORMAL)
    assert (score.found, score.clear) == (3, 3)
    assert score.false_alarms <= series.days


def test_an_attack_that_no_alarm_opens_for_counts_as_missed() -> None:
    attacked = labelled_series("constant", 0, MINIMUM)
    muted = LabelledSeries("muted", [0] * len(attacked.counts), windows=attacked.windows)
    score = scored(muted, Sensitivity.NORMAL)
    assert (score.found, score.clear, score.false_alarms) == (0, 3, 0)


def test_the_same_seed_makes_the_same_series() -> None:
    assert labelled_series("sparse", 7, MINIMUM) == labelled_series("sparse", 7, MINIMUM)
