"""Sites that read from replicas: the policy is read where it is written."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from django_ratelimit_tiers.models import Tier, TierAssignment
from django_ratelimit_tiers.policy.limiter import limiter
from tests.policies import limit_tier, make_rule
from tests.replicas import unreachable_replica

pytestmark = pytest.mark.django_db


def test_the_policy_is_never_read_from_a_replica(client: Client) -> None:
    anna, group = User.objects.create_user("anna"), Group.objects.create(name="good customers")
    anna.groups.add(group)
    limit_tier("free", 9)
    limit_tier("pro", 2)
    make_rule("plain", 1000)
    TierAssignment.objects.create(group=group, tier=Tier.objects.get(slug="pro"))
    client.force_login(anna)
    with unreachable_replica():
        assert [client.get("/plain/").status_code for _ in range(3)] == [200, 200, 429]
        snapshot = limiter()._snapshots.current
        assert snapshot is not None
        assert limiter()._snapshots.compare(snapshot) is snapshot
