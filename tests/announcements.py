"""What the store has been told of edits, read from the store itself."""

from __future__ import annotations

from django.contrib.auth.models import User

from django_ratelimit_tiers.conf import conf
from tests.servers import ValkeyProcess

POLICY = {"policy"}
"""What is announced of an edit that concerns everyone."""


def named(*users: User) -> set[str]:
    """Return what is announced of edits that concern these users."""
    return {f"user:{user.pk}" for user in users}


class Announced:
    """What the store has been told since it was last asked."""

    def __init__(self, server: ValkeyProcess) -> None:
        self.server = server
        self.seen: dict[str, bytes] = {}
        self.new()

    def new(self) -> set[str]:
        with self.server.client() as client:
            keys = [key.decode() for key in client.scan_iter(f"{conf.KEY_PREFIX}:*revision")]
            tokens = {key: client.get(key) for key in keys}
        changed = {key for key, token in tokens.items() if self.seen.get(key) != token}
        self.seen = tokens
        return {"policy" if "{" not in key else key[key.index("{") + 1 : -10] for key in changed}
