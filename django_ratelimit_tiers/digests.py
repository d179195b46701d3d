"""Keyed digests: what is stored and shown instead of an API key."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.conf import settings
from django.utils.crypto import salted_hmac

DIGEST = re.compile(r"key:[0-9a-f]{32}\Z")
"""The form of a digest, which is also the name of its subject."""

_SALT = "django_ratelimit_tiers.digests.key"


def key_digest(raw: str) -> str:
    """Return the digest of a key under the present SECRET_KEY: "key:" and 32 hex digits."""
    return _digest(raw, None)


def key_digests(raw: str) -> Iterator[str]:
    """Yield the digest of a key under SECRET_KEY, then under each of SECRET_KEY_FALLBACKS."""
    yield key_digest(raw)
    for secret in settings.SECRET_KEY_FALLBACKS:
        yield _digest(raw, secret)


def _digest(raw: str, secret: str | bytes | None) -> str:
    key = raw.encode(errors="surrogatepass")
    return f"key:{salted_hmac(_SALT, key, secret, algorithm='sha256').hexdigest()[:32]}"
