"""What calls of the acquire script have in common, worked out once for plans of one form.

Two such calls differ only by the names of their subjects and by the revisions. All else is one
template, written as the server reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.quotas import Quotas
from django_ratelimit_tiers.store.scripts import ACQUIRE, WORD, beginning, written

HEADER = Struct("<BHBQ")
"""Whether to spend, the place of the last subject's counters among the keys, whether now is given,
and now in microseconds."""

CHARGE = Struct("<BBB8sIQII")
"""One charge: whether it is the last of its subject, algorithm, mode, counter id, limit, window,
capacity, cost."""

BOUNDS = Struct("<II")
"""Most distinct fields of a minute's counts of refusals, and their seconds to live."""

REFUSAL = Struct("<HHBI")
"""How the refusal of a charge is counted: which charge it is of those sent, the place of its
subject's counters among the keys, its mode, and the length of the label that follows."""

NOW, STATE = "<Q", "12xQIQ"
"""The reply: the time of the decision, and `last`, `current` and `previous` of each counter."""

ALGORITHM_CODES = {
    Algorithm.FIXED_WINDOW: 1,
    Algorithm.SLIDING_WINDOW_LOG: 2,
    Algorithm.SLIDING_WINDOW_COUNTER: 3,
    Algorithm.TOKEN_BUCKET: 4,
}
MODE_CODES = {Mode.ENFORCE: 1, Mode.SHADOW: 2, Mode.OFF: 3}


class Layout(NamedTuple):
    """How plans of one form are sent and answered.

    `template` is the command up to the plan, without what differs: the keys of subjects, each after
    its length, and the header. `last_place` is that of the last subject's counters among the keys.
    `reply` unpacks the time and the states of the counters; `counters` has for each charge of the
    plan its policy, and which part of that is its counter's state. `quotas` are the policies again.
    """

    template: bytes
    last_place: int
    reply: Struct
    counters: tuple[tuple[QuotaPolicy, slice], ...]
    quotas: Quotas


def layout_of(
    plan: Plan, grouping: Sequence[int], keys: Sequence[bytes], bounds: Sequence[int]
) -> Layout:
    """Return the layout of a plan.

    `grouping` has for each charge the number of its subject from 0, `keys` are those that come
    before the subjects', and `bounds` are those of what is kept of refusals.
    """
    order = sorted(range(len(grouping)), key=grouping.__getitem__)
    of_subjects, known = len(set(grouping)), len(plan.subject_revisions)
    argument = (
        pack_charges([plan.charges[turn] for turn in order])
        + BOUNDS.pack(*bounds)
        + b"".join(_refusals(plan, order, [len(keys) + 1 + number for number in grouping]))
    )
    number_of_keys = len(keys) + of_subjects + known
    template = (
        beginning(ACQUIRE, number_of_keys + 2 + known)
        + _literal(written(b"%d" % number_of_keys, *keys))
        + WORD * (of_subjects + known)
        + b"$%d\r\n%%b%b\r\n" % (HEADER.size + len(argument), _literal(argument))
    )
    counters = [
        (number, charge.policy.counter_id)
        for number, charge in zip(grouping, plan.charges, strict=True)
    ]
    last_of = {counters[turn]: at for at, turn in enumerate(order)}
    policies = tuple(charge.policy for charge in plan.charges)
    starts = [1 + 3 * last_of[counter] for counter in counters]
    parts = [slice(start, start + 3) for start in starts]
    return Layout(
        template,
        len(keys) + of_subjects,
        Struct(NOW + STATE * len(order)),
        tuple(zip(policies, parts, strict=True)),
        Quotas(policies),
    )


def pack_charges(charges: Sequence[Charge]) -> bytes:
    """Return charges that are grouped by subject as the scripts read them."""
    return b"".join(
        CHARGE.pack(
            following is None or following.subject != charge.subject,
            ALGORITHM_CODES[charge.policy.algorithm],
            MODE_CODES[charge.policy.mode],
            charge.policy.counter_id,
            charge.policy.requests,
            charge.policy.window,
            charge.policy.capacity,
            charge.cost,
        )
        for charge, following in zip(charges, [*charges[1:], None], strict=False)
    )


def _refusals(plan: Plan, order: Sequence[int], places: Sequence[int]) -> Iterator[bytes]:
    labels = plan.labels or [""] * len(plan.charges)
    for turn, (charge, label) in enumerate(zip(plan.charges, labels, strict=True)):
        text = label.encode(errors="replace")
        mode = MODE_CODES[charge.policy.mode]
        yield REFUSAL.pack(order.index(turn), places[turn], mode, len(text)) + text


def _literal(part: bytes) -> bytes:
    return part.replace(b"%", b"%%")
