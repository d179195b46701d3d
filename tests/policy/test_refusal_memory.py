"""The memory of refusals: an attack stays in the process, and nothing else changes."""

from __future__ import annotations

from collections import Counter

import pytest
import redis
from django.test import Client, override_settings

from django_ratelimit_tiers.core.decisions import Decision, Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import LONGEST_PATH, LONGEST_USER_AGENT, counted_outcomes
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED
from django_ratelimit_tiers.policy import refusal_memory
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.policy.refusal_memory import (
    SIGNS_OF_ATTACK,
    SPENT_SECONDS,
    RefusalMemory,
)
from django_ratelimit_tiers.policy.revisions import own_edits
from django_ratelimit_tiers.signals import request_throttled
from django_ratelimit_tiers.store.configured import configured_store
from tests.clocks import Clock
from tests.policies import limit_tier, make_rule
from tests.samples import sampled
from tests.servers import wait_until

POLICY = QuotaPolicy("minute", 5, 60)
OTHER = QuotaPolicy("day", 500, 86_400)
SECOND = 1_000_000


PLAN = Plan((Charge("ip:192.0.2.1", POLICY), Charge("ip:192.0.2.1", OTHER)))
REFUSED = Decision(
    (
        Outcome(PLAN.charges[0], False, 0, 40 * SECOND, 30 * SECOND),
        Outcome(PLAN.charges[1], True, 400, 80_000 * SECOND, None),
    ),
    now=1000 * SECOND,
)
ALLOWED = Decision(tuple(Outcome(c, True, 1, 1, None) for c in PLAN.charges), now=1001 * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def memory(clock: Clock) -> RefusalMemory:
    return RefusalMemory(0.1, clock)


def attack(memory: RefusalMemory, times: int = SIGNS_OF_ATTACK) -> None:
    for _ in range(times):
        memory.learn(PLAN, REFUSED)


def test_a_client_that_is_refused_now_and_then_always_hears_the_store(
    memory: RefusalMemory, clock: Clock
) -> None:
    for _ in range(50):
        memory.learn(PLAN, REFUSED)
        assert memory.recall(PLAN.charges, "id") is None
        clock.now += 0.2


def test_an_attack_is_answered_from_memory(memory: RefusalMemory, clock: Clock) -> None:
    attack(memory)
    clock.now += 0.05
    recalled = memory.recall(PLAN.charges, "id")
    assert recalled is not None
    place, decision = recalled
    (outcome,) = decision.outcomes
    assert outcome.charge is PLAN.charges[place] is PLAN.charges[0]
    assert outcome.refuses
    assert outcome.retry_after == pytest.approx(30 * SECOND - 50_000, abs=1)
    assert outcome.reset_after == pytest.approx(40 * SECOND - 50_000, abs=1)
    assert decision.now == pytest.approx(REFUSED.now + 50_000, abs=1)
    assert decision.id == "id"


def test_whatever_else_is_charged_the_same_charge_refuses(memory: RefusalMemory) -> None:
    attack(memory)
    recalled = memory.recall([Charge("all", OTHER), PLAN.charges[0]], "id")
    assert recalled is not None
    assert recalled[0] == 1


@pytest.mark.parametrize("waits", [(30, 80_000), (80_000, 30)])
def test_of_several_that_refuse_the_longest_wait_is_told(
    memory: RefusalMemory, clock: Clock, waits: tuple[int, int]
) -> None:
    refused = zip(PLAN.charges, waits, strict=True)
    outcomes = tuple(Outcome(c, False, 0, 0, wait * SECOND) for c, wait in refused)
    for _ in range(SIGNS_OF_ATTACK):
        memory.learn(PLAN, Decision(outcomes, now=0))
    clock.now += 0.05
    recalled = memory.recall(PLAN.charges, "id")
    assert recalled is not None
    place, decision = recalled
    assert waits[place] == 80_000
    assert decision.outcomes[0].retry_after == pytest.approx(80_000 * SECOND - 50_000, abs=1)


def test_of_equal_waits_the_first_is_told_as_the_store_does(memory: RefusalMemory) -> None:
    outcomes = tuple(Outcome(c, False, 0, 0, 30 * SECOND) for c in PLAN.charges)
    for _ in range(SIGNS_OF_ATTACK):
        memory.learn(PLAN, Decision(outcomes, now=0))
    recalled = memory.recall(PLAN.charges, "id")
    assert recalled is not None
    assert recalled[0] == counted_outcomes(outcomes)[0] == 0


@pytest.mark.parametrize(
    "charge",
    [
        Charge("ip:192.0.2.2", POLICY),
        Charge("ip:192.0.2.1", QuotaPolicy("minute", 50, 60)),
        Charge("ip:192.0.2.1", POLICY, cost=0),
    ],
)
def test_another_subject_policy_or_cost_is_asked_for(memory: RefusalMemory, charge: Charge) -> None:
    attack(memory)
    assert memory.recall([charge], "id") is None


def test_after_a_tenth_of_a_second_the_store_is_asked_again(
    memory: RefusalMemory, clock: Clock
) -> None:
    attack(memory)
    clock.now += 0.1
    assert memory.recall(PLAN.charges, "id") is None


def test_an_edit_that_this_process_makes_is_obeyed_at_once(memory: RefusalMemory) -> None:
    attack(memory)
    own_edits.add()
    assert memory.recall(PLAN.charges, "id") is None
    memory.learn(PLAN, REFUSED)
    assert memory.recall(PLAN.charges, "id") is not None


def test_no_refusal_outlives_its_own_wait(memory: RefusalMemory, clock: Clock) -> None:
    soon = Decision((Outcome(PLAN.charges[0], False, 0, 20_000, 20_000),), now=0)
    for _ in range(SIGNS_OF_ATTACK):
        memory.learn(PLAN, soon)
    clock.now += 0.02
    assert memory.recall(PLAN.charges, "id") is None


def test_what_the_store_lets_through_is_forgotten(memory: RefusalMemory) -> None:
    attack(memory)
    memory.learn(PLAN, ALLOWED)
    assert memory.recall(PLAN.charges, "id") is None


def test_refusals_that_nothing_depends_on_any_more_are_forgotten(
    memory: RefusalMemory, clock: Clock
) -> None:
    for number in range(100):
        charge = Charge(f"ip:192.0.2.{number}", POLICY)
        memory.learn(PLAN, Decision((Outcome(charge, False, 0, SECOND, SECOND),), now=0))
    assert len(memory.remembered) == 100
    clock.now += SPENT_SECONDS + 0.1
    memory.learn(PLAN, REFUSED)
    assert len(memory.remembered) == 1


def test_an_attack_that_goes_on_is_not_forgotten(memory: RefusalMemory, clock: Clock) -> None:
    attack(memory)
    for _ in range(30):
        clock.now += 0.2
        memory.learn(PLAN, REFUSED)
        assert memory.recall(PLAN.charges, "id") is not None


@pytest.mark.parametrize(("pause", "remembered"), [(0.9, True), (1.5, False)])
def test_after_a_pause_an_attack_must_show_itself_anew(
    memory: RefusalMemory, clock: Clock, pause: float, remembered: bool
) -> None:
    attack(memory)
    clock.now += 1.0
    memory.learn(PLAN, REFUSED)
    clock.now += pause
    memory.learn(PLAN, REFUSED)
    assert (memory.recall(PLAN.charges, "id") is not None) is remembered


def test_of_too_many_refusals_the_oldest_are_forgotten(
    memory: RefusalMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_memory, "MOST_REMEMBERED", 3)
    charges = [Charge(f"ip:192.0.2.{number}", POLICY) for number in range(5)]
    for charge in charges:
        decision = Decision((Outcome(charge, False, 0, SECOND, SECOND),), now=0)
        for _ in range(SIGNS_OF_ATTACK):
            memory.learn(PLAN, decision)
    found = [memory.recall([charge], "id") is not None for charge in charges]
    assert found == [False, False, True, True, True]


def test_zero_seconds_turn_it_off(clock: Clock) -> None:
    memory = RefusalMemory(0, clock)
    attack(memory, 100)
    assert memory.recall(PLAN.charges, "id") is None
    assert not memory.remembered


def calls(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


@pytest.mark.django_db
class TestAttack:
    REQUESTS = 300

    @pytest.fixture(autouse=True)
    def limits(self) -> None:
        limit_tier("anonymous", 5)

    def statuses(self, client: Client) -> list[int]:
        return [client.get("/plain/").status_code for _ in range(self.REQUESTS)]

    def counts(self) -> Counter[tuple[str, str]]:
        limiter().teller.tell()
        records, found = configured_store().records, Counter[tuple[str, str]]()
        for minute in records.minutes():
            for key, count in records.counts(minute).items():
                found[key.policy, key.mode] += count
        return found

    def counted(self) -> int:
        return self.counts().total()

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 1})
    def test_it_does_not_reach_the_store_but_every_refusal_is_counted(
        self, client: Client, valkey_client: redis.Redis
    ) -> None:
        before = calls(valkey_client)
        statuses = self.statuses(client)
        assert statuses == [200] * 5 + [429] * (self.REQUESTS - 5)
        assert calls(valkey_client) - before < self.REQUESTS / 2
        assert self.counted() == self.REQUESTS - 5

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 0})
    def test_turned_off_it_is_asked_each_time(
        self, client: Client, valkey_client: redis.Redis
    ) -> None:
        before = calls(valkey_client)
        self.statuses(client)
        assert calls(valkey_client) - before >= self.REQUESTS
        assert self.counted() == self.REQUESTS - 5

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 1})
    def test_it_counts_for_the_limit_that_the_store_would_name(self, client: Client) -> None:
        limit_tier("anonymous", {"requests": 5, "period": 60}, 5)
        self.statuses(client)
        assert self.counts() == {("anonymous-31622400s", Mode.ENFORCE): self.REQUESTS - 5}

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 1})
    def test_what_a_shadow_policy_would_refuse_is_counted_through_it(self, client: Client) -> None:
        make_rule("plain", 4, mode="shadow", identify_by="user_or_ip")
        self.statuses(client)
        assert self.counts() == {
            ("anonymous-31622400s", Mode.ENFORCE): self.REQUESTS - 5,
            ("plain-31622400s", Mode.SHADOW): self.REQUESTS - 4,
        }

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 1})
    def test_the_newest_that_it_refused_are_sampled(self, client: Client) -> None:
        path = "/plain/%00%1b[2J%ff" + "x" * 1000
        for _ in range(self.REQUESTS):
            answer = client.get(path, HTTP_USER_AGENT="\udcff" + "y" * 1000)
        sample = sampled()
        assert answer.headers["X-RateLimit-Decision"] in {r.decision_id for r in sample}
        assert len(sample) == MOST_SAMPLED
        assert len({refusal.decision_id for refusal in sample}) == len(sample)
        for refusal in sample:
            assert refusal.address == "127.0.0.1"
            assert (refusal.path + refusal.user_agent).isprintable()
            assert len(refusal.path) <= LONGEST_PATH
            assert len(refusal.user_agent) <= LONGEST_USER_AGENT

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 1})
    def test_a_receiver_hears_of_each_refusal(self, client: Client) -> None:
        received: list[str] = []

        def receive(decision: Decision, **_: object) -> None:
            received.append(decision.id)

        request_throttled.connect(receive)
        try:
            answers = [client.get("/plain/") for _ in range(60)]
        finally:
            request_throttled.disconnect(receive)
        told = [answer.headers.get("X-RateLimit-Decision") for answer in answers]
        assert received == told[5:]
        assert len(set(received)) == 55

    def test_it_is_counted_even_if_no_request_follows(self, client: Client) -> None:
        self.statuses(client)
        records = configured_store().records

        def counted() -> int:
            return sum(sum(records.counts(minute).values()) for minute in records.minutes())

        assert wait_until(lambda: counted() == self.REQUESTS - 5, seconds=30)

    @override_settings(RATELIMIT_TIERS={"REFUSAL_MEMORY": 1})
    def test_who_was_let_in_again_must_show_it_anew(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, valkey_client: redis.Redis
    ) -> None:
        clock = Clock(100.0)
        monkeypatch.setattr(limiter()._cashier.refusals, "_clock", clock)
        for _ in range(5 + SIGNS_OF_ATTACK):
            client.get("/plain/")
        configured_store().reset("ip:127.0.0.1")
        clock.now += 1.1
        statuses = [client.get("/plain/").status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        before = calls(valkey_client)
        assert client.get("/plain/").status_code == 429
        assert calls(valkey_client) == before + 1

    def test_what_it_answers_tells_the_same(self, client: Client) -> None:
        responses = [client.get("/plain/") for _ in range(60)]
        names = [
            frozenset(response.headers) for response in responses if response.status_code == 429
        ]
        assert len(names) == 55
        assert len(set(names)) == 1
