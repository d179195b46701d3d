"""What is kept of a refusal: the count it adds to, and the detail that is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from unicodedata import category

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.policies import Mode

SEPARATOR = "\0"
"""Stands between the parts of labels, fields and sampled refusals; no part contains it."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for what cannot be shown."""

OTHERS = "*"
"""The subject of refusals that are counted together because a minute has too many subjects."""

LONGEST_METHOD = 20
"""Characters of a method that are kept."""

LONGEST_PATH = 500
"""Characters of a path that are kept."""

LONGEST_USER_AGENT = 255
"""Characters of a user agent that are kept."""


class RefusalKey(NamedTuple):
    """What a refusal is counted under; its parts are in the order in which they are written."""

    mode: Mode
    policy: str
    tier: str
    endpoint: str
    subject: str


@dataclass(frozen=True, slots=True)
class SampledRefusal:
    """One refusal in detail; the times are in microseconds, `at` since the epoch."""

    key: RefusalKey
    rule: str
    at: int
    retry_after: int
    decision_id: str
    revision: int
    method: str
    address: str
    path: str
    user_agent: str


Particulars = tuple[str, int, str, str, str, str]
"""What a sampled refusal tells of the request: the id of its decision, the revision that decided,
the method, address, path and user agent."""


def sampled(outcome: Outcome, label: str, at: int, told: Particulars) -> SampledRefusal:
    """Return a refusal in full, cut to its bounds: what a label and a request tell of an outcome.

    `at` is in microseconds since the epoch.
    """
    charge = outcome.charge
    key, rule = labelled_key(label, charge.policy.mode, charge.subject)
    decision_id, revision, method, address, path, user_agent = told
    return SampledRefusal(
        key=key,
        rule=rule,
        at=at,
        retry_after=outcome.retry_after or 0,
        decision_id=decision_id,
        revision=revision,
        method=printable(method[:LONGEST_METHOD]),
        address=address,
        path=printable(path[:LONGEST_PATH]),
        user_agent=printable(user_agent[:LONGEST_USER_AGENT]),
    )


def refusal_label(policy: str, tier: str, endpoint: str, rule: str = "") -> str:
    """Return the text that names all of these; `labelled_key` reads it."""
    parts = (policy, tier, endpoint, rule) if rule else (policy, tier, endpoint)
    return SEPARATOR.join(parts)


def labelled_key(label: str, mode: Mode, subject: str) -> tuple[RefusalKey, str]:
    """Return what a refusal with a label is counted under, and the rule that the label names."""
    policy, tier, endpoint, rule = (*label.split(SEPARATOR, 3), "", "", "")[:4]
    return RefusalKey(mode, policy, tier, endpoint, subject), rule


def parse_key(field: str) -> RefusalKey | None:
    """Return what a field of a minute's counts stands for, None for what none of ours wrote."""
    parts = field.split(SEPARATOR)
    if len(parts) != 5 or parts[0] not in list(Mode):
        return None
    return RefusalKey(Mode(parts[0]), *map(printable, parts[1:]))


def parse_sample(text: str) -> SampledRefusal | None:
    """Return a sampled refusal as a value, None for what none of ours wrote."""
    parts = text.split(SEPARATOR)
    if len(parts) != 14:
        return None
    at, retry_after, *key_parts, rule, decision_id, revision, method, address, path, agent = parts
    key = parse_key(SEPARATOR.join(key_parts))
    if key is None or not all(map(str.isdecimal, (at, retry_after, revision))):
        return None
    return SampledRefusal(
        key=key,
        rule=printable(rule),
        at=int(at),
        retry_after=int(retry_after),
        decision_id=printable(decision_id),
        revision=int(revision),
        method=printable(method),
        address=printable(address),
        path=printable(path),
        user_agent=printable(agent),
    )


def written_sample(refusal: SampledRefusal) -> str:
    """Return the text that `parse_sample` makes a sampled refusal of."""
    times = str(refusal.at), str(refusal.retry_after)
    of_decision = refusal.rule, refusal.decision_id, str(refusal.revision)
    of_request = refusal.method, refusal.address, refusal.path, refusal.user_agent
    return SEPARATOR.join((*times, *refusal.key, *of_decision, *of_request))


def counted_outcomes(outcomes: Sequence[Outcome]) -> list[int]:
    """Return which outcomes are counted, by their place.

    A refused request is counted once: by the refusing policy with the longest wait. Every shadow
    policy that would have refused is counted as well, since each is tried out by itself.
    """
    counted = []
    binding = max(
        (place for place, outcome in enumerate(outcomes) if outcome.refuses),
        key=lambda place: outcomes[place].retry_after or 0,
        default=None,
    )
    for place, outcome in enumerate(outcomes):
        is_shadow = outcome.charge.policy.mode is Mode.SHADOW and not outcome.allowed
        if place == binding or is_shadow:
            counted.append(place)
    return counted


def printable(text: str) -> str:
    """Return a text from outside on one line, without anything that acts on a screen.

    Spaces of every width stay: rules and tiers are found again by their names.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_shown(letter) else REPLACEMENT for letter in text)


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or category(letter) == "Zs"


Counts = Mapping[RefusalKey, int]
"""How many requests were refused, by what they are counted under."""
