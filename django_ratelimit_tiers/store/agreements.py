"""The revision of the policy on a cluster, of which each part has a copy."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1

from django_ratelimit_tiers.store.protocol import REVISION_TTL, written_token
from django_ratelimit_tiers.store.redis import RedisStore
from django_ratelimit_tiers.store.scripts import Script

MOST_LOOKS = 5
"""How often copies are looked at that change meanwhile."""

REPLACE = Script.load("replace")


def agreed_revision(parts: Sequence[RedisStore]) -> str:
    """Return the token that all parts have.

    Where they differ, an edit is being announced most of the time, so they are looked at again.
    Where that changes nothing they are given a new token, made of those they have and written in
    the place of those alone. So all who notice write the same, and nobody over a later edit's: if
    each wrote one of its own, the others would notice that, without end.
    """
    before: list[str] = []
    for _ in range(MOST_LOOKS):
        tokens = [part.revision() for part in parts]
        if len(set(tokens)) == 1:
            break
        if tokens == before:
            _replace(parts, tokens)
        before = tokens
    return tokens[0]


def _replace(parts: Sequence[RedisStore], tokens: Sequence[str]) -> None:
    written = [written_token(token) for token in tokens]
    new = sha1(b"\0".join(written), usedforsecurity=False).hexdigest()
    for part, token in zip(parts, written, strict=True):
        part.command("EVAL", REPLACE.text, 1, part.protocol.revision_key, token, new, REVISION_TTL)
