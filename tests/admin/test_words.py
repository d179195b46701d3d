from __future__ import annotations

import pytest
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.admin.words import (
    limit_lines,
    limit_words,
    limits_words,
    period_words,
    request_words,
)
from django_ratelimit_tiers.models import TierPolicy

MINUTE = TierPolicy(requests=60, period=60, algorithm="token_bucket", burst=100)
DAY = TierPolicy(requests=5_000, period=86_400)


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


def test_limits_are_told_shortest_period_first():
    assert limits_words([DAY, MINUTE]) == "60 per minute, burst 100; 5,000 per day"


def test_limits_of_a_rule_have_a_line_for_each_tier():
    assert limit_lines([(None, MINUTE)]) == ["60 per minute, burst 100"]
    assert limit_lines([(None, MINUTE), ("Pro", DAY)]) == [
        "Pro: 5,000 per day",
        "every other tier: 60 per minute, burst 100",
    ]
    assert limit_lines([("Pro", DAY)]) == ["Pro: 5,000 per day"]
    assert limit_lines([]) == []


def test_requests_are_told_by_method_and_path_or_view():
    assert request_words("GET,POST", "/api/search", "") == "GET, POST /api/search"
    assert request_words("", "", "search") == "view search"


def test_numbers_follow_the_language():
    with override("de"):
        assert limit_words(5_000, 86_400).startswith("5.000 ")
