"""The short way to what a request is charged: the same as the plain way, or none at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.http import HttpRequest
from django.test import Client, RequestFactory, override_settings
from django.urls import Resolver404, resolve

from django_ratelimit_tiers.models import ServiceAccount, Tier, TierAssignment
from django_ratelimit_tiers.policy import assignments, passages, stages
from django_ratelimit_tiers.policy.assignments import REMEMBERED_SECONDS, AssignmentCache
from django_ratelimit_tiers.policy.express import (
    ask_site,
    usual_door_fare,
    usual_fare,
    usual_late_fare,
)
from django_ratelimit_tiers.policy.flows import drive
from django_ratelimit_tiers.policy.identity import identified_client, verified_key
from django_ratelimit_tiers.policy.ledgers import Ledger, open_ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot, build_snapshot
from django_ratelimit_tiers.policy.tariffs import Bill
from django_ratelimit_tiers.store.configured import configured_store
from tests.clocks import Clock
from tests.policies import limit_tier, make_rule

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

Ways = tuple[Bill, dict[str, str], Ledger]
Keys = tuple[str, ...]


@pytest.fixture(autouse=True)
def _policy() -> None:
    for slug, size in {"anonymous": 10, "free": 20, "pro": 30, "business": 40}.items():
        limit_tier(slug, size, {"requests": 100 * size, "period": 60})
    make_rule("plain", 7, identify_by="user_or_ip")
    make_rule("plain for users", 8, path="/plain/", identify_by="user")
    make_rule("plain for keys", 9, path="/plain/", identify_by="api_key")


@pytest.fixture
def snapshot() -> Snapshot:
    return build_snapshot("", AssignmentCache())


def asked(
    path: str = "/plain/",
    method: str = "GET",
    charged_rules: frozenset[int] = frozenset(),
    **meta: str,
) -> tuple[HttpRequest, Ledger]:
    request = RequestFactory().generic(method, path, **meta)
    with suppress(Resolver404):
        request.resolver_match = resolve(request.path_info)
    ledger = open_ledger(request)
    ledger.charged_rules = charged_rules
    return request, ledger


def plainly(
    snapshot: Snapshot, user: Any, *, keys: Keys = (), cost: int = 1, **wanted: Any
) -> Ways:
    """Return the bill, the tokens and the ledger by the plain way."""
    request, ledger = asked(**wanted)
    ledger.client, ledger.user = identified_client(ledger.client, user, keys), user
    revisions: dict[str, str] = {}
    bill = drive(stages.client_bill(cost, snapshot, ledger, request, revisions))
    return bill, revisions, ledger


def shortly(
    snapshot: Snapshot, user: Any, *, keys: Keys = (), cost: int = 1, **wanted: Any
) -> Ways | None:
    """Return the same by the short way, None where it leads nowhere."""
    request, ledger = asked(**wanted)
    ledger.client, ledger.user = identified_client(ledger.client, user, keys), user
    drive(ask_site(snapshot, ledger, request))
    fare = usual_fare(snapshot, ledger, request, user, keys, cost)
    return None if fare is None else (fare.bill, fare.revisions, ledger)


def in_pro() -> User:
    user = User.objects.create_user("in pro")
    TierAssignment.objects.create(user=user, tier=limit_tier("pro", 30))
    return user


def in_a_group() -> User:
    user, group = User.objects.create_user("in a group"), Group.objects.create(name="group")
    user.groups.add(group)
    TierAssignment.objects.create(group=group, tier=limit_tier("business", 40))
    return user


def in_both() -> User:
    user = in_a_group()
    TierAssignment.objects.create(user=user, tier=limit_tier("pro", 30))
    return user


USERS: dict[str, Callable[[], Any]] = {
    "nobody": lambda: None,
    "anonymous": AnonymousUser,
    "without a tier": lambda: User.objects.create_user("without a tier"),
    "with a tier": in_pro,
    "in a group with a tier": in_a_group,
    "with a tier and in a group with one": in_both,
}


@pytest.mark.parametrize("make_user", USERS.values(), ids=USERS)
@pytest.mark.parametrize("path", ["/plain/", "/dear/", "/async/"])
@pytest.mark.parametrize("cost", [1, 2])
def test_the_short_way_charges_what_the_plain_way_does(
    snapshot: Snapshot, make_user: Callable[[], Any], path: str, cost: int
) -> None:
    user = make_user()
    bill, revisions, ledger = plainly(snapshot, user, path=path, cost=cost)
    short = shortly(snapshot, user, path=path, cost=cost)
    assert short is not None
    assert short[0] == bill
    assert short[1] == revisions
    assert (short[2].client, short[2].route) == (ledger.client, ledger.route)


@pytest.mark.parametrize("make_user", USERS.values(), ids=USERS)
def test_who_was_charged_before_is_charged_the_very_same_again(
    snapshot: Snapshot, make_user: Callable[[], Any]
) -> None:
    user = make_user()
    plain, revisions, ledger = plainly(snapshot, user)
    first, again = shortly(snapshot, user), shortly(snapshot, user)
    assert first is not None
    assert again is not None
    assert again[0] is first[0]
    assert again[0].charges == plain.charges
    assert (again[1], again[2].client) == (revisions, ledger.client)


def test_everybody_is_charged_by_their_own_fare(snapshot: Snapshot) -> None:
    users = [in_pro(), in_a_group()]
    addresses = ["192.0.2.1", "192.0.2.2"]
    clients = [(user, address) for user in (None, *users) for address in addresses]
    plain = [plainly(snapshot, user, REMOTE_ADDR=address) for user, address in clients]
    for _ in range(2):
        for (user, address), expected in zip(clients, plain, strict=True):
            short = shortly(snapshot, user, REMOTE_ADDR=address)
            assert short is not None
            assert short[0].charges == expected[0].charges
            assert short[2].client == expected[2].client


def test_the_ledger_has_the_user_of_its_own_request(snapshot: Snapshot) -> None:
    user = in_pro()
    plainly(snapshot, user)
    for _ in range(2):
        same = User.objects.get(pk=user.pk)
        short = shortly(snapshot, same)
        assert short is not None
        assert short[2].user is same


def test_a_user_of_another_tier_than_before_has_another_fare(snapshot: Snapshot) -> None:
    user = in_pro()
    plainly(snapshot, user)
    for _ in range(2):
        assert shortly(snapshot, user) is not None
    TierAssignment.objects.filter(user=user).update(tier=Tier.objects.get(slug="business"))
    snapshot.assignments.forget(f"user:{user.pk}")
    assert shortly(snapshot, user) is None
    plain, _, _ = plainly(snapshot, user)
    short = shortly(snapshot, user)
    assert short is not None
    assert short[0] == plain


def test_a_user_whose_tier_gave_way_to_others_goes_the_plain_way(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignments, "MAX_REMEMBERED", 1)
    user = in_pro()
    plainly(snapshot, user)
    for _ in range(2):
        assert shortly(snapshot, user) is not None
    plainly(snapshot, User.objects.create_user("other"))
    assert shortly(snapshot, user) is None


def test_a_tier_that_another_request_looked_up_again_has_another_fare(snapshot: Snapshot) -> None:
    user = in_pro()
    plainly(snapshot, user)
    for token in ("", "newer", "newest"):
        snapshot.assignments.look_up_user(f"user:{user.pk}", user, token)
        for _ in range(2):
            short = shortly(snapshot, user)
            assert short is not None
            assert short[1] == {f"user:{user.pk}": token}


def test_no_more_fares_are_remembered_than_a_bound(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "MOST_FARES", 3)
    plainly(snapshot, None)
    for number in range(10):
        assert shortly(snapshot, None, REMOTE_ADDR=f"192.0.2.{number}") is not None
        assert 0 < len(snapshot.passages.fares) <= 3


@pytest.mark.parametrize("wanted", [{}, {"method": "POST"}, {"cost": 5}], ids=str)
def test_the_short_way_is_known_before_anybody_went_the_plain_one(wanted: dict[str, Any]) -> None:
    short = shortly(build_snapshot("", AssignmentCache()), None, **wanted)
    plain, _, _ = plainly(build_snapshot("", AssignmentCache()), None, **wanted)
    assert short is not None
    assert short[0].charges == plain.charges


def test_a_user_whose_tier_is_not_remembered_goes_the_plain_way(snapshot: Snapshot) -> None:
    user = in_pro()
    plainly(snapshot, user)
    snapshot.assignments.forget(f"user:{user.pk}")
    assert shortly(snapshot, user) is None


def test_a_tier_that_is_remembered_no_longer_is_looked_up_again() -> None:
    clock, user = Clock(), in_pro()
    snapshot = build_snapshot("", AssignmentCache(clock=clock))
    plainly(snapshot, user)
    assert shortly(snapshot, user) is not None
    clock.now += REMEMBERED_SECONDS + 1
    assert shortly(snapshot, user) is None


def test_an_assigned_tier_that_is_gone_leaves_the_next_one(snapshot: Snapshot) -> None:
    user = in_both()
    plainly(snapshot, user)
    tiers = {slug: tier for slug, tier in snapshot.tiers.items() if slug != "pro"}
    without = replace(snapshot, tiers=tiers)
    bill, _, _ = plainly(without, user)
    short = shortly(without, user)
    assert short is not None
    assert short[0] == bill
    assert {charge.policy.name for charge in bill.charges} >= {"business-minute"}


def plainly_at_door(snapshot: Snapshot, **wanted: Any) -> Bill:
    """Return the bill before authentication by the plain way."""
    request, ledger = asked(**wanted)
    return drive(stages.door_bill(snapshot, ledger, request, {}))


def shortly_at_door(snapshot: Snapshot, **wanted: Any) -> Bill | None:
    """Return the same by the short way, None where it leads nowhere."""
    request, ledger = asked(**wanted)
    fare = usual_door_fare(snapshot, ledger, request)
    return fare and fare.bill


@pytest.mark.parametrize("identify_by", ["ip", "everyone"])
def test_the_short_way_charges_the_same_before_authentication(identify_by: str) -> None:
    early = make_rule("early", 5, path="/plain/", identify_by=identify_by)
    snapshot = build_snapshot("", AssignmentCache())
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1") * 2:
        for charged_rules in (frozenset[int](), frozenset((early.pk,))):
            wanted: Any = {"REMOTE_ADDR": address, "charged_rules": charged_rules}
            plain, short = (way(snapshot, **wanted) for way in (plainly_at_door, shortly_at_door))
            assert short is not None
            assert short.charges == plain.charges
            assert bool(plain.charges) is not bool(charged_rules)


def test_who_was_charged_before_authentication_is_charged_the_very_same_again() -> None:
    make_rule("early", 5, path="/plain/")
    snapshot = build_snapshot("", AssignmentCache())
    first, again = shortly_at_door(snapshot), shortly_at_door(snapshot)
    assert first is not None
    assert again is not None
    assert again is first


def test_a_rule_that_exempts_leads_the_plain_way() -> None:
    make_rule("exempt", path="/plain/", exempt=True)
    snapshot = build_snapshot("", AssignmentCache())
    plainly(snapshot, None)
    assert shortly(snapshot, None) is None
    assert shortly_at_door(snapshot) is None


def test_a_rule_that_exempts_elsewhere_changes_nothing_before_authentication() -> None:
    make_rule("early", 5, path="/**")
    make_rule("exempt", view_name="tests.site.asynchronous", exempt=True)
    snapshot = build_snapshot("", AssignmentCache())
    for _ in range(2):
        short = shortly_at_door(snapshot)
        assert short is not None
        assert short.charges == plainly_at_door(snapshot).charges != ()
        assert shortly_at_door(snapshot, path="/async/") is None


@pytest.mark.parametrize("times", [("starts_at",), ("ends_at",), ("starts_at", "ends_at")], ids=str)
def test_a_rule_for_a_time_is_charged_in_that_time_only(
    monkeypatch: pytest.MonkeyPatch, times: tuple[str, ...]
) -> None:
    hours = {"starts_at": 1_000_000, "ends_at": 2_000_000}
    fields = {name: datetime.fromtimestamp(hours[name], UTC) for name in times}
    make_rule("early for a time", 5, path="/plain/", **fields)
    make_rule("late for a time", 6, path="/plain/", identify_by="user", **fields)
    snapshot, user = build_snapshot("", AssignmentCache()), in_pro()
    seen = []
    for now in (999_999.9, 1_000_000.0, 1_999_999.9, 2_000_000.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        for _ in range(2):
            plain, _, _ = plainly(snapshot, user)
            short, at_door = shortly(snapshot, user), shortly_at_door(snapshot)
            assert short is not None
            assert at_door is not None
            assert short[0].charges == plain.charges
            assert at_door.charges == plainly_at_door(snapshot).charges
        names = [charge.policy.name for charge in plain.charges]
        assert len(at_door.charges) == sum(name.startswith("early") for name in names)
        seen.append(any(name.startswith("late") for name in names))
    begins, ends = "starts_at" in times, "ends_at" in times
    assert seen == [not begins, True, True, not ends]


class TestFieldsOfTheBody:
    """Who counts by what a body says is charged by the short way, and remembered by none."""

    @pytest.fixture
    def snapshot(self) -> Snapshot:
        make_rule("by name", 5, path="/plain/", identify_by="field", request_field="username")
        return build_snapshot("", AssignmentCache())

    def body(self, name: str) -> dict[str, Any]:
        body = {"data": f"username={name}", "content_type": "application/x-www-form-urlencoded"}
        return {"method": "POST", **body}

    def test_each_name_is_charged_for_itself(self, snapshot: Snapshot) -> None:
        subjects = set()
        for name in ("anna", "bert", "anna"):
            plain, _, _ = plainly(snapshot, None, **self.body(name))
            short = shortly(snapshot, None, **self.body(name))
            at_door = shortly_at_door(snapshot, **self.body(name))
            assert short is not None
            assert at_door is not None
            assert short[0].charges == plain.charges
            assert at_door.charges == plainly_at_door(snapshot, **self.body(name)).charges
            subjects.update(charge.subject for charge in at_door.charges)
        assert len(subjects) == 2

    def test_no_name_is_remembered(self, snapshot: Snapshot) -> None:
        short = shortly(snapshot, None, **self.body("anna"))
        at_door = shortly_at_door(snapshot, **self.body("anna"))
        assert short is not None
        assert at_door is not None
        assert not snapshot.passages.fares

    def test_who_was_charged_for_a_name_before_authentication_is_remembered(
        self, snapshot: Snapshot
    ) -> None:
        charged = frozenset(rule.id for rule in snapshot.rules.rules if rule.name == "by name")
        bills = []
        for _ in range(2):
            short = shortly(snapshot, None, charged_rules=charged, **self.body("anna"))
            assert short is not None
            bills.append(short[0])
        assert bills[0] is bills[1]


def test_exempt_views_lead_the_plain_way(snapshot: Snapshot) -> None:
    plainly(snapshot, None, path="/free/")
    assert shortly(snapshot, None, path="/free/") is None


def account(name: str, **fields: Any) -> tuple[ServiceAccount, str]:
    """Return an account, saved, and its key."""
    made = ServiceAccount(name=name, owner="operations", reason="it is ours", **fields)
    key = "" if fields else made.new_key()
    made.save()
    return made, key


class TestServiceAccounts:
    """Whoever is exempt goes the plain way, everybody else the short one."""

    def test_an_account_by_network(self) -> None:
        account("probe", networks="192.0.2.0/24")
        make_rule("early", 5, path="/plain/")
        snapshot = build_snapshot("", AssignmentCache())
        self.expect_short(snapshot, None, REMOTE_ADDR="198.51.100.7")
        for _ in range(2):
            assert shortly(snapshot, None, REMOTE_ADDR="192.0.2.7") is None
            assert shortly_at_door(snapshot, REMOTE_ADDR="192.0.2.7") is None

    def test_an_account_by_user(self) -> None:
        user, other = in_pro(), in_a_group()
        account("backup", user=user)
        snapshot = build_snapshot("", AssignmentCache())
        self.expect_short(snapshot, other)
        snapshot.assignments.look_up_user(f"user:{user.pk}", user, "")  # not why it goes plainly
        for _ in range(2):
            assert shortly(snapshot, user) is None

    def test_an_account_by_user_from_some_networks_only(self) -> None:
        user = in_pro()
        account("backup", user=user, networks="192.0.2.0/24")
        snapshot = build_snapshot("", AssignmentCache())
        self.expect_short(snapshot, user, REMOTE_ADDR="198.51.100.7")
        for _ in range(2):
            assert shortly(snapshot, user, REMOTE_ADDR="192.0.2.7") is None

    def test_an_account_by_key_though_its_address_was_charged_before(self) -> None:
        _, key = account("mirror")
        make_rule("early", 5, path="/plain/")
        snapshot = build_snapshot("", AssignmentCache())
        for _ in range(2):
            self.expect_short(snapshot, None)
            assert shortly(snapshot, None, HTTP_X_API_KEY=key) is None
            assert shortly_at_door(snapshot, HTTP_AUTHORIZATION=f"Bearer {key}") is None

    def test_an_account_that_has_expired(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made, _ = account("probe", networks="192.0.2.0/24")
        snapshot = build_snapshot("", AssignmentCache())
        assert shortly(snapshot, None, REMOTE_ADDR="192.0.2.7") is None
        monkeypatch.setattr(time, "time", made.expires_at.timestamp)
        self.expect_short(snapshot, None, REMOTE_ADDR="192.0.2.7")

    def expect_short(self, snapshot: Snapshot, user: Any, **wanted: Any) -> None:
        plain, _, _ = plainly(snapshot, user, **wanted)
        short = shortly(snapshot, user, **wanted)
        assert short is not None
        assert short[0].charges == plain.charges
        at_door = shortly_at_door(snapshot, **wanted)
        assert at_door is not None
        assert at_door.charges == plainly_at_door(snapshot, **wanted).charges


def test_a_preflight_is_charged_by_rules_that_name_its_method_alone() -> None:
    make_rule("silent", 5, path="/plain/")
    make_rule("early", 5, path="/plain/", methods="OPTIONS")
    make_rule("late", 5, path="/plain/", methods="OPTIONS", identify_by="user_or_ip")
    snapshot = build_snapshot("", AssignmentCache())
    asks = {"HTTP_ORIGIN": "https://a.example", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    for meta, expected in ((asks, {"early", "late"}), ({}, {"early", "late", "silent"})):
        plain, revisions, _ = plainly(snapshot, None, method="OPTIONS", **meta)
        short = shortly(snapshot, None, method="OPTIONS", **meta)
        at_door = shortly_at_door(snapshot, method="OPTIONS", **meta)
        assert short is not None
        assert at_door is not None
        assert (short[0].charges, short[1]) == (plain.charges, revisions)
        assert at_door.charges == plainly_at_door(snapshot, method="OPTIONS", **meta).charges
        of_rules = {rule.name for rule in short[0].tariff.rules if rule is not None}
        assert of_rules & {"early", "late", "silent"} == expected
        assert (None in short[0].tariff.rules) is not bool(meta)


class TestKeys:
    """Clients of the site's own API keys."""

    @pytest.mark.parametrize("make_user", USERS.values(), ids=USERS)
    @pytest.mark.parametrize("assigned", [None, "business"])
    def test_a_key_is_charged_the_same(
        self, snapshot: Snapshot, make_user: Callable[[], Any], assigned: str | None
    ) -> None:
        user, keys = make_user(), verified_key("k1")
        if assigned is not None:
            tier = Tier.objects.get(slug=assigned)
            TierAssignment.objects.create(api_key="k1", tier=tier)
        plain, revisions, ledger = plainly(snapshot, user, keys=keys)
        for _ in range(2):
            short = shortly(snapshot, user, keys=keys)
            assert short is not None
            assert (short[0].charges, short[1]) == (plain.charges, revisions)
            assert short[2].client == ledger.client
        other = plainly(snapshot, user, keys=verified_key("k2"))
        short = shortly(snapshot, user, keys=verified_key("k2"))
        assert short is not None
        assert short[0].charges == other[0].charges != plain.charges

    def test_a_key_whose_tier_is_not_remembered_goes_the_plain_way(
        self, snapshot: Snapshot
    ) -> None:
        keys = verified_key("k1")
        plainly(snapshot, None, keys=keys)
        assert shortly(snapshot, None, keys=keys) is not None
        snapshot.assignments.forget(keys[0])
        assert shortly(snapshot, None, keys=keys) is None

    def test_a_key_of_a_service_account_goes_the_plain_way(self) -> None:
        _, key = account("mirror")
        snapshot = build_snapshot("", AssignmentCache())
        for key_id, is_short in ((key, False), ("k1", True)):
            keys = verified_key(key_id)
            snapshot.assignments.look_up_key(keys[0], keys, "")
            assert (shortly(snapshot, None, keys=keys) is not None) is is_short


