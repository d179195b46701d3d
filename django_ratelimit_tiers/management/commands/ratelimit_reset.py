"""`manage.py ratelimit_reset <subject>...`: let clients start anew."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from ipaddress import ip_interface
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.addresses import address_subject
from django_ratelimit_tiers.digests import DIGEST, key_digest
from django_ratelimit_tiers.management.failures import told_in_words
from django_ratelimit_tiers.models import user_key
from django_ratelimit_tiers.policy.revisions import start_anew
from django_ratelimit_tiers.store.configured import configured_store

NAMES = "user:42, key:<digest or id>, field:<digest>, ip:192.0.2.7, ip:2001:db8::/64 or all"


class Command(BaseCommand):
    """Forgets what clients have used."""

    help = "Forgets what clients have used, so that they start anew; their limits stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        words = f"as the history in the admin shows it: {NAMES}"
        parser.add_argument("subjects", nargs="+", metavar="subject", help=words)

    def handle(self, *args: Any, subjects: list[str], **options: Any) -> None:
        """Reset each of the subjects."""
        if not configured_store().shared:
            raise CommandError("Each process counts in its own memory, which no other can reset.")
        for name in [subject(text) for text in subjects]:  # all are read before any is reset
            with told_in_words():
                for meant in _meant_by(name):
                    start_anew(meant)
            self.stdout.write(f"{name} starts anew.")
            kind, _, number = name.partition(":")
            if kind == "user" and user_key(number) is None:
                self.stderr.write(f"{number!r} is no user's id: only a token could give it.")


def subject(text: str) -> str:
    """Return the subject that a text names; an address names what it is counted under."""
    kind, _, rest = text.partition(":")
    if kind == "ip":
        return _address_subject(rest)
    if kind == "key" and rest:
        return text if DIGEST.match(text) else key_digest(rest)
    if not re.fullmatch(r"all|user:\S+|field:([0-9a-f]{32}|too-long|unclear)", text):
        raise CommandError(f"{text!r} is not a subject such as {NAMES}")
    return text


def _meant_by(name: str) -> list[str]:
    """Return the subjects that a name may mean.

    What looks like a digest can be a key's id, and a user's id can be written in several ways.
    """
    kind, _, rest = name.partition(":")
    if DIGEST.match(name):
        return [name, key_digest(rest)]
    if kind == "user" and (key := user_key(rest)) is not None:
        return [name, f"user:{key}"]
    return [name]


def _address_subject(text: str) -> str:
    """Return the subject of an address, or of a network that counts as one client."""
    address, _, length = text.partition("/")
    try:
        named = ip_interface(text).network
    except ValueError:
        raise CommandError(f"{text!r} is not an address") from None
    found = address_subject(address, conf.IPV6_PREFIX)
    one_client = ip_interface(found.removeprefix("ip:")).network
    if length and named.num_addresses > one_client.num_addresses:
        raise CommandError(
            f"{text!r} has many clients: name one of them, as history does, such as {found}"
        )
    return found
