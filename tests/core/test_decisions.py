"""Grants, which nearly every answer is: the same as outcomes that all let in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.decisions import Decision, FailurePolicy, Grant, Outcome
from django_ratelimit_tiers.core.headers import HeaderStyle, header_fields
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.quotas import Quotas, short_at
from django_ratelimit_tiers.events.tallies import TallySheet

NOW = 1_700_000_000_123_456
DAY = 86_400

policies = st.builds(
    QuotaPolicy,
    name=st.sampled_from(["free-minute", "free-day", "rule"]),
    requests=st.integers(1, 1000),
    period=st.sampled_from([1, 60, DAY, 30 * DAY]),
    mode=st.sampled_from(Mode),
    disclose=st.booleans(),
)
standings = st.tuples(st.integers(0, 1000), st.integers(0, 40 * DAY * 1_000_000))


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    granted = draw(st.lists(st.tuples(policies, standings), max_size=5))
    charges = tuple(Charge("user:1", policy) for policy, _ in granted)
    quotas = Quotas(tuple(policy for policy, _ in granted))
    return Grant(charges, [standing for _, standing in granted], quotas)


def test_a_grant_is_an_outcome_for_each_charge() -> None:
    minute, day = QuotaPolicy("minute", 60, 60), QuotaPolicy("day", 500, DAY)
    charges = Charge("user:1", minute), Charge("ip:192.0.2.7", day)
    grant = Grant(charges, [(59, 17), (499, 23)], Quotas((minute, day)))
    decision = Decision.of(grant, NOW)
    assert decision.outcomes == (
        Outcome(charges[0], True, 59, 17, None),
        Outcome(charges[1], True, 499, 23, None),
    )
    assert (decision.allowed, decision.refusing, decision.now) == (True, (), NOW)


@given(grants())
def test_a_decision_is_the_same_made_of_a_grant_or_of_its_outcomes(grant: Grant) -> None:
    granted, plain = Decision.of(grant, NOW), Decision.of(grant.outcomes, NOW)
    assert granted[1:] == plain[1:]
    assert granted.outcomes == plain.outcomes
    assert (granted.enforced, granted.binding) == (plain.enforced, plain.binding)
    assert granted.retry_after is plain.retry_after is None
    assert granted.merge(plain) == plain.merge(granted) == plain.merge(plain)


@given(grants(), grants(), st.sets(st.sampled_from(HeaderStyle)))
def test_the_decision_of_two_stages_is_the_same_of_grants_and_of_their_outcomes(
    first: Grant, second: Grant, styles: set[HeaderStyle]
) -> None:
    granted = Decision.of(first, NOW).merge(Decision.of(second, NOW + 1))
    plain = Decision.of(first.outcomes, NOW).merge(Decision.of(second.outcomes, NOW + 1))
    assert type(granted.answer) is Grant
    assert (granted.outcomes, granted.now) == (plain.outcomes, plain.now)
    assert header_fields(granted, styles) == header_fields(plain, styles)


@given(grants(), st.sets(st.sampled_from(HeaderStyle)))
def test_a_client_is_told_the_same_of_a_grant_and_of_its_outcomes(
    grant: Grant, styles: set[HeaderStyle]
) -> None:
    granted, plain = Decision.of(grant, NOW), Decision.of(grant.outcomes, NOW)
    assert header_fields(granted, styles) == header_fields(plain, styles)


@pytest.mark.parametrize("degraded", FailurePolicy)
def test_a_degraded_grant_tells_nothing_of_its_numbers(degraded: FailurePolicy) -> None:
    policy = QuotaPolicy("minute", 60, 60)
    grant = Grant((Charge("user:1", policy),), [(59, 17)], Quotas((policy,)))
    assert header_fields(Decision(grant, NOW, degraded), tuple(HeaderStyle)).keys() <= {
        "Retry-After"
    }


@given(grants())
def test_the_same_is_tallied_of_a_grant_and_of_its_outcomes(grant: Grant) -> None:
    sheets = TallySheet(), TallySheet()
    for sheet, answer in zip(sheets, (grant, grant.outcomes), strict=True):
        sheet.note("user:1", "ip:192.0.2.7", Decision.of(answer, NOW))
    granted, plain = (sheet.take(dict, list) for sheet in sheets)
    assert (granted.usage, granted.quotas) == (plain.usage, plain.quotas)


@pytest.mark.parametrize(
    ("policy", "least"),
    [
        (QuotaPolicy("day", 100, DAY), 20),
        (QuotaPolicy("day", 7, DAY), 1),
        (QuotaPolicy("month", 100, 30 * DAY), 20),
        (QuotaPolicy("minute", 100, 60), -1),
        (QuotaPolicy("tried out", 100, DAY, mode=Mode.SHADOW), -1),
    ],
)
def test_a_day_quota_runs_short_at_its_first_mark(policy: QuotaPolicy, least: int) -> None:
    assert short_at(policy) == least
    assert Quotas((policy,)).short_at == (() if least < 0 else ((0, least),))
