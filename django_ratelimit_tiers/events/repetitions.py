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
    Particulars,
    RefusalKey,
    SampledRefusal,
    labelled_key,
    parse_sample,
    refusal_detail,
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
        self._sample: deque[tuple[int, int, str, str, Particulars]] = deque(maxlen=MOST_SAMPLED)

    def add(self, outcome: Outcome, label: str, told: Particulars) -> None:
        """Count a refusal with a label, and sample it with what is told of its request."""
        (subject, _, _), _, _, _, wait = outcome
        counts, counted_as = self._counts, (subject, label)
        with self._lock:
            if counted_as in counts:
                counts[counted_as] += 1
            elif len(counts) < MOST_COUNTED:
                counts[counted_as] = 1
            else:
                counts[OTHERS, label] = counts.get((OTHERS, label), 0) + 1
            self._sample.append((time.time_ns(), wait or 0, label, subject, told))

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


def _text(at: int, wait: int, label: str, subject: str, told: Particulars) -> str:
    key, rule = labelled_key(label, Mode.ENFORCE, subject)
    return sample_text(at // 1000, wait, key, rule, refusal_detail(told))
