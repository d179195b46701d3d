"""What is worked out once: the rules on requests that are alike, and what they are charged."""

from __future__ import annotations

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from django.urls import resolve

from django_ratelimit_tiers.core.policies import MAX_REQUESTS, QuotaPolicy
from django_ratelimit_tiers.core.rules import Count, IdentifyBy, Rule
from django_ratelimit_tiers.core.rulesets import RuleSet
from django_ratelimit_tiers.policy import bills, passages, stages
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.identity import identified_client
from django_ratelimit_tiers.policy.ledgers import open_ledger
from django_ratelimit_tiers.policy.passages import (
    LONGEST_REMEMBERED,
    MOST_TARIFFS,
    REMEMBERED,
    PassageBook,
)
from django_ratelimit_tiers.policy.routes import RouteIndex
from django_ratelimit_tiers.policy.snapshots import Snapshot, build_snapshot
from django_ratelimit_tiers.policy.tariffs import Bill, Item, RuleGroup, Tariff
from tests.policies import make_rule


def rule(number: int = 1, **fields: object) -> Rule:
    return Rule(id=number, name=f"rule {number}", path="/a/", **fields)  # type: ignore[arg-type]


def snapshot_rules(snapshot: Snapshot) -> frozenset[int]:
    """Return the ids of all rules."""
    return frozenset(each.id for each in snapshot.rules.rules)


class TestGroups:
    def test_a_rule_on_the_path_and_on_the_view_is_in_a_group_once(self) -> None:
        one, two = rule(1), rule(2)
        assert RuleGroup.of((one, two, two)).rules == (one, two)

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
        assert RuleGroup.of((rule(1, **fields),)).acts_early is acts_early

    def test_a_group_acts_no_more_once_its_early_rules_were_charged(self) -> None:
        early, late = rule(1, identify_by=IdentifyBy.IP), rule(2, identify_by=IdentifyBy.USER)
        group = RuleGroup.of((early, late))
        assert group.acts_beyond(frozenset())
        assert group.acts_beyond(frozenset((late.id,)))
        assert not group.acts_beyond(frozenset((early.id,)))
        assert not RuleGroup.of((late,)).acts_beyond(frozenset())

    def test_a_group_knows_when_its_rules_begin_and_cease_to_be_active(self) -> None:
        always, timed = rule(1), rule(2, starts_at=10.0, ends_at=20.0)
        group = RuleGroup.of((always, timed, rule(3, starts_at=20.0)))
        assert group.turns == (10.0, 20.0)
        found = [group.active(now) for now in (9.0, 10.0, 20.0)]
        assert [[each.id for each in active.rules] for active in found] == [[1], [1, 2], [1, 3]]
        assert not any(active.turns for active in found)


def test_a_tariff_tells_what_is_given_back_unless_the_response_failed() -> None:
    policy = QuotaPolicy("p", 1, 60)
    reserved = Item(policy, rule(1, count=Count.FAILED), "label", 1)
    assert Tariff((Item(policy, None, "label", 1), reserved)).has_reservations
    assert not Tariff((Item(policy, rule(1), "label", 1),)).has_reservations


def test_a_tariff_has_no_cost_that_no_counter_can_hold() -> None:
    with pytest.raises(ValueError, match="cost must be from 0"):
        Tariff((Item(QuotaPolicy("p", 1, 60), None, "label", MAX_REQUESTS + 1),))


