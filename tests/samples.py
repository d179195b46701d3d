"""The sample of refusals, which processes tell the store every few seconds."""

from __future__ import annotations

from django_ratelimit_tiers.core.refusals import SampledRefusal
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.store.configured import configured_store


def sampled() -> list[SampledRefusal]:
    """Return what the store has once this process has told it."""
    limiter().teller.tell()
    return configured_store().records.sample()
