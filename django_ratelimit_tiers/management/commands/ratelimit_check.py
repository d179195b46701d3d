"""`manage.py ratelimit_check`: what is wrong with the limits of this site, in words."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.management.base import BaseCommand, CommandError

from django_ratelimit_tiers.policy.conditions import findings


class Command(BaseCommand):
    """Looks at the settings, the store and the policy, and fails when something is wrong."""

    help = (
        "Says in words what is wrong with the settings, the store and the policy; ends with "
        "status 1 when anything is."
    )
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Print every finding."""
        wrong = 0
        for message in checks.run_checks(tags=[checks.Tags.security]):
            if message.is_silenced() or not str(message.id).startswith("ratelimit_tiers."):
                continue
            wrong += 1
            self._print(message.msg, is_wrong=True, advice=message.hint or "")
            if message.level >= checks.ERROR:
                raise CommandError("The settings are wrong: nothing else was looked at.")
        for finding in findings():
            wrong += finding.is_wrong
            self._print(finding.text, is_wrong=finding.is_wrong, advice=finding.advice)
        if wrong:
            raise CommandError(f"Found {wrong} thing{'' if wrong == 1 else 's'} to look at.")
        self.stdout.write(self.style.SUCCESS("Nothing is wrong."))

    def _print(self, text: str, *, is_wrong: bool, advice: str) -> None:
        if is_wrong:
            self.stdout.write(self.style.ERROR(f"WRONG  {text}"))
            self.stdout.write(f"       {advice}")
        else:
            self.stdout.write(f"ok     {text}")
