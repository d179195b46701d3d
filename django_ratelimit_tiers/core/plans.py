"""What a store is asked, and the pure rule by which it decides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django_ratelimit_tiers.core import algorithms
from django_ratelimit_tiers.core.algorithms import EMPTY, CounterState
from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.policies import Charge, Mode
from django_ratelimit_tiers.core.tuples import filled

CounterKey = tuple[str, bytes]
"""A subject and the id of one of its counters."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one store call decides, whichever request it is for.

    `revision` is the policy edition that the charges were planned with, and `subject_revisions`
    those of the subjects whose tier was looked up; when one of them is not current, nothing is
    charged and StalePlan is raised. `labels` holds for each charge what its refusal is counted
    under, empty when refusals are not counted. `now` is in microseconds, None for the store's own
    clock. Plans with the same `form` have the same labels, and differ in their charges only by the
    subjects; None makes no such promise. In `prepared` a store keeps what it has made of the plan,
    for the next time that it comes.
    """

    charges: tuple[Charge, ...]
    spend: bool = True
    now: int | None = None
    revision: str | None = None
    subject_revisions: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    form: Hashable = None
    prepared: Any = field(default=None, init=False, compare=False, repr=False)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects that are charged or whose revision is compared, each once."""
        charged = (charge.subject for charge in self.charges)
        return tuple(dict.fromkeys((*charged, *self.subject_revisions)))


class StalePlan(Exception):
    """A plan was made with older revisions than these, and nothing was charged."""

    def __init__(self, revision: str, subject_revisions: Mapping[str, str]) -> None:
        super().__init__("the policy, or the tier of a subject, was edited")
        self.revision, self.subject_revisions = revision, subject_revisions


def decide(
    charges: tuple[Charge, ...],
    states: Mapping[CounterKey, CounterState],
    now: int,
    *,
    spend: bool = True,
) -> tuple[tuple[Outcome, ...], dict[CounterKey, CounterState]]:
    """Decide all charges together and return their outcomes and the counters that changed.

    All enforced policies are charged or none is. A shadow policy is charged when the request
    passes and it would itself have allowed it. A policy that is off, a cost of 0 and a plan that
    does not spend change nothing; a refusal leaves every counter as it was.
    """
    settled: dict[CounterKey, CounterState] = {}
    for charge in charges:
        if _key(charge) not in settled:
            state = states.get(_key(charge), EMPTY)
            settled[_key(charge)] = algorithms.settle(charge.policy, state, now)
    working, waits = dict(settled), []
    for charge in charges:
        before = working[_key(charge)]
        waits.append(algorithms.wait_from(now, charge.policy, before, charge.cost))
        if charge.cost and not waits[-1] and charge.policy.mode is not Mode.OFF:
            working[_key(charge)] = algorithms.spend(charge.policy, before, charge.cost)
    refused = any(
        waiting and charge.policy.is_enforced
        for charge, waiting in zip(charges, waits, strict=True)
    )
    final = working if spend and not refused else settled
    outcomes = tuple(
        outcome(charge, waiting, *final[_key(charge)][:3])
        for charge, waiting in zip(charges, waits, strict=True)
    )
    return outcomes, {key: state for key, state in final.items() if state is not settled[key]}


def outcome(charge: Charge, waiting: int, last: int, current: int, previous: int) -> Outcome:
    """Return the answer of one policy, whose counter is settled so after the decision."""
    _, remaining, reset_after, _ = algorithms.standing(charge.policy, last, current, previous)
    told = charge, not waiting, remaining, reset_after, waiting or None
    return filled(Outcome, told)


def _key(charge: Charge) -> CounterKey:
    return charge.subject, charge.policy.counter_id