class TestPassages:
    def test_requests_among_the_same_rules_share_a_passage(self) -> None:
        book, on_path = PassageBook(RuleSet(), RouteIndex(())), (rule(1),)
        assert book.unresolved(on_path, "GET") is book.unresolved(on_path, "GET")

    def test_each_method_has_its_own_since_refusals_are_counted_by_method(self) -> None:
        book, on_path = PassageBook(RuleSet(), RouteIndex(())), (rule(1),)
        assert book.unresolved(on_path, "GET") is not book.unresolved(on_path, "POST")

    def test_a_preflight_meets_only_rules_that_name_its_method(self) -> None:
        book, named = (
            PassageBook(RuleSet(), RouteIndex(())),
            rule(2, methods=frozenset(("OPTIONS",))),
        )
        on_path = (rule(1), named)
        assert book.unresolved(on_path, "OPTIONS", preflight=True).rules.rules == (named,)
        assert book.unresolved(on_path, "OPTIONS").rules.rules == on_path

    def test_it_is_the_same_until_one_of_its_rules_turns(self) -> None:
        on_path = (rule(1), rule(2, starts_at=10.0, ends_at=20.0))
        passage = PassageBook(RuleSet(), RouteIndex(())).unresolved(on_path, "GET")
        before, during, later, after = (passage.at(now) for now in (9.9, 10.0, 19.9, 20.0))
        assert during is later
        assert during is not before
        assert [len(each.rules.rules) for each in (before, during, after)] == [1, 2, 1]
        assert before.at(15.0) is before

    @pytest.mark.parametrize(
        ("rules", "is_usual"),
        [((rule(1),), True), ((rule(1), rule(2, exempt=True)), False)],
        ids=["limits", "an exemption"],
    )
    def test_it_is_usual_unless_a_rule_exempts(
        self, rules: tuple[Rule, ...], is_usual: bool
    ) -> None:
        passage = PassageBook(RuleSet(), RouteIndex(())).unresolved(rules, "GET")
        assert passage.is_usual is is_usual

    def test_rules_that_were_forgotten_are_never_taken_for_others(self) -> None:
        book = PassageBook(RuleSet(), RouteIndex(()))
        for number in range(100):  # without being kept, one would have the identity of the last
            found = book.unresolved((rule(number),), "GET").rules
            assert [each.id for each in found.rules] == [number]

    def test_passages_are_bounded(self) -> None:
        book, on_path = PassageBook(RuleSet(), RouteIndex(())), (rule(1),)
        first = book.unresolved(on_path, "GET")
        for number in range(REMEMBERED):
            book.unresolved((rule(number),), "GET")
        assert book.unresolved(on_path, "GET") is not first

    def test_only_so_many_short_paths_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(passages, "MOST_PATHS", 3)
        below, matched = Rule(id=1, name="below", path="/a/**"), []

        class Counted(RuleSet):
            def match(self, method: str, path: str) -> tuple[Rule, ...]:
                matched.append(path)
                return super().match(method, path)

        book = PassageBook(Counted([below]), RouteIndex(()))
        for number in range(10):
            short, long = f"/a/{number}", f"/a/{number}/" + "b" * LONGEST_REMEMBERED
            for path in (short, long) * 2:
                assert book.at_door(path, "GET").on_path == (below,)
            assert set(book._at_door) <= {(f"/a/{n}", "GET", False) for n in range(10)}
            assert 0 < len(book._at_door) <= 3
            assert matched == [short, long, long]
            matched.clear()

    def test_what_is_remembered_of_a_path_is_by_method_and_preflight(self) -> None:
        read = Rule(id=1, name="read", path="/a", methods=frozenset(("GET",)))
        every = Rule(id=2, name="every", path="/a")
        book = PassageBook(RuleSet([read, every]), RouteIndex(()))
        for _ in range(2):
            assert book.at_door("/a", "GET").rules.rules == (read, every)
            assert book.at_door("/a", "OPTIONS").rules.rules == (every,)
            assert book.at_door("/a", "OPTIONS", preflight=True).rules.rules == ()

    def test_the_tariffs_of_a_passage_are_bounded(self) -> None:
        passage = PassageBook(RuleSet(), RouteIndex(())).unresolved((), "GET")
        for number in range(MOST_TARIFFS + 1):
            passage.remember(number, Tariff())
        assert list(passage.tariffs) == [MOST_TARIFFS]


@pytest.mark.django_db
@pytest.mark.urls("tests.site")
class TestBills:
    """Bills of one view."""

    @pytest.fixture
    def snapshot(self) -> Snapshot:
        make_rule("plain", 5)
        return build_snapshot("", AssignmentCache())

    def bill(
        self,
        snapshot: Snapshot,
        request: HttpRequest,
        tier: str = "free",
        cost: int = 1,
        charged_rules: frozenset[int] = frozenset(),
    ) -> Bill:
        request.resolver_match = resolve(request.path_info)
        ledger = open_ledger(request)
        ledger.client = identified_client(ledger.client, None, ())
        ledger.charged_rules = charged_rules
        passage = stages.passage(snapshot, ledger, request)
        found = snapshot.tiers[tier]
        return bills.client_bill(passage, found, ledger.client, ledger, request, cost)

    def door_bill(
        self, snapshot: Snapshot, address: str, charged_rules: frozenset[int] = frozenset()
    ) -> Bill:
        request = RequestFactory().get("/plain/", REMOTE_ADDR=address)
        ledger = open_ledger(request)
        ledger.charged_rules = charged_rules
        passage = stages.door_passage(snapshot, ledger)
        return bills.door_bill(passage, ledger, request)

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

    def test_what_was_charged_before_authentication_is_not_charged_again(
        self, snapshot: Snapshot
    ) -> None:
        whole, rest, rest_again = (
            self.bill(snapshot, RequestFactory().get("/plain/"), charged_rules=charged)
            for charged in (frozenset(), snapshot_rules(snapshot), snapshot_rules(snapshot))
        )
        assert len(rest.charges) == len(whole.charges) - 1
        assert rest.tariff is rest_again.tariff

    def test_clients_share_a_tariff_before_authentication(self, snapshot: Snapshot) -> None:
        one, two = (self.door_bill(snapshot, f"192.0.2.{number}") for number in (1, 2))
        assert one.tariff is two.tariff
        assert [charge.subject for charge in one.charges] == ["ip:192.0.2.1"]
        assert [charge.subject for charge in two.charges] == ["ip:192.0.2.2"]

    def test_nobody_is_charged_twice_before_authentication(self, snapshot: Snapshot) -> None:
        assert self.door_bill(snapshot, "192.0.2.1").charges
        assert not self.door_bill(snapshot, "192.0.2.1", snapshot_rules(snapshot)).charges

    def test_a_rule_that_counts_each_route_is_charged_as_soon_as_the_route_is_known(self) -> None:
        make_rule("each", 5, path="/**", scope="route")
        snapshot = build_snapshot("", AssignmentCache())
        request = RequestFactory().get("/plain/")
        ledger = open_ledger(request)
        unresolved = stages.door_passage(snapshot, ledger)
        assert not bills.door_bill(unresolved, ledger, request).charges
        request.resolver_match = resolve(request.path_info)
        resolved = stages.passage(snapshot, ledger, request)
        (charge,) = bills.door_bill(resolved, ledger, request).charges
        assert charge.policy.counter.endswith("/plain/")

    def test_another_snapshot_works_it_out_anew(self, snapshot: Snapshot) -> None:
        first = self.bill(snapshot, RequestFactory().get("/plain/"))
        later = build_snapshot("", AssignmentCache())
        assert self.bill(later, RequestFactory().get("/plain/")).tariff is not first.tariff
