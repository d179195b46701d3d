"""What is worked out once: the rules on requests that are alike, and what they are charged."""

from __future__ import annotations

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from django.urls import resolve

from django_ratelimit_tiers.core.policies import QuotaPolicy
from django_ratelimit_tiers.core.rules import Count, IdentifyBy, Rule
from django_ratelimit_tiers.policy import stages
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.identity import identified_client
from django_ratelimit_tiers.policy.ledgers import open_ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot, build_snapshot
from django_ratelimit_tiers.policy.tariffs import (
    REMEMBERED,
    Bill,
    Item,
    RuleGroup,
    Tariff,
    TariffBook,
)
from tests.policies import make_rule


def rule(number: int = 1, **fields: object) -> Rule:
    return Rule(id=number, name=f"rule {number}", path="/a/", **fields)  # type: ignore[arg-type]


class TestGroups:
    def test_a_rule_on_the_path_and_on_the_view_is_in_a_group_once(self) -> None:
        one, two = rule(1), rule(2)
        assert TariffBook().group((one, two), (two,)).rules == (one, two)

    def test_the_same_rules_make_the_same_group(self) -> None:
        book, on_path, on_view = TariffBook(), (rule(1),), (rule(2),)
        assert book.group(on_path, on_view) is book.group(on_path, on_view)

    def test_rules_that_were_forgotten_are_never_taken_for_others(self) -> None:
        book = TariffBook()
        for number in range(100):  # without being kept, one would have the identity of the last
            assert [found.id for found in book.group((rule(number),), ()).rules] == [number]

    def test_groups_are_bounded(self) -> None:
        book, on_path = TariffBook(), (rule(1),)
        first = book.group(on_path, ())
        for number in range(REMEMBERED):
            book.group((rule(number),), ())
        assert book.group(on_path, ()) is not first

    @pytest.mark.parametrize(
        ("fields", "acts_early"),
        [
            ({"identify_by": IdentifyBy.IP}, True),
            ({"identify_by": IdentifyBy.EVERYONE}, True),
            ({"identify_by": IdentifyBy.FIELD}, True),
            ({"identify_by": IdentifyBy.USER}, False),
            ({"identify_by": IdentifyBy.USER, "exempt": True}, True),
            ({}, False),
        ],
        ids=str,
    )
    def test_a_group_knows_whether_it_acts_before_the_client_is_known(
        self, fields: dict[str, object], acts_early: bool
    ) -> None:
        assert TariffBook().group((rule(1, **fields),), ()).acts_early is acts_early

    def test_a_rule_with_dates_is_looked_at_for_each_request(self) -> None:
        always, timed = rule(1), rule(2, starts_at=10.0, ends_at=20.0)
        group = TariffBook().group((always, timed), ())
        found = [group.in_force(now, preflight=False) for now in (9.0, 10.0, 20.0)]
        assert [each.rules for each in found] == [(always,), (always, timed), (always,)]
        assert not any(each.lasts for each in found)

    def test_a_preflight_meets_only_rules_that_name_its_method(self) -> None:
        silent, named = rule(1), rule(2, methods=frozenset(("OPTIONS",)))
        group = TariffBook().group((silent, named), ())
        assert group.in_force(0.0, preflight=True).rules == (named,)
        assert group.in_force(0.0, preflight=False) is group


def test_a_tariff_tells_what_is_given_back_unless_the_response_failed() -> None:
    policy = QuotaPolicy("p", 1, 60)
    reserved = Item(policy, rule(1, count=Count.FAILED), "label", 1)
    assert Tariff((Item(policy, None, "label", 1), reserved)).has_reservations
    assert not Tariff((Item(policy, rule(1), "label", 1),)).has_reservations


def test_tariffs_are_bounded() -> None:
    book = TariffBook()
    for number in range(REMEMBERED + 1):
        book.remember(number, Tariff())
    assert (book.get(0), book.get(REMEMBERED) is not None) == (None, True)


@pytest.mark.django_db
@pytest.mark.urls("tests.site")
class TestBills:
    """Bills of one view."""

    @pytest.fixture
    def snapshot(self) -> Snapshot:
        make_rule("plain", 5)
        return build_snapshot("", AssignmentCache())

    def bill(
        self, snapshot: Snapshot, request: HttpRequest, tier: str = "free", cost: int = 1
    ) -> Bill:
        request.resolver_match = resolve(request.path_info)
        ledger = open_ledger(request)
        ledger.client = identified_client(ledger.client, None, None)
        group = stages.all_rules(snapshot, ledger, request, 0.0)
        return stages.client_bill(snapshot, group, snapshot.tiers[tier], ledger, request, cost)

    def test_clients_share_a_tariff_and_have_charges_of_their_own(self, snapshot: Snapshot) -> None:
        requests = [RequestFactory().get("/plain/", REMOTE_ADDR=f"192.0.2.{n}") for n in (1, 2)]
        one, two = (self.bill(snapshot, request) for request in requests)
        assert one.tariff is two.tariff
        assert {charge.subject for charge in one.charges} == {"ip:192.0.2.1"}
        assert {charge.subject for charge in two.charges} == {"ip:192.0.2.2"}

    @pytest.mark.parametrize(
        ("path", "method", "tier", "cost"),
        [
            ("/async/", "get", "free", 1),
            ("/plain/", "post", "free", 1),
            ("/plain/", "get", "pro", 1),
            ("/plain/", "get", "free", 2),
        ],
    )
    def test_whatever_changes_what_is_charged_is_another_tariff(
        self, snapshot: Snapshot, path: str, method: str, tier: str, cost: int
    ) -> None:
        first = self.bill(snapshot, RequestFactory().get("/plain/"))
        other = self.bill(snapshot, getattr(RequestFactory(), method)(path), tier, cost)
        assert other.tariff.items != first.tariff.items

    def test_another_snapshot_works_it_out_anew(self, snapshot: Snapshot) -> None:
        first = self.bill(snapshot, RequestFactory().get("/plain/"))
        later = build_snapshot("", AssignmentCache())
        assert self.bill(later, RequestFactory().get("/plain/")).tariff is not first.tariff

    def test_what_is_charged_for_a_time_only_is_not_remembered(self, snapshot: Snapshot) -> None:
        group = RuleGroup((rule(1, starts_at=0.0),), lasts=False)
        request = RequestFactory().get("/plain/")
        request.resolver_match = resolve("/plain/")
        ledger = open_ledger(request)
        tier = snapshot.tiers["free"]
        one, two = (stages.client_bill(snapshot, group, tier, ledger, request, 1) for _ in range(2))
        assert one.tariff is not two.tariff
        assert not one.tariff.lasts
