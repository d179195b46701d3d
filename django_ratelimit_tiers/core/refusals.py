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
"""What is told of a refused request: the id of the decision, the revision that decided, the method,
address, path and user agent."""


def refusal_detail(told: Particulars) -> str:
    """Return what a sampled refusal tells of the request, cut to its bounds."""
    decision_id, revision, method, address, path, user_agent = told
    if SEPARATOR in path or SEPARATOR in user_agent or SEPARATOR in method:
        method = method.replace(SEPARATOR, REPLACEMENT)  # middleware may take it from a form
        path = path.replace(SEPARATOR, REPLACEMENT)
        user_agent = user_agent.replace(SEPARATOR, REPLACEMENT)
    path, user_agent = path[:LONGEST_PATH], user_agent[:LONGEST_USER_AGENT]
    return f"{decision_id}\0{revision}\0{method[:20]}\0{address}\0{path}\0{user_agent}"


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
    of_request = refusal.method, refusal.address, refusal.path, refusal.user_agent
    detail = SEPARATOR.join((refusal.decision_id, str(refusal.revision), *of_request))
    return sample_text(refusal.at, refusal.retry_after, refusal.key, refusal.rule, detail)


def sample_text(at: int, wait: int, key: RefusalKey, rule: str, detail: str) -> str:
    """Return a sampled refusal as the store's script writes one; `detail` is that of the plan."""
    return SEPARATOR.join((str(at), str(wait), *key, rule, detail))


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
