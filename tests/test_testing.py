"""The helpers that projects use in their own tests."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, transaction
from django.test import AsyncClient, Client, TestCase

from django_ratelimit_tiers.models import Tier, TierAssignment, TierPolicy
from django_ratelimit_tiers.testing import override_limits, unlimited
from tests.policies import make_rule
from tests.test_docs import ROOT, snippets

pytestmark = pytest.mark.django_db


def statuses(requests: int) -> list[int]:
    client = Client()
    return [client.get("/plain/").status_code for _ in range(requests)]


def limits() -> list[tuple[int, int, str, int | None]]:
    rows = TierPolicy.objects.filter(tier__slug="anonymous").order_by("pk")
    return list(rows.values_list("requests", "period", "algorithm", "burst"))


def test_a_tier_has_the_given_limit_inside_and_its_own_again_afterwards():
    before = limits()
    with override_limits({"anonymous": (2, 60)}):
        assert statuses(3) == [200, 200, 429]
    assert limits() == before
    with override_limits():
        assert statuses(3) == [200, 200, 200]


@pytest.mark.parametrize("fields", [{"mode": "shadow"}, {"unlimited": True}], ids=str)
def test_a_tier_that_refuses_nobody_has_the_given_limit_inside(fields):
    Tier.objects.update(**fields)
    with override_limits({"anonymous": (2, 60)}):
        assert statuses(3) == [200, 200, 429]
    assert Tier.objects.filter(**fields).count() == Tier.objects.count()


def test_limits_are_restored_when_the_test_fails():
    before = limits()
    with pytest.raises(ZeroDivisionError), override_limits({"anonymous": (2, 60)}):
        _ = 1 / 0
    assert limits() == before


def test_settings_are_restored_when_the_test_has_broken_its_transaction():
    before = settings.RATELIMIT_TIERS
    with (
        pytest.raises(transaction.TransactionManagementError),
        transaction.atomic(),
        override_limits({"anonymous": (2, 60)}),
        suppress(IntegrityError),
    ):
        Tier.objects.create(slug="free", name="Another")
    assert settings.RATELIMIT_TIERS is before


def test_nothing_is_limited_inside_unlimited():
    with override_limits({"anonymous": (1, 60)}):
        with unlimited():
            assert statuses(3) == [200, 200, 200]
        assert statuses(2) == [200, 429]


def test_every_use_counts_afresh():
    for _ in range(2):
        with override_limits({"anonymous": (1, 60)}):
            assert statuses(2) == [200, 429]


@override_limits({"anonymous": (1, 60)}, HEADERS=[])
def test_settings_are_overridden_too():
    response = Client().get("/plain/")
    assert "X-RateLimit-Limit" not in response.headers


def test_rules_made_before_are_in_force_without_a_commit():
    TierPolicy.objects.filter(tier__slug="anonymous").delete()
    tier = Tier.objects.get(slug="anonymous")
    TierPolicy.objects.create(tier=tier, requests=1, period=3600)
    with override_limits():
        assert statuses(2) == [200, 429]


def test_rules_made_inside_are_in_force_without_a_commit():
    with override_limits():
        assert statuses(1) == [200]
        make_rule("plain", 1)
        assert statuses(2) == [200, 429]


@pytest.mark.parametrize("way", ["user", "group"])
def test_a_tier_assigned_inside_is_in_force_without_a_commit(client, way):
    user, group = User.objects.create_user("anna"), Group.objects.create(name="big")
    client.force_login(user)
    pro = Tier.objects.get(slug="pro")
    TierAssignment.objects.create(group=group, tier=pro)
    with override_limits({"free": (1, 60), "pro": (5, 60)}):
        assert [client.get("/plain/").status_code for _ in range(2)] == [200, 429]
        if way == "user":
            TierAssignment.objects.create(user=user, tier=pro)
        else:
            user.groups.add(group)
        assert client.get("/plain/").status_code == 200


def test_an_unknown_setting_is_named():
    with pytest.raises(ImproperlyConfigured, match="'HEADER'"):
        override_limits(HEADER=[])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"STORE_TIMEOUT": "soon"},
            r"RATELIMIT_TIERS\['STORE_TIMEOUT'\] is wrong: make it s",
        ),
        ({"EVENTS": []}, r"RATELIMIT_TIERS\['EVENTS'\] is wrong: make it a dict"),
        ({"EVENTS": {"SAMPEL": 1}}, r"has no key 'SAMPEL'; the keys are: SAMPLE"),
        ({"EVENTS": {"SAMPLE": "1"}}, r"\['EVENTS'\]\['SAMPLE'\] is wrong: make it a number"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(values, words):
    with pytest.raises(ImproperlyConfigured, match=words):
        override_limits(**values)


@pytest.mark.parametrize("limit", [2, (0, 60), (2, 0), ("2", 60), (2, 60, 3)])
def test_what_is_no_limit_is_refused_before_anything_changes(limit):
    with pytest.raises(
        ValueError, match=r"the limit of 'free' must be requests and seconds, such as"
    ):
        override_limits({"anonymous": (2, 60), "free": limit})


def test_an_unknown_tier_changes_nothing():
    before = limits()
    with (
        pytest.raises(Tier.DoesNotExist, match="gold"),
        override_limits({"anonymous": (1, 60), "gold": (1, 1)}),
    ):
        pass
    assert limits() == before


def test_tiers_that_a_kept_database_lacks_are_made_as_documented():
    Tier.objects.all().delete()
    with pytest.raises(Tier.DoesNotExist, match="in a kept test database"):
        override_limits({"anonymous": (1, 60)}).enable()
    page = ROOT / "docs" / "testing.md"
    (made,) = [text for text in snippets(page, "python") if "get_or_create" in text]
    exec(made, {})  # noqa: S102 - what the document tells
    with override_limits({"anonymous": (2, 60)}):
        assert statuses(3) == [200, 200, 429]


@override_limits({"anonymous": (1, 60)})
class DecoratedCase(TestCase):
    def test_every_test_of_a_decorated_class_has_the_limits(self):
        self.assertEqual(statuses(2), [200, 429])  # noqa: PT009


class AsynchronousTests(TestCase):
    async def statuses(self) -> list[int]:
        client = AsyncClient()
        return [(await client.get("/async/")).status_code for _ in range(3)]

    @override_limits({"anonymous": (2, 60)})
    async def test_a_decorated_coroutine_has_the_given_limit(self):
        assert await self.statuses() == [200, 200, 429]

    async def test_the_given_limit_holds_inside(self):
        async with override_limits({"anonymous": (2, 60)}):
            assert await self.statuses() == [200, 200, 429]
            async with unlimited():
                assert await self.statuses() == [200, 200, 200]
        async with override_limits():
            assert await self.statuses() == [200, 200, 200]
