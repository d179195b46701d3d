from __future__ import annotations

import pytest

from django_ratelimit_tiers.models import Tier


@pytest.fixture
def tier(db: None) -> Tier:
    """A tier without limits."""
    return Tier.objects.create(slug="gold", name="Gold")
