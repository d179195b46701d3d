"""Sites that read from replicas: the policy is read where it is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connections, models
from django.test import Client, override_settings

from django_ratelimit_tiers.models import Tier, TierAssignment
from django_ratelimit_tiers.policy.limiter import limiter
from tests.policies import limit_tier, make_rule

pytestmark = pytest.mark.django_db


class ReadReplica:
    """A router as in Django's documentation."""

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == "django_ratelimit_tiers" else None

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str | None:
        return "default"


@pytest.fixture
def _unreachable_replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second database that nobody can read."""
    nowhere = {**connections.settings["default"], "NAME": "/nowhere/replica"}
    monkeypatch.setitem(connections.settings, "replica", nowhere)
    yield
    del connections["replica"]


@pytest.mark.usefixtures("_unreachable_replica")
def test_the_policy_is_never_read_from_a_replica(client: Client) -> None:
    anna, group = User.objects.create_user("anna"), Group.objects.create(name="good customers")
    anna.groups.add(group)
    limit_tier("free", 9)
    limit_tier("pro", 2)
    make_rule("plain", 1000)
    TierAssignment.objects.create(group=group, tier=Tier.objects.get(slug="pro"))
    client.force_login(anna)
    with override_settings(DATABASE_ROUTERS=[ReadReplica()]):
        assert [client.get("/plain/").status_code for _ in range(3)] == [200, 200, 429]
        snapshot = limiter()._snapshots.current
        assert snapshot is not None
        assert limiter()._snapshots.compare(snapshot) is snapshot
