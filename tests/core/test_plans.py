from __future__ import annotations

from django_ratelimit_tiers.core.plans import Plan, decide
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode, QuotaPolicy

MINUTE = QuotaPolicy("minute", 2, 60, Algorithm.FIXED_WINDOW)
DAY = QuotaPolicy("day", 1, 86_400, Algorithm.FIXED_WINDOW)
SHADOW = QuotaPolicy("shadow", 1, 60, Algorithm.FIXED_WINDOW, mode=Mode.SHADOW)
OFF = QuotaPolicy("off", 1, 60, Algorithm.FIXED_WINDOW, mode=Mode.OFF)


def charges(*policies: QuotaPolicy, cost: int = 1) -> tuple[Charge, ...]:
    return tuple(Charge("user:1", policy, cost) for policy in policies)


def test_a_refusal_charges_no_policy_at_all() -> None:
    _, states = decide(charges(DAY), {}, 0)
    outcomes, changed = decide(charges(MINUTE, DAY), states, 0)
    assert [outcome.allowed for outcome in outcomes] == [True, False]
    assert outcomes[0].remaining == 2
    assert changed == {}


def test_a_shadow_policy_never_refuses() -> None:
    _, states = decide(charges(SHADOW), {}, 0)
    outcomes, changed = decide(charges(MINUTE, SHADOW), states, 0)
    assert [outcome.allowed for outcome in outcomes] == [True, False]
    assert [outcome.refuses for outcome in outcomes] == [False, False]
    assert outcomes[0].remaining == 1
    assert {key[1] for key in changed} == {MINUTE.counter_id}


def test_a_shadow_policy_is_not_charged_when_an_enforced_one_refuses() -> None:
    _, states = decide(charges(DAY), {}, 0)
    outcomes, _ = decide(charges(SHADOW, DAY), states, 0)
    assert outcomes[0].remaining == 1


def test_a_policy_that_is_off_is_only_looked_at() -> None:
    outcomes, changed = decide(charges(OFF), {}, 0)
    assert outcomes[0].remaining == 1
    assert changed == {}


def test_a_cost_of_nothing_only_looks() -> None:
    outcomes, changed = decide(charges(MINUTE, cost=0), {}, 0)
    assert (outcomes[0].allowed, outcomes[0].remaining, changed) == (True, 2, {})


def test_two_charges_of_one_counter_count_together() -> None:
    outcomes, changed = decide(charges(DAY, DAY), {}, 0)
    assert [outcome.allowed for outcome in outcomes] == [True, False]
    assert changed == {}


def test_a_plan_names_its_subjects_and_those_only_looked_up_once() -> None:
    plan = Plan(charges(MINUTE), subject_revisions={"key:k": "", "user:1": ""})
    assert plan.subjects == ("user:1", "key:k")
