"""The newest refusals in full, until the store is told of them.

Counts are exact and kept by the store as it refuses. What only illustrates them need not go to the
store with every request, of which few are refused: it is put aside here, and written down when
there is something to tell.
"""

from __future__ import annotations

from collections import deque

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.refusals import Particulars, SampledRefusal, sampled
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED


class Sample:
    """Keeps the newest refusals of a process; safe to share between threads."""

    def __init__(self) -> None:
        self._newest: deque[tuple[Outcome, str, int, Particulars]] = deque(maxlen=MOST_SAMPLED)

    def add(self, outcome: Outcome, label: str, at: int, told: Particulars) -> None:
        """Keep a refusal at a time (microseconds since the epoch), with what a request tells."""
        self._newest.append((outcome, label, at, told))

    def take(self) -> list[SampledRefusal]:
        """Return and remove what is kept, the oldest first."""
        taken = []
        while self._newest:
            try:
                taken.append(self._newest.popleft())
            except IndexError:  # another thread took the last one
                break
        return [sampled(*refusal) for refusal in taken]
