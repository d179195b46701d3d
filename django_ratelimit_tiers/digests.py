"""Keyed digests: what is stored and shown instead of an API key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from hmac import HMAC

from django.conf import settings
from django.utils.crypto import salted_hmac

DIGEST = re.compile(r"key:[0-9a-f]{32}\Z")
"""The form of a digest, which is also the name of its subject."""

_SALT = "django_ratelimit_tiers.digests.key"


def key_digest(raw: str) -> str:
    """Return the digest of a key under the present SECRET_KEY: "key:" and 32 hex digits."""
    return _digest(raw, settings.SECRET_KEY)


def key_digests(raw: str) -> Iterator[str]:
    """Yield the digest of a key under SECRET_KEY, then under each of SECRET_KEY_FALLBACKS."""
    yield key_digest(raw)
    for secret in settings.SECRET_KEY_FALLBACKS:
        yield _digest(raw, secret)


def _digest(raw: str, secret: str | bytes) -> str:
    mac = _keyed(secret).copy()
    mac.update(raw.encode(errors="surrogatepass"))
    return f"key:{mac.hexdigest()[:32]}"


@lru_cache(maxsize=8)
def _keyed(secret: str | bytes) -> HMAC:
    """Return what digests under a secret begin with: deriving its key is most of the work."""
    return salted_hmac(_SALT, b"", secret, algorithm="sha256")
