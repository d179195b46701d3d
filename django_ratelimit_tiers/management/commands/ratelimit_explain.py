"""`manage.py ratelimit_explain <id>`: why a request was refused."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_ratelimit_tiers.core.words import universal
from django_ratelimit_tiers.management.failures import told_in_words
from django_ratelimit_tiers.models import ThrottleEvent
from django_ratelimit_tiers.policy.explanations import explain


class Command(BaseCommand):
    """Explains the decision whose id a refused client was told."""

    help = "Explains a refusal by the id in its X-RateLimit-Decision header, if it was sampled."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("decision", help="the id, such as 9f86d081884c7d65, or the whole line")

    def handle(self, *args: Any, decision: str, **options: Any) -> None:
        """Write what is known of every policy that refused."""
        with told_in_words():
            self._explain(decision.rpartition(":")[2].strip().lower())

    def _explain(self, decision: str) -> None:
        events = list(ThrottleEvent.objects.filter(decision_id=decision))
        if not events:
            raise CommandError(
                f"No sampled refusal has the id {decision!r}: the newest are written within a "
                "minute where the tasks or `manage.py ratelimit_worker` run, and of an attack "
                "only a sample is kept."
            )
        for event in events:
            self.stdout.write(f"{universal(event.at)} {event.method} {event.path}")
            for line in explain(event):
                self.stdout.write(f"  {line}")
