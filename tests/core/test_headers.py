from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.decisions import Decision, FailurePolicy, Outcome
from django_ratelimit_tiers.core.headers import (
    SERIALIZERS,
    HeaderStyle,
    header_fields,
    likeness,
    problem_body,
    refusal_body,
)
from django_ratelimit_tiers.core.policies import (
    MAX_PERIOD,
    MAX_REQUESTS,
    MICROSECONDS,
    Algorithm,
    Charge,
    Mode,
    QuotaPolicy,
)

NOW = 1_700_000_000 * MICROSECONDS
BOTH = tuple(HeaderStyle)
DRAFT = (HeaderStyle.DRAFT_11,)
X_RATELIMIT = (HeaderStyle.X_RATELIMIT,)

microseconds = st.integers(0, MAX_PERIOD * MICROSECONDS)
policies = st.builds(
    QuotaPolicy,
    name=st.text(max_size=8) | st.sampled_from(["free-minute", 'a"b\\c', "a\r\nSet-Cookie: x=1"]),
    requests=st.integers(1, MAX_REQUESTS),
    period=st.integers(1, MAX_PERIOD),
    mode=st.sampled_from(Mode),
    disclose=st.booleans(),
)
allowances = st.builds(
    Outcome,
    charge=st.builds(Charge, st.just("ip:192.0.2.7"), policies, st.just(1)),
    allowed=st.just(True),
    remaining=st.integers(0, MAX_REQUESTS),
    reset_after=microseconds,
    retry_after=st.none(),
)
refusals = st.builds(
    Outcome,
    charge=st.builds(Charge, st.just("ip:192.0.2.7"), policies, st.just(1)),
    allowed=st.just(False),
    remaining=st.integers(0, MAX_REQUESTS),
    reset_after=microseconds,
    retry_after=st.integers(1, MAX_PERIOD * MICROSECONDS),
)
decisions = st.builds(
    lambda outcomes, now, degraded: Decision(outcomes, now, degraded),
    outcomes=st.lists(allowances | refusals, max_size=5).map(tuple),
    now=st.integers(0, 2**53),
    degraded=st.none() | st.sampled_from(FailurePolicy),
)


def outcome(
    name: str = "free-minute",
    requests: int = 60,
    period: int = 60,
    *,
    remaining: int = 41,
    reset: float = 17,
    wait: float | None = None,
    burst: int | None = None,
    mode: Mode = Mode.ENFORCE,
    disclose: bool = True,
) -> Outcome:
    algorithm = Algorithm.TOKEN_BUCKET if burst else Algorithm.FIXED_WINDOW
    policy = QuotaPolicy(
        name, requests, period, algorithm, burst=burst, mode=mode, disclose=disclose
    )
    return Outcome(
        Charge("user:42", policy),
        allowed=wait is None,
        remaining=remaining,
        reset_after=math.ceil(reset * MICROSECONDS),
        retry_after=None if wait is None else math.ceil(wait * MICROSECONDS),
    )


def told_by(decision: Decision, styles: Sequence[str]) -> dict[str, str]:
    return dict(header_fields(decision, styles).values())


def fields(*outcomes: Outcome, styles: Sequence[str] = BOTH, now: int = NOW) -> dict[str, str]:
    return told_by(Decision(outcomes, now), styles)


def members(field: str) -> list[tuple[str, dict[str, int]]]:
    """Read a list of strings with parameters with somebody else's parser."""
    return http_sf.parse(field.encode("ascii"), tltype="list")


def test_the_policies_are_told_as_in_the_worked_values() -> None:
    told = fields(
        outcome("free-burst", 20, 1),
        outcome("free-minute", 60, 60),
        outcome("free-day", 5000, 86400),
        styles=DRAFT,
    )
    assert told["RateLimit-Policy"] == (
        '"free-burst";q=20;w=1, "free-minute";q=60;w=60, "free-day";q=5000;w=86400'
    )


def test_an_allowed_request_is_told_as_in_the_worked_values() -> None:
    told = fields(outcome(remaining=41, reset=17))
    assert told == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "41",
        "X-RateLimit-Reset": "1700000017",
        "RateLimit-Policy": '"free-minute";q=60;w=60',
        "RateLimit": '"free-minute";r=41;t=17',
    }


def test_a_refused_request_is_told_as_in_the_worked_values() -> None:
    told = fields(
        outcome(remaining=0, reset=43, wait=17),
        outcome("free-day", 5000, 86400, remaining=4210, reset=31840),
    )
    assert told["RateLimit"] == '"free-minute";r=0;t=17, "free-day";r=4210;t=31840'
    assert told["Retry-After"] == "17"
    assert told["X-RateLimit-Limit"] == "60"
    assert told["X-RateLimit-Remaining"] == "0"
    assert told["X-RateLimit-Reset"] == "1700000043"


def test_a_token_bucket_tells_its_capacity() -> None:
    told = fields(outcome("pro-minute", 300, 60, burst=500, remaining=499))
    assert told["X-RateLimit-Limit"] == "500"
    assert told["RateLimit-Policy"] == '"pro-minute";q=300;w=60;drt-burst=500'
    assert members(told["RateLimit-Policy"]) == [
        ("pro-minute", {"q": 300, "w": 60, "drt-burst": 500})
    ]


