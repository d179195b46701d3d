"""The reference, the memory store and Redis, threads and event loops: one answer to the number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_ratelimit_tiers.core import algorithms
from django_ratelimit_tiers.core.algorithms import CounterState
from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.plans import CounterKey, decide
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.store.memory import MemoryStore
from django_ratelimit_tiers.store.redis import RedisStore
from tests import strategies as own

pytestmark = pytest.mark.filterwarnings("error")


@dataclass
class Reference:
    """The pure functions, with nothing but a dictionary around them."""

    states: dict[CounterKey, CounterState] = field(default_factory=dict)

    def run(self, step: Step) -> tuple[Outcome, ...]:
        if step.action == "refund":
            for charge in step.charges:
                key = charge.subject, charge.policy.counter_id
                if charge.cost and key in self.states:
                    settled = algorithms.settle(charge.policy, self.states[key], step.now)
                    given_back = algorithms.give_back(
                        charge.policy, settled, charge.cost, step.charged_at
                    )
                    if given_back is not settled:
                        self.states[key] = given_back
            return ()
        outcomes, changed = decide(
            step.charges, self.states, step.now, spend=step.action == "acquire"
        )
        self.states.update(changed)
        return outcomes


@dataclass(frozen=True)
class Step:
    """One call of a store."""

    action: str
    charges: tuple[Charge, ...]
    now: int
    charged_at: int | None = None

    def run(self, store: MemoryStore | RedisStore) -> tuple[Outcome, ...]:
        if self.action == "refund":
            store.refund(self.charges, now=self.now, charged_at=self.charged_at)
            return ()
        call = store.acquire if self.action == "acquire" else store.peek
        return call(self.charges, now=self.now)

    async def arun(self, store: RedisStore) -> tuple[Outcome, ...]:
        if self.action == "refund":
            await store.arefund(self.charges, now=self.now, charged_at=self.charged_at)
            return ()
        call = store.aacquire if self.action == "acquire" else store.apeek
        return await call(self.charges, now=self.now)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    of_history = draw(st.lists(own.policies(), min_size=1, max_size=4))
    now = draw(st.integers(0, own.LATEST))
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 12))):
        policy: QuotaPolicy = draw(st.sampled_from(of_history))
        now = max(0, now + draw(own.steps(policy.window)))
        acquired = [step for step in steps if step.action == "acquire"]
        action = draw(st.sampled_from(["acquire"] * 6 + ["peek", "refund"]))
        if action == "refund" and acquired:
            earlier = draw(st.sampled_from(acquired))
            charged_at = draw(st.sampled_from([earlier.now, None]))
            steps.append(Step("refund", earlier.charges, now, charged_at))
        else:
            some = draw(st.lists(own.charges(st.sampled_from(of_history)), max_size=5))
            steps.append(Step("peek" if action == "peek" else "acquire", tuple(some), now))
    return steps


@given(steps=histories())
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_every_store_answers_as_the_reference_does(
    shared_store: RedisStore, steps: Sequence[Step]
) -> None:
    reference = Reference()
    expected = [reference.run(step) for step in steps]
    memory = MemoryStore()
    assert [step.run(memory) for step in steps] == expected
    shared_store.command("FLUSHALL")
    assert [step.run(shared_store) for step in steps] == expected
    shared_store.command("FLUSHALL")
    assert asyncio.run(answers_on_a_loop(shared_store, steps)) == expected


async def answers_on_a_loop(store: RedisStore, steps: Sequence[Step]) -> list[tuple[Outcome, ...]]:
    try:
        return [await step.arun(store) for step in steps]
    finally:
        await store.aclose()
