from __future__ import annotations

import pytest
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.models import EndpointRule, RulePolicy, Tier, TierPolicy
from django_ratelimit_tiers.models.words import limit_words, period_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "second"),
        (90, "90 seconds"),
        (60, "minute"),
        (300, "5 minutes"),
        (3_600, "hour"),
        (86_400, "day"),
        (172_800, "2 days"),
        (604_800, "week"),
    ],
)
def test_a_period_is_told_in_its_largest_whole_unit(seconds, words):
    assert period_words(seconds) == words


@given(st.integers(min_value=1, max_value=366 * 86_400))
def test_every_period_has_words(seconds):
    assert period_words(seconds)


def test_a_limit_is_told_with_its_burst():
    assert limit_words(60, 60, 100) == "60 per minute, burst 100"
    assert limit_words(5_000, 86_400) == "5,000 per day"


def test_numbers_follow_the_language():
    with override("de"):
        assert limit_words(5_000, 86_400).startswith("5.000 ")


def test_the_limits_of_tiers_and_rules_read_as_phrases():
    bucket = {"requests": 60, "period": 60, "algorithm": "token_bucket", "burst": 100}
    assert str(TierPolicy(tier=Tier(name="Free"), **bucket)) == "Free: 60 per minute, burst 100"
    limit = RulePolicy(rule=EndpointRule(name="Login"), requests=5_000, period=86_400)
    assert str(limit) == "Login: 5,000 per day"


@pytest.mark.parametrize("period", [None, "60"])
def test_a_limit_without_numbers_has_words_too(period):
    assert str(TierPolicy(tier=Tier(name="Free"), requests=1, period=period)) == "Free: new limit"