@pytest.mark.parametrize("slug", [None, "pro", "business", "unheard-of"])
@pytest.mark.parametrize("make_user", USERS.values(), ids=USERS)
def test_the_short_way_heeds_what_the_site_says_of_the_tier(
    snapshot: Snapshot, make_user: Callable[[], Any], slug: str | None
) -> None:
    user, meta = make_user(), {"HTTP_X_TIER": slug} if slug else {}
    with override_settings(RATELIMIT_TIERS={"TIER_RESOLVER": "tests.site.tier_from_header"}):
        plain, revisions, _ = plainly(snapshot, user, **meta)
        for _ in range(2):
            short = shortly(snapshot, user, **meta)
            assert short is not None
            assert (short[0].charges, short[1]) == (plain.charges, revisions)


def test_slugs_of_no_tier_are_remembered_as_one(snapshot: Snapshot) -> None:
    with override_settings(RATELIMIT_TIERS={"TIER_RESOLVER": "tests.site.tier_from_header"}):
        for number in range(5):
            shortly(snapshot, None, HTTP_X_TIER=f"unheard-of-{number}")
        assert len(snapshot.passages.fares) == 1


@pytest.mark.parametrize("default_for", ["", "unverified"])
@pytest.mark.parametrize("email", ["", "anna@example.org"])
def test_the_short_way_heeds_whether_a_user_is_verified(default_for: str, email: str) -> None:
    Tier.objects.filter(slug="business").update(default_for=default_for)
    users = [None, AnonymousUser(), in_pro(), in_a_group(), User.objects.create_user("other")]
    users[-1].email = email
    with override_settings(RATELIMIT_TIERS={"VERIFIED_TEST": "tests.site.is_verified"}):
        snapshot = build_snapshot("", AssignmentCache())
        for user in users:
            plain, revisions, _ = plainly(snapshot, user)
            for _ in range(2):
                short = shortly(snapshot, user)
                assert short is not None
                assert (short[0].charges, short[1]) == (plain.charges, revisions)
    of_business = any("business" in charge.policy.name for charge in plain.charges)
    assert of_business is (default_for == "unverified" and not email)


