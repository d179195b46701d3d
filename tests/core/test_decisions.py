"""Grants, which nearly every answer is: the same as outcomes that all let in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.decisions import Decision, FailurePolicy, Grant, Outcome
from django_ratelimit_tiers.core.headers import HeaderStyle, header_fields
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.quotas import Quotas
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
    return Grant(charges, [(policy, *standing, 0) for policy, standing in granted], quotas)


def test_a_grant_is_an_outcome_for_each_charge() -> None:
    minute, day = QuotaPolicy("minute", 60, 60), QuotaPolicy("day", 500, DAY)
    charges = Charge("user:1", minute), Charge("ip:192.0.2.7", day)
    grant = Grant(charges, [(minute, 59, 17, 0), (day, 499, 23, 0)], Quotas((minute, day)))
    decision = Decision(grant, NOW)
    assert decision.outcomes == (
        Outcome(charges[0], True, 59, 17, None),
        Outcome(charges[1], True, 499, 23, None),
    )
    assert (decision.allowed, decision.refusing, decision.now) == (True, (), NOW)


@given(grants())
def test_a_decision_is_the_same_made_of_a_grant_or_of_its_outcomes(grant: Grant) -> None:
    granted, plain = Decision(grant, NOW), Decision(grant.outcomes, NOW)
    assert granted[1:] == plain[1:]
    assert granted.outcomes == plain.outcomes
    assert (granted.enforced, granted.binding) == (plain.enforced, plain.binding)
    assert granted.retry_after is plain.retry_after is None
    assert granted.merge(plain) == plain.merge(granted) == plain.merge(plain)


@given(grants(), grants(), st.sets(st.sampled_from(HeaderStyle)))
def test_the_decision_of_two_stages_is_the_same_of_grants_and_of_their_outcomes(
    first: Grant, second: Grant, styles: set[HeaderStyle]
) -> None:
    granted = Decision(first, NOW).merge(Decision(second, NOW + 1))
    plain = Decision(first.outcomes, NOW).merge(Decision(second.outcomes, NOW + 1))
    assert type(granted.answer) is Grant
    assert (granted.outcomes, granted.now) == (plain.outcomes, plain.now)
    assert header_fields(granted, styles) == header_fields(plain, styles)


@given(grants(), st.sets(st.sampled_from(HeaderStyle)))
def test_a_client_is_told_the_same_of_a_grant_and_of_its_outcomes(
    grant: Grant, styles: set[HeaderStyle]
) -> None:
    granted, plain = Decision(grant, NOW), Decision(grant.outcomes, NOW)
    assert header_fields(granted, styles) == header_fields(plain, styles)


@pytest.mark.parametrize("degraded", FailurePolicy)
def test_a_degraded_grant_tells_nothing_of_its_numbers(degraded: FailurePolicy) -> None:
    policy = QuotaPolicy("minute", 60, 60)
    grant = Grant((Charge("user:1", policy),), [(policy, 59, 17, 0)], Quotas((policy,)))
    assert header_fields(Decision(grant, NOW, degraded), tuple(HeaderStyle)).keys() <= {
        "retry-after"
    }


@given(grants())
def test_the_same_is_tallied_of_a_grant_and_of_its_outcomes(grant: Grant) -> None:
    sheets = TallySheet(), TallySheet()
    for sheet, answer in zip(sheets, (grant, grant.outcomes), strict=True):
        sheet.note("user:1", "ip:192.0.2.7", Decision(answer, NOW))
    granted, plain = (sheet.take(dict, list) for sheet in sheets)
    assert (granted.usage, granted.quotas) == (plain.usage, plain.quotas)


@pytest.mark.parametrize(("remaining", "used"), [(21, []), (20, [80])])
def test_a_day_quota_is_tallied_from_its_first_mark_on(remaining: int, used: list[int]) -> None:
    day, sheet = QuotaPolicy("day", 100, DAY), TallySheet()
    grant = Grant((Charge("user:1", day),), [(day, remaining, 0, 0)], Quotas((day,)))
    sheet.note("user:1", "ip:192.0.2.7", Decision(grant, NOW))
    assert [quota.used for quota in sheet.take(dict, list).quotas] == used


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
    assert policy.short_at == least
    assert Quotas((policy,)).short_at == (() if least < 0 else ((0, least),))


MINUTE = QuotaPolicy("minute", 60, 60)
TRIED_OUT = QuotaPolicy("tried out", 1, 60, mode=Mode.SHADOW)


def outcome(
    policy: QuotaPolicy, remaining: int, reset_after: int, retry_after: int | None = None
) -> Outcome:
    charge = Charge("user:1", policy)
    return Outcome(charge, retry_after is None, remaining, reset_after, retry_after)


def test_the_policy_with_the_fewest_requests_left_binds_then_the_one_with_the_longest_reset() -> (
    None
):
    plenty, sooner, later = outcome(MINUTE, 9, 70), outcome(MINUTE, 3, 50), outcome(MINUTE, 3, 60)
    assert Decision((plenty, sooner, later)).binding == later
    assert Decision((later, sooner, plenty)).binding == later


def test_the_refusing_policy_with_the_longest_wait_binds_and_is_waited_for() -> None:
    granted, short, long = (
        outcome(MINUTE, 0, 90),
        outcome(MINUTE, 0, 70, 5),
        outcome(MINUTE, 1, 6, 6),
    )
    decision = Decision((granted, short, long))
    assert (decision.refusing, decision.binding) == ((short, long), long)
    assert decision.retry_after == 6


def test_a_policy_that_is_only_tried_out_neither_refuses_nor_binds() -> None:
    granted, tried = outcome(MINUTE, 7, 50), outcome(TRIED_OUT, 0, 60, 60)
    decision = Decision((tried, granted))
    assert (decision.allowed, decision.enforced) == (True, (granted,))
    assert (decision.binding, decision.retry_after) == (granted, None)
    assert Decision((tried,)).binding is None


def test_the_decision_of_two_stages_keeps_what_either_of_them_tells() -> None:
    first = Decision(now=8, degraded=FailurePolicy.LOCAL, id="first")
    later = Decision((outcome(MINUTE, 0, 9, 9),), now=7)
    assert first.merge(later) == Decision(later.answer, 8, FailurePolicy.LOCAL, "first")
    assert later.merge(first) == Decision(later.answer, 8, FailurePolicy.LOCAL, "first")


def test_the_later_of_two_stages_has_the_last_word() -> None:
    first = Decision(now=7, degraded=FailurePolicy.OPEN, id="first")
    later = Decision(now=8, degraded=FailurePolicy.CLOSED, id="later")
    merged = first.merge(later)
    assert (merged.now, merged.degraded, merged.id) == (8, FailurePolicy.CLOSED, "later")
    assert not merged.allowed
