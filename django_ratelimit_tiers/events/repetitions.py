"""Refusals of clients that do not stop asking: counted as they come, written down when told.

Such a client may ask thousands of times a second. So what is known of a refusal is only put aside
here, and made into what the store keeps once for all that were put aside together.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Lock

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.refusals import (
    OTHERS,
    Counts,
    RefusalKey,
    SampledRefusal,
    labelled_key,
    parse_sample,
    sample_text,
)
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED

MOST_COUNTED = 2000
"""Subjects and labels after which the subjects are counted together."""


class Repetitions:
    """Counts and samples refusals by enforced policies; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._sample: deque[tuple[int, int, str, str, str]] = deque(maxlen=MOST_SAMPLED)

    def add(self, outcome: Outcome, label: str, detail: str) -> None:
        """Count a refusal, unless its label is empty, and sample it, unless its detail is."""
        if not label:
            return
        subject = outcome.charge.subject
        with self._lock:
            counted_as = subject, label
            if counted_as not in self._counts and len(self._counts) >= MOST_COUNTED:
                counted_as = OTHERS, label
            self._counts[counted_as] = self._counts.get(counted_as, 0) + 1
            if detail:
                wait = outcome.retry_after or 0
                self._sample.append((time.time_ns() // 1000, wait, label, subject, detail))

    def take_counts(self, most: int) -> Counts:
        """Return and remove refusals, of so many subjects and labels at most."""
        with self._lock:
            counts = {key: self._counts.pop(key) for key in list(islice(self._counts, most))}
        taken: dict[RefusalKey, int] = {}
        for (subject, label), count in counts.items():
            key, _ = labelled_key(label, Mode.ENFORCE, subject)
            taken[key] = taken.get(key, 0) + count  # labels may differ by no more than the rule
        return taken

    def take_sample(self) -> Sequence[SampledRefusal]:
        """Return and remove the sampled refusals, the oldest first."""
        with self._lock:
            sample = list(self._sample)
            self._sample.clear()
        refusals = (parse_sample(_text(*told)) for told in sample)
        return [refusal for refusal in refusals if refusal is not None]


def _text(at: int, wait: int, label: str, subject: str, detail: str) -> str:
    key, rule = labelled_key(label, Mode.ENFORCE, subject)
    return sample_text(at, wait, key, rule, detail)
