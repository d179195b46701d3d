"""What goes with a user, a group or a tier, whatever the constraints say of rows without one."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, User

from django_ratelimit_tiers.models import (
    EndpointRule,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
)

pytestmark = pytest.mark.django_db


def test_an_assignment_goes_with_its_user_and_with_its_group():
    tier = Tier.objects.create(slug="gold", name="Gold")
    user, group = User.objects.create(username="ada"), Group.objects.create(name="customers")
    TierAssignment.objects.create(user=user, tier=tier)
    TierAssignment.objects.create(group=group, tier=tier)
    user.delete()
    assert TierAssignment.objects.get().group == group
    group.delete()
    assert not TierAssignment.objects.exists()


def test_a_service_account_goes_with_the_user_that_identifies_it():
    user = User.objects.create(username="backup")
    ServiceAccount.objects.create(name="backup", owner="ops", reason="nightly", user=user)
    User.objects.all().delete()
    assert not ServiceAccount.objects.exists()


def test_a_rules_limit_for_a_tier_goes_with_it_and_the_one_for_all_tiers_stays():
    tier = Tier.objects.create(slug="gold", name="Gold")
    rule = EndpointRule.objects.create(name="search", path="/api/search")
    rule.policies.create(requests=1, period=60)
    rule.policies.create(requests=2, period=60, tier=tier)
    tier.delete()
    assert RulePolicy.objects.get().requests == 1
