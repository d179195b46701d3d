"""`manage.py ratelimit_preview <method> <path>`: what a request would be charged now."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_ratelimit_tiers.management.failures import told_in_words
from django_ratelimit_tiers.policy.previews import Enquiry, preview


class Command(BaseCommand):
    """Tells which limits are on a request and how they stand, without charging it."""

    help = (
        "Tells which limits a request would be charged to, how much of them is used, and whether "
        "it would pass; it is not made, and nothing is charged."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("method", type=str.upper, help="such as GET")
        add("path", help="as a client asks for it, such as /api/search/?q=a")
        add("--address", default="192.0.2.1", help="the client's; 192.0.2.1, which is nobody's")
        add("--user", default="", help="the name of the user, or the primary key")
        add("--api-key", default="", help="the id that API_KEY_RESOLVER would return")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print every line of the preview."""
        named = {name: options[name] for name in Enquiry.__dataclass_fields__}
        try:
            with told_in_words():
                lines = preview(Enquiry(**named))
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.stdout.write("\n".join(lines))  # at once, for whoever reads only their head
