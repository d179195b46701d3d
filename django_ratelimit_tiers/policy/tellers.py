"""What this process counts by itself, told to the store in batches."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from os import register_at_fork
from threading import Timer
from weakref import WeakSet

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.refusals import Counts, Particulars
from django_ratelimit_tiers.core.tallies import Tally
from django_ratelimit_tiers.events.repetitions import Repetitions
from django_ratelimit_tiers.events.samples import Sample
from django_ratelimit_tiers.events.tallies import FLUSH_SECONDS, MOST_REFUSALS, TallySheet
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.store.base import Store
from django_ratelimit_tiers.store.memory_records import MemoryRecords


class Teller:
    """Tells the store usage, the refusals that were decided without it, and the newest in full.

    The requests take the tallies along. Only after refusals a timer makes sure that they are told
    even if no request follows. What the store did not hear is told again.
    """

    def __init__(self, store: Store, local: MemoryRecords) -> None:
        self._store = store
        self._local = local
        self._sheet = TallySheet()
        self._repetitions, self._sample = Repetitions(), Sample()
        self._timer: Timer | None = None
        self._is_stopped = False
        _TELLERS.add(self)

    def note(self, ledger: Ledger) -> bool:
        """Count a request that was decided; returns whether it is time to tell."""
        client = ledger.client
        subject = ledger.account or client.subject
        return self._sheet.note(subject, client.address_subject, ledger.decision)

    def note_again(self, ledger: Ledger) -> bool:
        """Do what `note` does for a refusal that `count_refusal` has counted."""
        client = ledger.client
        subject = ledger.account or client.subject
        return self._sheet.note_again(subject, client.address_subject, ledger.decision)

    def count_refusal(self, subject: str, label: str) -> None:
        """Count what was refused without asking the store, under a label; `sample` follows."""
        self._repetitions.add(subject, label)

    def sample(self, outcome: Outcome, label: str, at: int, told: Particulars) -> None:
        """Keep a refusal in full, with what its request tells, until the store is told."""
        self._sample.add(outcome, label, at, told)
        if self._timer is None:
            self.tell_later()

    def tell(self) -> bool:
        """Tell the store what there is, and return whether there was any; raises StoreUnavailable.

        Of refusals that were decided without the store it is as much as one tally may have.
        """
        tally = self._sheet.take(self._take_counts, self._sample.take)
        if tally:
            self._store.records.add(tally)
        self._told(tally)
        return bool(tally)

    async def atell(self) -> bool:
        """Do what `tell` does, on an event loop."""
        tally = self._sheet.take(self._take_counts, self._sample.take)
        if tally:
            await self._store.records.aadd(tally)
        self._told(tally)
        return bool(tally)

    def tell_the_rest(self) -> None:
        """Tell the store everything as the process ends, when nobody could handle its failure and
        Python 3.12 begins no thread any more."""
        self.stop()
        with suppress(StoreUnavailable):
            while self.tell():
                pass

    def leave_to_parent(self) -> None:
        """Start a forked process with nothing to tell: its parent does, and has the timer."""
        self._sheet, self._repetitions, self._sample = TallySheet(), Repetitions(), Sample()
        self._timer = None
        self._local.leave_to_parent()

    def stop(self) -> None:
        """Let no timer go off any more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def tell_later(self) -> None:
        """Make sure that the store is told soon, even if no request follows."""
        if self._timer is None and not self._is_stopped:
            self._timer = Timer(FLUSH_SECONDS, self._tell_in_time)
            self._timer.daemon = True
            self._timer.start()

    def _tell_in_time(self) -> None:
        """Tell the store what there is, and try again later if it does not hear: no request may
        come that would."""
        self._timer = None  # first, so that whatever is counted from now on sets another
        try:
            self.tell()
        except StoreUnavailable:
            self.tell_later()

    def _told(self, tally: Tally) -> None:
        self._sheet.told(tally)
        if tally.refusals:  # there may be more
            self.tell_later()

    def _take_counts(self) -> Counts:
        local = self._local.take_counts(MOST_REFUSALS)
        repeated = self._repetitions.take_counts(MOST_REFUSALS - len(local))
        return Counter(local) + Counter(repeated)


_TELLERS: WeakSet[Teller] = WeakSet()


def _leave_to_parent() -> None:
    for teller in list(_TELLERS):
        teller.leave_to_parent()


register_at_fork(after_in_child=_leave_to_parent)