def test_a_user_who_was_verified_meanwhile_has_another_fare() -> None:
    Tier.objects.filter(slug="business").update(default_for="unverified")
    user = User.objects.create_user("other")
    with override_settings(RATELIMIT_TIERS={"VERIFIED_TEST": "tests.site.is_verified"}):
        snapshot = build_snapshot("", AssignmentCache())
        plainly(snapshot, user)
        seen = []
        for user.email in ("", "", "anna@example.org", ""):
            short = shortly(snapshot, user)
            assert short is not None
            seen.append(any("business" in charge.policy.name for charge in short[0].charges))
    assert seen == [True, True, False, True]


class TestLateRequests:
    """Requests that never reached a view."""

    @pytest.mark.parametrize("path", ["/nothing/", "/plain/"])
    def test_they_are_charged_to_the_tier_of_their_address(
        self, snapshot: Snapshot, path: str
    ) -> None:
        for address in ("192.0.2.1", "192.0.2.2") * 2:
            request, ledger = asked(path, REMOTE_ADDR=address)
            plain = drive(stages.late_bill(snapshot, ledger, request, {}))
            fare = usual_late_fare(snapshot, ledger, request)
            assert fare.bill.charges == plain.charges != ()
            assert {charge.subject for charge in plain.charges} == {f"ip:{address}"}

    @pytest.mark.parametrize("exempt", ["account", "rule"])
    def test_what_an_edit_has_just_exempted_is_not_charged(self, exempt: str) -> None:
        if exempt == "account":
            account("account", networks="192.0.2.0/24")
        else:
            make_rule("exempt", path="/nothing/", exempt=True)
        snapshot = build_snapshot("", AssignmentCache())
        request, ledger = asked("/nothing/", REMOTE_ADDR="192.0.2.1")
        assert usual_late_fare(snapshot, ledger, request) is None
        drive(stages.late_bill(snapshot, ledger, request, {}))
        assert exempt in ledger.exempt

    def test_what_was_charged_before_is_not_charged_again(self) -> None:
        early = make_rule("nothing", 5, path="/nothing/")
        snapshot = build_snapshot("", AssignmentCache())
        for charged_rules in (frozenset[int](), frozenset((early.pk,))) * 2:
            request, ledger = asked("/nothing/", charged_rules=charged_rules)
            plain = drive(stages.late_bill(snapshot, ledger, request, {}))
            fare = usual_late_fare(snapshot, ledger, request)
            assert fare.bill.charges == plain.charges
            assert (early.pk in plain.tariff.rule_ids) is not bool(charged_rules)

    def test_who_was_charged_before_is_charged_the_very_same_again(
        self, snapshot: Snapshot
    ) -> None:
        wanted = (asked("/nothing/"), asked("/nothing/"))
        fares = [usual_late_fare(snapshot, ledger, request) for request, ledger in wanted]
        assert fares[0] is fares[1]


