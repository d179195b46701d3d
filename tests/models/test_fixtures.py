"""A policy goes from one installation to another by its names, whatever ids the rows have."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from django_ratelimit_tiers.models import (
    AlertRule,
    EndpointRule,
    PolicyRevision,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierPolicy,
)
from django_ratelimit_tiers.receivers import POLICY_MODELS

pytestmark = pytest.mark.django_db

MODELS = (*POLICY_MODELS, AlertRule)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A file with the rows of one installation."""
    pro = Tier.objects.get(slug="pro")
    rule = EndpointRule.objects.create(name="export", path="/export/")
    rule.policies.create(requests=5, period=60)
    rule.policies.create(tier=pro, requests=50, period=60)
    robot = get_user_model().objects.create_user("robot")
    year = datetime(2100, 1, 1, tzinfo=UTC)  # microseconds would be cut
    ServiceAccount.objects.create(
        name="backup", owner="ops", reason="nightly", user=robot, expires_at=year
    )
    AlertRule.objects.create(name="spikes", kind="spike", webhook_url="http://chat/hook")
    file = tmp_path / "policy.json"
    labels = [model._meta.label_lower for model in MODELS]
    natural = {"use_natural_foreign_keys": True, "use_natural_primary_keys": True}
    call_command("dumpdata", *labels, output=str(file), verbosity=0, **natural)
    return file


def load(file: Path) -> None:
    call_command("loaddata", str(file), verbosity=0)


def rows() -> list[dict[str, Any]]:
    """Return all rows, without their ids."""
    return [
        {k: v for k, v in row.__dict__.items() if k not in ("_state", "id") and "_id" not in k}
        for model in MODELS
        for row in model._default_manager.order_by("pk")
    ]


def test_a_file_names_no_ids(policy: Path) -> None:
    written = json.loads(policy.read_text())
    assert not any("pk" in row for row in written)
    rule_limits = [row["fields"] for row in written if row["model"].endswith(".rulepolicy")]
    assert [(f["rule"], f["tier"]) for f in rule_limits] == [
        (["export"], None),
        (["export"], ["pro"]),
    ]


def test_what_is_loaded_again_changes_nothing(policy: Path) -> None:
    before = rows()
    load(policy)
    assert rows() == before


def test_what_is_loaded_changes_the_rows_of_the_same_names(policy: Path) -> None:
    before = rows()
    TierPolicy.objects.update(requests=7, burst=None)
    EndpointRule.objects.update(path="/elsewhere/")
    RulePolicy.objects.update(requests=7)
    ServiceAccount.objects.update(owner="nobody")
    AlertRule.objects.update(minimum_volume=7)
    load(policy)
    assert rows() == before


def test_rows_that_have_the_ids_of_others_are_left_alone(policy: Path) -> None:
    EndpointRule.objects.all().delete()
    taken = EndpointRule.objects.create(name="search", path="/search/")
    EndpointRule.objects.filter(pk=taken.pk).update(name="login", path="/login/")
    load(policy)
    assert set(EndpointRule.objects.values_list("name", "path")) == {
        ("login", "/login/"),
        ("export", "/export/"),
    }
    limits = RulePolicy.objects.values_list("rule__name", "tier__slug", "requests")
    assert set(limits) == {("export", None, 5), ("export", "pro", 50)}


def test_a_tier_that_is_loaded_as_a_default_takes_over_from_the_one_that_was(policy: Path) -> None:
    before = rows()
    Tier.objects.update(default_for="")
    Tier.objects.filter(slug="free").update(default_for="anonymous")
    Tier.objects.filter(slug="anonymous").update(default_for="authenticated")
    Tier.objects.create(slug="trial", name="Trial", default_for="unverified")
    load(policy)
    assert Tier.objects.get(slug="trial").default_for == "unverified"
    Tier.objects.get(slug="trial").delete()
    assert rows() == before


def test_what_is_loaded_raises_the_revision(policy: Path) -> None:
    PolicyRevision.objects.all().delete()
    load(policy)
    edited = set(PolicyRevision.objects.values_list("model", flat=True))
    assert edited == {model._meta.label_lower for model in MODELS if model is not AlertRule}
