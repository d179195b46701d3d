from __future__ import annotations

from importlib import import_module
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection

from django_ratelimit_tiers.models import (
    EndpointRule,
    PolicyRevision,
    ServiceAccount,
    Tier,
    TierAssignment,
    TierPolicy,
)
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.snapshots import build_snapshot

pytestmark = pytest.mark.django_db

TABLE = import_module("django_ratelimit_tiers.migrations.0002_tier_table")
FIRST = import_module("django_ratelimit_tiers.migrations.0008_first_revision")


class Editor:
    """What the migration reads of a schema editor."""

    connection = connection


def test_the_migrations_say_what_the_models_say():
    apps_of_ours = "django_ratelimit_tiers", "testproject"
    call_command("makemigrations", *apps_of_ours, check=True, stdout=StringIO())


def limits(slug: str) -> list[tuple[int, int, str, int | None]]:
    rows = TierPolicy.objects.filter(tier__slug=slug).order_by("period")
    return list(rows.values_list("requests", "period", "algorithm", "burst"))


@pytest.mark.parametrize(
    ("slug", "per_minute", "burst", "per_day"),
    [
        ("anonymous", 10, 15, 500),
        ("free", 60, 100, 5_000),
        ("pro", 300, 500, 50_000),
        ("business", 1_000, 2_000, 200_000),
    ],
)
def test_the_tier_table_is_there(slug, per_minute, burst, per_day):
    assert limits(slug) == [
        (per_minute, 60, "token_bucket", burst),
        (per_day, 86_400, "sliding_window_counter", None),
    ]


def test_enterprise_and_internal_have_no_limits_to_start_with():
    assert limits("enterprise") == limits("internal") == []
    assert Tier.objects.get(unlimited=True).slug == "internal"


def test_anonymous_and_free_are_the_defaults():
    defaults = dict(Tier.objects.exclude(default_for="").values_list("default_for", "slug"))
    assert defaults == {"anonymous": "anonymous", "authenticated": "free"}


def test_running_it_again_overwrites_no_edit():
    TierPolicy.objects.filter(tier__slug="free", period=60).update(requests=61)
    TierPolicy.objects.filter(tier__slug="pro").delete()
    Tier.objects.filter(slug="business").update(name="Large", rank=3)
    Tier.objects.filter(slug="internal").delete()
    TABLE.create_tiers(apps, Editor)
    assert limits("free")[0][0] == 61
    assert limits("pro") == []
    assert Tier.objects.get(slug="business").name == "Large"
    assert Tier.objects.filter(slug="internal").exists()


def test_a_default_that_staff_gave_to_another_tier_stays_there():
    Tier.objects.filter(slug="free").delete()
    Tier.objects.create(slug="basic", name="Basic", default_for="authenticated")
    TABLE.create_tiers(apps, Editor)
    assert Tier.objects.get(slug="free").default_for == ""


def test_the_installation_is_the_first_revision():
    revision = PolicyRevision.objects.get()
    assert (revision.model, revision.reason) == ("django_ratelimit_tiers.tier", "installed")
    assert revision.subjects == []


def test_a_history_that_has_begun_is_left_as_it_is():
    PolicyRevision.objects.all().delete()
    PolicyRevision.record("django_ratelimit_tiers.tier", "changed", (), "default")
    FIRST.record_installation(apps, Editor)
    assert PolicyRevision.objects.get().reason == "changed"


@pytest.mark.django_db(transaction=True)
def test_moments_that_nobody_can_read_are_brought_into_range():
    late, early = "9500-01-01 04:59:59", "0002-12-31 23:00:00"
    if connection.vendor == "postgresql":  # the others have no such years
        late, early = "10000-01-01 04:59:59+00", "0001-12-31 23:00:00+00 BC"
    account = ServiceAccount.objects.create(name="a", owner="o", reason="r", networks="192.0.2.1")
    assignment = TierAssignment.objects.create(api_key="k", tier=Tier.objects.get(slug="pro"))
    rule = EndpointRule.objects.create(name="always", path="/x")
    call_command("migrate", "django_ratelimit_tiers", "0006", verbosity=0)
    moments = ((account, "expires_at", late), (assignment, "expires_at", late))
    moments += ((rule, "starts_at", early), (rule, "ends_at", late))
    with connection.cursor() as cursor:
        for row, field, moment in moments:
            table = connection.ops.quote_name(row._meta.db_table)
            cursor.execute(f"UPDATE {table} SET {field} = %s", [moment])  # noqa: S608
    call_command("migrate", "django_ratelimit_tiers", verbosity=0)
    for row, _, _ in moments:
        row.refresh_from_db()
    assert account.expires_at.year == 9000
    assert assignment.expires_at is rule.starts_at is rule.ends_at is None
    assert build_snapshot("", AssignmentCache()).has_accounts
    edited = PolicyRevision.objects.filter(reason="updated in bulk").values_list("model", flat=True)
    assert set(edited) == {row._meta.label_lower for row, _, _ in moments}
