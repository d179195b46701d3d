from __future__ import annotations

from django_ratelimit_tiers.admin.words import (
    count_words,
    limit_lines,
    limits_words,
    request_words,
)
from django_ratelimit_tiers.models import TierPolicy

MINUTE = TierPolicy(requests=60, period=60, algorithm="token_bucket", burst=100)
DAY = TierPolicy(requests=5_000, period=86_400)


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


def test_only_unusual_ways_to_count_are_told():
    assert count_words(1, False) == []
    assert count_words(1_500, True) == [
        "cost 1,500",
        "only failed requests",
    ]


def test_requests_are_told_by_method_and_path_or_view():
    assert request_words("GET,POST", "/api/search", "") == "GET, POST /api/search"
    assert request_words("", "", "search") == "view search"
