"""Exceptions of this package.

RateLimitTiersError
 └── StoreUnavailable
      └── StoreRefused
"""


class RateLimitTiersError(Exception):
    """The root of every exception this package raises on its own account."""


class StoreUnavailable(RateLimitTiersError):
    """The store did not give an answer: unreachable, too slow, or it answered with an error."""


class StoreRefused(StoreUnavailable):
    """The store is there but could not make this one call; others may succeed."""
