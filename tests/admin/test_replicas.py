"""Actions on a site that reads from a replica: they change the rows where they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.contrib.messages.storage.fallback import FallbackStorage
from django.db.models import Model
from django.test import RequestFactory
from django.utils import timezone

from django_ratelimit_tiers.models import Alert, EndpointRule, ServiceAccount, Tier
from tests.replicas import unreachable_replica

pytestmark = pytest.mark.django_db


def rule() -> EndpointRule:
    return EndpointRule.objects.create(name="r", path="/plain/")


def tier() -> Tier:
    return Tier.objects.create(slug="gold", name="Gold", rank=9)


def account() -> ServiceAccount:
    named = {"name": "a", "owner": "o", "reason": "r"}
    return ServiceAccount.objects.create(networks="192.0.2.0/24", **named)


def alert() -> Alert:
    now = timezone.now()
    return Alert.objects.create(kind="spike", cause="x", opened_at=now, last_seen_at=now)


@pytest.mark.parametrize(
    ("make", "action", "field", "changed"),
    [
        (rule, "turn_off", "mode", "off"),
        (rule, "shadow", "mode", "shadow"),
        (tier, "shadow", "mode", "shadow"),
        (alert, "acknowledge", "state", "acknowledged"),
        (account, "issue_new_keys", "key_digest", "key:"),
    ],
)
def test_an_action_changes_what_is_written(
    rf: RequestFactory,
    admin_user: User,
    make: Callable[[], Model],
    action: str,
    field: str,
    changed: str,
) -> None:
    row = make()
    request: Any = rf.post("/")
    request.user, request.session = admin_user, {}
    request._messages = FallbackStorage(request)
    admin = site.get_model_admin(type(row))
    with unreachable_replica():
        getattr(admin, action)(request, type(row)._default_manager.filter(pk=row.pk))
    stored = type(row)._default_manager.get(pk=row.pk)
    assert getattr(stored, field).startswith(changed)
