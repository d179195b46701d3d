"""Refusals of clients that do not stop asking: counted as they come, written down when told.

Such a client may ask thousands of times a second. So its refusals are only added up here, and made
into what the store keeps once for all that were added up together.
"""

from __future__ import annotations

from itertools import islice
from threading import Lock

from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.refusals import OTHERS, Counts, RefusalKey, labelled_key

MOST_COUNTED = 2000
"""Subjects and labels after which the subjects are counted together."""


class Repetitions:
    """Counts refusals by enforced policies; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, subject: str, label: str) -> None:
        """Count a refusal of a subject under a label."""
        counts, counted_as = self._counts, (subject, label)
        with self._lock:
            if counted_as in counts:
                counts[counted_as] += 1
            elif len(counts) < MOST_COUNTED:
                counts[counted_as] = 1
            else:
                counts[OTHERS, label] = counts.get((OTHERS, label), 0) + 1

    def take_counts(self, most: int) -> Counts:
        """Return and remove refusals, of so many subjects and labels at most."""
        with self._lock:
            counts = {key: self._counts.pop(key) for key in list(islice(self._counts, most))}
        taken: dict[RefusalKey, int] = {}
        for (subject, label), count in counts.items():
            key, _ = labelled_key(label, Mode.ENFORCE, subject)
            taken[key] = taken.get(key, 0) + count  # labels may differ by no more than the rule
        return taken