@pytest.mark.parametrize("identify_by", ["ip", "everyone"])
def test_what_was_charged_before_authentication_is_not_charged_again(identify_by: str) -> None:
    early = make_rule("early", 5, path="/plain/", identify_by=identify_by)
    snapshot = build_snapshot("", AssignmentCache())
    for charged_rules in (frozenset[int](), frozenset((early.pk,))) * 2:
        plain, _, _ = plainly(snapshot, None, charged_rules=charged_rules)
        short = shortly(snapshot, None, charged_rules=charged_rules)
        assert short is not None
        assert short[0].charges == plain.charges
        names = {charge.policy.name for charge in plain.charges}
        assert any(name.startswith("early") for name in names) is not bool(charged_rules)


def test_a_tier_edited_elsewhere_is_charged_by_the_very_next_request(client: Client) -> None:
    user = in_pro()
    client.force_login(user)
    for _ in range(3):
        assert "q=30" in client.get("/async/").headers["RateLimit-Policy"]
    TierAssignment.objects.filter(user=user).update(tier=Tier.objects.get(slug="business"))
    configured_store().announce_subjects([f"user:{user.pk}"])  # as the process that saved it does
    assert "q=40" in client.get("/async/").headers["RateLimit-Policy"]


@dataclass(frozen=True)
class Site:
    """Something that a site makes use of, and a request there."""

    path: str = "/async/"
    method: str = "get"
    headers: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[], object] = lambda: None
    status: int = 200


