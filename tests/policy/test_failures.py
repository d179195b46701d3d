"""The failure policies: the strictest of those that can refuse, and a share of each limit."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from django_ratelimit_tiers.core.decisions import Decision, FailurePolicy
from django_ratelimit_tiers.core.policies import MAX_PERIOD, Algorithm, Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.models import PolicyRevision, TierAssignment
from django_ratelimit_tiers.policy import snapshots
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.failures import degraded_decision, worker_count
from django_ratelimit_tiers.policy.tariffs import Bill, Item, Tariff
from django_ratelimit_tiers.store.memory import MemoryStore
from tests import strategies as own
from tests.databases import without_tables


def entry(
    policy: QuotaPolicy | None = None, on_failure: FailurePolicy | None = None, cost: int = 1
) -> Item:
    policy = policy or QuotaPolicy("any", 8, MAX_PERIOD, Algorithm.FIXED_WINDOW)
    rule = Rule(id=1, name="any", on_store_failure=on_failure) if on_failure else None
    return Item(policy, rule, "any", cost)


def bill(*entries: Item) -> Bill:
    charges = tuple(Charge("ip:192.0.2.7", entry.policy, entry.cost) for entry in entries)
    return Bill(charges, Tariff(entries))


def decided(*entries: Item, workers: int | None = 1, by: str = "open") -> Decision:
    with override_settings(RATELIMIT_TIERS={"ON_STORE_FAILURE": by, "WORKERS": workers}):
        return degraded_decision(bill(*entries), MemoryStore())


def passed(entry: Item, workers: int) -> int:
    """Return how many requests this process lets pass before it refuses one."""
    local = MemoryStore()
    with override_settings(RATELIMIT_TIERS={"ON_STORE_FAILURE": "local", "WORKERS": workers}):
        for count in range(100):
            if not degraded_decision(bill(entry), local).allowed:
                return count
    raise AssertionError("nothing is refused")


@pytest.mark.parametrize(
    ("policies", "strictest"),
    [
        (["open", "local"], "local"),
        (["local", "closed", "open"], "closed"),
        (["open", "open"], "open"),
    ],
)
def test_the_strictest_of_several_rules_decides(policies: list[str], strictest: str) -> None:
    entries = [entry(on_failure=FailurePolicy(policy)) for policy in policies]
    assert decided(*entries).degraded == strictest


def test_a_rule_may_be_laxer_than_the_setting() -> None:
    assert decided(entry(on_failure=FailurePolicy.OPEN), by="closed").allowed


def test_the_setting_decides_for_the_tier() -> None:
    assert not decided(entry(), by="closed").allowed


def test_a_shadow_rule_refuses_nothing_however_strict_it_is() -> None:
    shadow = QuotaPolicy("shadow", 1, 60, mode=Mode.SHADOW)
    assert decided(entry(shadow, FailurePolicy.CLOSED)).allowed


def test_a_request_that_is_charged_nothing_passes() -> None:
    assert decided(by="closed").allowed


@pytest.mark.parametrize(("workers", "share"), [(1, 8), (3, 3), (8, 1), (100, 1)])
def test_each_worker_lets_its_share_of_a_limit_pass(workers: int, share: int) -> None:
    assert passed(entry(), workers) == share


def test_a_burst_is_shared_as_well() -> None:
    bucket = QuotaPolicy("bucket", 1, 86_400, Algorithm.TOKEN_BUCKET, burst=8)
    assert passed(entry(bucket), 4) == 2


@pytest.mark.parametrize(
    ("bucket", "workers", "share"),
    [
        (QuotaPolicy("quick", 60, 60, Algorithm.TOKEN_BUCKET, burst=120), 4, (15, 30)),
        (
            QuotaPolicy("slow", 1000, MAX_PERIOD * 2 // 3, Algorithm.TOKEN_BUCKET, burst=1500),
            1000,
            (2, 2),
        ),
    ],
    ids=["quick", "slow"],
)
def test_a_shared_burst_refills_at_a_share_of_the_rate_but_never_too_slowly(
    bucket: QuotaPolicy, workers: int, share: tuple[int, int]
) -> None:
    (outcome,) = decided(entry(bucket), workers=workers, by="local").outcomes
    shared = outcome.charge.policy
    assert (shared.requests, shared.burst) == share


def test_a_dear_request_can_pass_in_every_worker() -> None:
    assert passed(entry(cost=5), 4) == 1


@given(policy=own.policies(), workers=st.integers(1, 10_000), cost=st.integers(1, 10**9))
def test_every_policy_can_be_shared(policy: QuotaPolicy, workers: int, cost: int) -> None:
    decision = decided(entry(policy, cost=cost), workers=workers, by="local")
    (outcome,) = decision.outcomes or (None,)
    if outcome is not None:
        assert outcome.charge.policy.capacity <= max(policy.capacity, cost)


@pytest.mark.parametrize(
    ("setting", "variable", "count"),
    [(None, "4", 4), (6, "4", 6), (None, None, 1), (None, "0", 1), (None, "many", 1)],
)
def test_the_number_of_workers_is_the_setting_or_the_servers_variable(
    monkeypatch: pytest.MonkeyPatch, setting: int | None, variable: str | None, count: int
) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if variable is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", variable)
    with override_settings(RATELIMIT_TIERS={"WORKERS": setting}):
        assert worker_count() == count


@pytest.mark.django_db(transaction=True)
def test_clients_whose_tier_cannot_be_read_are_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assignments = AssignmentCache()
    started = time.monotonic()
    with without_tables(TierAssignment):
        for number in range(50):
            assignments.look_up_key(f"key:{number}", [str(number)], "a revision")
    assert 1 <= len(caplog.records) <= 2 + time.monotonic() - started
    assert "the database fails" in caplog.records[0].message


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("missing", [TierAssignment, PolicyRevision])
def test_a_view_goes_on_in_its_transaction_where_limits_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, missing: type[Model]
) -> None:
    """PostgreSQL refuses what follows in a transaction; the throttle is asked within the view's."""
    tokens = [Token.objects.create(user=User.objects.create_user(name)) for name in ("a", "b")]
    headers = [{"Authorization": f"Token {token.key}"} for token in tokens]
    assert APIClient().get("/api/notes/", headers=headers[0]).status_code == 200
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(snapshots, "DATABASE_LOOK_SECONDS", -1)
    with without_tables(missing), override_settings(MIDDLEWARE=[]):
        assert APIClient().get("/api/notes/", headers=headers[1]).status_code == 200