def test_times_round_up() -> None:
    told = fields(outcome(reset=0.000_001, wait=1.000_001), now=NOW + 1)
    assert told["X-RateLimit-Reset"] == "1700000001"
    assert told["Retry-After"] == "2"
    assert told["RateLimit"].endswith("t=2")


def test_a_full_policy_is_full_now() -> None:
    told = fields(outcome(remaining=60, reset=0))
    assert told["X-RateLimit-Reset"] == "1700000000"
    assert told["RateLimit"] == '"free-minute";r=60;t=0'


def test_the_refusing_policy_with_the_longest_wait_binds() -> None:
    told = fields(
        outcome("free-second", 5, 1, remaining=0, wait=0.5),
        outcome("free-day", 5000, 86400, remaining=2, wait=3000),
        outcome("free-minute", remaining=0),
        styles=X_RATELIMIT,
    )
    assert told["X-RateLimit-Limit"] == "5000"
    assert told["X-RateLimit-Remaining"] == "2"
    assert told["Retry-After"] == "3000"


def test_the_policy_with_the_fewest_remaining_then_the_longest_reset_binds() -> None:
    told = fields(
        outcome("a", 1, 60, remaining=7, reset=50),
        outcome("b", 2, 60, remaining=6, reset=3),
        outcome("c", 3, 60, remaining=6, reset=9),
        styles=X_RATELIMIT,
    )
    assert told["X-RateLimit-Limit"] == "3"
    assert told["X-RateLimit-Reset"] == "1700000009"


def test_shadow_policies_are_never_told() -> None:
    shadow = outcome("shadow", mode=Mode.SHADOW, remaining=0, wait=9)
    assert fields(shadow) == {}
    assert fields(shadow, outcome()) == fields(outcome())


def test_undisclosed_policies_are_never_told() -> None:
    secret = outcome("login", disclose=False, remaining=1)
    assert fields(secret) == {}
    assert fields(secret, outcome()) == fields(outcome())


def test_a_refusal_by_an_undisclosed_policy_tells_only_the_wait() -> None:
    secret = outcome("login", disclose=False, remaining=0, wait=30)
    assert fields(outcome(), secret) == {"Retry-After": "30"}


def test_of_two_outcomes_with_one_name_the_tighter_is_told() -> None:
    told = fields(
        outcome("search", 10, 60, remaining=4),
        outcome("search", 20, 60, remaining=3),
        outcome("search", 30, 60, remaining=5),
    )
    assert told["RateLimit-Policy"] == '"search";q=20;w=60'
    assert told["RateLimit"] == '"search";r=3;t=17'


@pytest.mark.parametrize(
    ("styles", "names"),
    [
        ((), set()),
        (("x-ratelimit",), {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}),
        (("ratelimit-draft-11",), {"RateLimit-Policy", "RateLimit"}),
    ],
)
def test_only_the_chosen_styles_are_written(styles: tuple[str, ...], names: set[str]) -> None:
    assert fields(outcome(), styles=styles).keys() == names
    assert fields(outcome(wait=1), styles=styles).keys() == names | {"Retry-After"}


def test_every_style_has_a_serializer() -> None:
    assert set(SERIALIZERS) == set(HeaderStyle)


@pytest.mark.parametrize("degraded", [FailurePolicy.OPEN, FailurePolicy.LOCAL])
def test_nothing_is_invented_while_the_store_is_unavailable(degraded: FailurePolicy) -> None:
    assert told_by(Decision(degraded=degraded), BOTH) == {}


def test_a_refusal_for_want_of_the_store_tells_only_a_wait() -> None:
    told = told_by(Decision(degraded=FailurePolicy.CLOSED), BOTH)
    assert told.keys() == {"Retry-After"}
    assert int(told["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("plain name!", '"plain name!"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("50%", '"50%"'),
        ("café", '"caf%C3%A9"'),
        ("x\r\nSet-Cookie: a=b", '"x%0D%0ASet-Cookie: a=b"'),
        ("\x7f\x00", '"%7F%00"'),
        ("\ud800", '"%ED%A0%80"'),
    ],
)
def test_any_name_becomes_a_valid_string(name: str, field: str) -> None:
    told = fields(outcome(name), styles=DRAFT)
    assert told["RateLimit"] == f"{field};r=41;t=17"
    assert members(told["RateLimit"])[0][1] == {"r": 41, "t": 17}