def exempt_another_view() -> None:
    make_rule("early", 100, path="/**")
    make_rule("exempt", view_name="tests.site.plain", exempt=True)


def mean_business_for_unverified() -> None:
    TierAssignment.objects.all().delete()
    Tier.objects.filter(slug="business").update(default_for="unverified")


TIMES = {"starts_at": "2001-01-01T00:00:00Z", "ends_at": "2999-01-01T00:00:00Z"}
BY_FIELD = {"identify_by": "field", "request_field": "username"}
PROXY = {"TRUSTED_PROXIES": ["127.0.0.0/8"]}
PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}

SITES: dict[str, Site] = {
    "nothing else": Site(),
    "a view of the REST framework": Site("/drf/"),
    "trusted proxies": Site(headers={"X-Forwarded-For": "203.0.113.9"}, settings=PROXY),
    "an API key": Site(
        headers={"X-Key": "k1"}, settings={"API_KEY_RESOLVER": "tests.site.key_from_header"}
    ),
    "a tier that the site names": Site(
        headers={"X-Tier": "pro"}, settings={"TIER_RESOLVER": "tests.site.tier_from_header"}
    ),
    "a test of users": Site(settings={"VERIFIED_TEST": "tests.site.is_verified"}),
    "a test of users who have no tier": Site(
        settings={"VERIFIED_TEST": "tests.site.is_verified"}, prepare=mean_business_for_unverified
    ),
    "service accounts": Site(
        prepare=lambda: (account("mirror"), account("probe", networks="192.0.2.0/24"))
    ),
    "a rule before authentication": Site(prepare=lambda: make_rule("async", 100)),
    "a rule that exempts another view": Site(prepare=exempt_another_view),
    "a rule for a time": Site(prepare=lambda: make_rule("async", 100, **TIMES)),
    "a rule by a field": Site(prepare=lambda: make_rule("async", 100, **BY_FIELD)),
    "a rule in shadow mode": Site(prepare=lambda: make_rule("async", 1, mode="shadow")),
    "a path to no view": Site("/nothing/", status=404),
    "a rule on a path to no view": Site(
        "/nothing/",
        prepare=lambda: make_rule("nothing", 100, identify_by="user_or_ip"),
        status=404,
    ),
    "a preflight": Site(
        method="options",
        headers=PREFLIGHT,
        prepare=lambda: make_rule("async", 100, methods="OPTIONS"),
    ),
}


@pytest.mark.parametrize("name", SITES)
def test_the_second_request_takes_the_short_way_whatever_a_site_makes_use_of(
    client: Client, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    site = SITES[name]
    client.force_login(in_pro())
    site.prepare()
    ask = getattr(client, site.method)
    with override_settings(RATELIMIT_TIERS=site.settings):
        assert ask(site.path, headers=site.headers).status_code == site.status
        for stage in ("door_bill", "client_bill", "late_bill"):
            monkeypatch.setattr(stages, stage, lambda *_: pytest.fail("it went the plain way"))
        for _ in range(2):
            assert "RateLimit" in ask(site.path, headers=site.headers).headers
