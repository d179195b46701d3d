"""Whom edits are about, and what the store is told of them."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User

from django_ratelimit_tiers.models import PolicyRevision, Tier, TierAssignment
from tests.announcements import Announced


@pytest.fixture
def free() -> Tier:
    return Tier.objects.get(slug="free")


@pytest.fixture
def user() -> User:
    return User.objects.create(username="ada")


@pytest.fixture
def other() -> User:
    return User.objects.create(username="bob")


@pytest.fixture
def group() -> Group:
    return Group.objects.create(name="customers")


@pytest.fixture
def assignment(user, free) -> TierAssignment:
    return TierAssignment.objects.create(user=user, tier=free)


@pytest.fixture
def announced(redis_url, valkey, free, user, other, group) -> Announced:
    announced = Announced(valkey)
    PolicyRevision.objects.all().delete()
    return announced