@given(decisions)
def test_every_decision_is_told_in_valid_canonical_fields(decision: Decision) -> None:
    told = told_by(decision, BOTH)
    assert list(header_fields(decision, BOTH)) == [name.lower() for name in told]
    for name, value in told.items():
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()
        if not name.startswith("RateLimit"):
            assert 0 <= int(value) < 10**15
    assert ("Retry-After" in told) is not decision.allowed
    assert int(told.get("Retry-After", 1)) >= 1
    if "RateLimit" not in told:
        return
    policies, limits = members(told["RateLimit-Policy"]), members(told["RateLimit"])
    assert http_sf.ser(policies) == told["RateLimit-Policy"]
    assert http_sf.ser(limits) == told["RateLimit"]
    assert [name for name, _ in policies] == [name for name, _ in limits]
    assert len(dict(limits)) == len(limits)
    for _, parameters in policies + limits:
        assert all(0 <= number < 10**15 for number in parameters.values())
    open_policies = [o.charge.policy for o in decision.enforced if o.charge.policy.disclose]
    assert {(p.requests, p.period) for p in open_policies} >= {
        (parameters["q"], parameters["w"]) for _, parameters in policies
    }


@given(decisions)
def test_waiting_as_told_is_never_too_short(decision: Decision) -> None:
    told = told_by(decision, BOTH)
    for outcome in decision.refusing:
        assert int(told["Retry-After"]) * MICROSECONDS >= (outcome.retry_after or 0)


@given(refusals, st.booleans(), st.integers(0, 2**53))
def test_what_a_refusal_by_one_policy_is_like_tells_the_same(
    refused: Outcome, disclose: bool, now: int
) -> None:
    policy = replace(refused.charge.policy, mode=Mode.ENFORCE, disclose=disclose)
    refused = refused._replace(charge=Charge("ip:192.0.2.7", policy))
    decision = Decision((refused,), now, id="4fcf2e9e96099a15")
    alike = likeness(decision)
    assert alike is not None
    again = alike.decision("4fcf2e9e96099a15")
    assert told_by(again, BOTH) == told_by(decision, BOTH)
    assert refusal_body(again) == refusal_body(decision)
    assert problem_body(again) == problem_body(decision)


@pytest.mark.parametrize(
    "decision",
    [
        Decision((outcome(),), NOW, id="any"),
        Decision((outcome(wait=9, mode=Mode.SHADOW),), NOW, id="any"),
        Decision((outcome(wait=9), outcome("other")), NOW, id="any"),
        Decision((outcome(wait=9),), NOW, FailurePolicy.LOCAL, id="any"),
        Decision((outcome(wait=9),), NOW),
        Decision((), NOW, FailurePolicy.CLOSED, id="any"),
    ],
    ids=["passes", "tried out", "two policies", "degraded", "without a name", "store away"],
)
def test_a_decision_that_is_no_named_refusal_by_one_policy_is_like_no_other(
    decision: Decision,
) -> None:
    assert likeness(decision) is None


@pytest.mark.parametrize(
    ("disclose", "styles", "name"),
    [
        (True, BOTH, "4fcf2e9e96099a15"),
        (True, DRAFT, None),
        (False, BOTH, None),
    ],
)
def test_a_refusal_is_named_for_staff_where_its_numbers_are_told(
    disclose: bool, styles: tuple[str, ...], name: str | None
) -> None:
    refused = Decision((outcome(wait=9, disclose=disclose),), NOW, id="4fcf2e9e96099a15")
    assert told_by(refused, styles).get("X-RateLimit-Decision") == name
    granted = Decision((outcome(),), NOW, id="4fcf2e9e96099a15")
    assert "X-RateLimit-Decision" not in told_by(granted, BOTH)


def test_a_refusal_explains_itself() -> None:
    assert refusal_body(Decision((outcome(wait=29.1),), NOW)) == {
        "error": "rate_limit_exceeded",
        "message": "Too many requests. Try again in 30 seconds.",
        "retry_after": 30,
    }


def test_a_wait_of_one_second_is_said_in_good_english() -> None:
    message = refusal_body(Decision((outcome(wait=0.2),), NOW))["message"]
    assert message == "Too many requests. Try again in 1 second."


def test_an_undisclosed_refusal_names_no_number() -> None:
    decision = Decision((outcome(), outcome("login", wait=30, disclose=False)), NOW)
    assert refusal_body(decision) == {
        "error": "rate_limit_exceeded",
        "message": "Too many requests. Try again later.",
    }
    problem = problem_body(decision)
    assert "violated-policies" not in problem
    assert problem["detail"] == "Too many requests. Try again later."


def test_a_problem_names_the_violated_policies_as_the_fields_do() -> None:
    decision = Decision(
        (outcome("café", wait=9), outcome("b"), outcome("c", wait=30), outcome("c", wait=3)), NOW
    )
    names = [name for name, _ in members(told_by(decision, DRAFT)["RateLimit"])]
    assert problem_body(decision) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "detail": "Too many requests. Try again in 30 seconds.",
        "violated-policies": ["caf%C3%A9", "c"],
    }
    assert {"caf%C3%A9", "c"} < set(names)


def test_a_refusal_for_want_of_the_store_is_a_problem_of_capacity() -> None:
    decision = Decision(degraded=FailurePolicy.CLOSED)
    problem = problem_body(decision)
    assert problem["type"] == (
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    )
    assert problem["status"] == 503
    assert "violated-policies" not in problem
    assert refusal_body(decision) == {
        "error": "temporary_reduced_capacity",
        "message": "The service is short of capacity. Try again in 5 seconds.",
        "retry_after": 5,
    }
