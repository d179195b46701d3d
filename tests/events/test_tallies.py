"""What a process counts by itself, and when it tells the store."""

from __future__ import annotations

import pytest
from django.test import Client

from django_ratelimit_tiers.core.addresses import address_subject
from django_ratelimit_tiers.core.consumption import DayQuota
from django_ratelimit_tiers.core.decisions import Decision, FailurePolicy, Outcome
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.events import tallies
from django_ratelimit_tiers.events.tallies import FLUSH_SECONDS, MOST_ENTRIES, TallySheet
from django_ratelimit_tiers.models import ServiceAccount
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.store.configured import configured_store
from tests.clocks import Clock
from tests.policies import limit_tier

MINUTE = QuotaPolicy("free-minute", 60, 60)
DAY = QuotaPolicy("free-day", 100, 86_400)


def decided(*outcomes: tuple[QuotaPolicy, int], allowed: bool = True) -> Decision:
    return Decision(
        tuple(
            Outcome(Charge("user:1", policy), allowed, remaining, 0, None if allowed else 1)
            for policy, remaining in outcomes
        ),
        now=90_000 * 1_000_000,
    )


def test_usage_is_counted_by_subject_with_what_an_hour_allows() -> None:
    sheet = TallySheet()
    sheet.note("user:1", "ip:192.0.2.1", decided((MINUTE, 5), (DAY, 50)))
    sheet.note("user:1", "ip:192.0.2.1", decided((MINUTE, 0), (DAY, 50), allowed=False))
    assert sheet.take(dict, list).usage == {"user:1": Usage(1, 1, 100 * 3600 // 86_400)}


def test_the_usage_of_a_subject_is_that_from_all_its_networks() -> None:
    sheet = TallySheet()
    for network in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        sheet.note("user:1", f"ip:{network}", decided((MINUTE, 5), (DAY, 50)))
    sheet.note("user:1", "ip:192.0.2.2", decided((MINUTE, 0), (DAY, 50), allowed=False))
    tally = sheet.take(dict, list)
    assert tally.usage == {"user:1": Usage(3, 1, 100 * 3600 // 86_400)}
    assert tally.sightings == {("user:1", "192.0.2.1"), ("user:1", "192.0.2.2")}


def test_one_ipv6_customer_is_one_network() -> None:
    sheet = TallySheet()
    for number in range(500):
        subject = address_subject(f"2001:db8::{number:x}", 64)
        sheet.note("user:1", subject, Decision())
    sheet.note("user:1", address_subject("::ffff:192.0.2.7", 64), Decision())
    assert sheet.take(dict, list).sightings == {
        ("user:1", "2001:db8::/64"),
        ("user:1", "192.0.2.7"),
    }


def test_only_users_and_keys_are_sighted() -> None:
    sheet = TallySheet()
    for subject in ("user:1", "key:ab", "ip:192.0.2.1", "account:3"):
        sheet.note(subject, "ip:192.0.2.1", Decision())
    assert {subject for subject, _ in sheet.take(dict, list).sightings} == {"user:1", "key:ab"}


def test_a_day_quota_is_noted_from_its_first_mark_on() -> None:
    sheet = TallySheet()
    sheet.note("user:1", "ip:192.0.2.1", decided((DAY, 21)))
    assert list(sheet.take(dict, list).quotas) == []
    sheet = TallySheet()
    sheet.note("user:1", "ip:192.0.2.1", decided((DAY, 20)))
    assert list(sheet.take(dict, list).quotas) == [DayQuota("user:1", "free-day", 100, 80, 2880)]


def test_the_share_of_a_process_without_the_store_is_nobodys_quota() -> None:
    sheet = TallySheet()
    local = decided((DAY, 5))._replace(degraded=FailurePolicy.LOCAL)
    sheet.note("user:1", "ip:192.0.2.1", local)
    tally = sheet.take(dict, list)
    assert list(tally.quotas) == []
    assert tally.usage == {"user:1": Usage(1, 0, hourly_limit=0)}


def test_of_a_day_quota_the_last_standing_is_told() -> None:
    sheet = TallySheet()
    for remaining in (20, 7):
        sheet.note("user:1", "ip:192.0.2.1", decided((DAY, remaining)))
    assert [quota.used for quota in sheet.take(dict, list).quotas] == [93]
    assert list(sheet.take(dict, list).quotas) == [DayQuota("user:1", "free-day", 100, 93, 2880)]


def test_a_refusal_that_comes_again_is_counted_as_the_first_was() -> None:
    sheet, refused = TallySheet(), decided((DAY, 0), allowed=False)
    for _ in range(3):
        sheet.note_again("user:1", "ip:192.0.2.1", refused)
    tally = sheet.take(dict, list)
    assert tally.usage == {"user:1": Usage(0, 3, 100 * 3600 // 86_400)}
    assert tally.sightings == {("user:1", "192.0.2.1")}
    assert list(tally.quotas) == [DayQuota("user:1", "free-day", 100, 100, 2880)]


def test_the_store_is_told_every_few_seconds() -> None:
    clock = Clock()
    sheet = TallySheet(clock)
    assert not sheet.note("user:1", "ip:192.0.2.1", Decision())
    clock.now += FLUSH_SECONDS + 1
    assert sheet.note("user:1", "ip:192.0.2.1", Decision())
    sheet.take(dict, list)
    assert not sheet.note("user:1", "ip:192.0.2.1", Decision())


def test_the_store_is_told_at_once_when_the_sheet_is_full() -> None:
    sheet = TallySheet()
    for number in range(MOST_ENTRIES + 100):
        is_due = sheet.note(f"user:{number}", "ip:192.0.2.1", Decision())
        assert is_due is (number >= MOST_ENTRIES - 1)
    assert len(sheet.take(dict, list).usage) == MOST_ENTRIES


def test_a_full_sheet_waits_while_the_store_does_not_hear_what_was_taken_before() -> None:
    sheet = TallySheet(Clock())
    sheet.note("user:0", "ip:192.0.2.1", Decision())
    untold = sheet.take(dict, list)
    due = [sheet.note(f"user:{n}", "ip:192.0.2.1", Decision()) for n in range(MOST_ENTRIES + 1)]
    assert not any(due)
    sheet.told(untold)
    assert sheet.note("user:new", "ip:192.0.2.1", Decision())


def test_no_more_day_quotas_are_kept_than_a_bound_each_as_it_stood_last() -> None:
    sheet = TallySheet(Clock())
    policies = [QuotaPolicy(f"day-{n}", 100, 86_400) for n in range(MOST_ENTRIES + 5)]
    for policy in (*policies, policies[0]):
        sheet.note("user:1", "ip:192.0.2.1", decided((policy, 3 if policy is policies[0] else 9)))
    sheet.note("user:1", "ip:192.0.2.1", decided((policies[0], 2)))
    used = {quota.policy: quota.used for quota in sheet.take(dict, list).quotas}
    assert used == {policy.name: 91 for policy in policies[:MOST_ENTRIES]} | {"day-0": 98}


def test_what_could_not_be_told_is_told_again_before_anything_new() -> None:
    sheet = TallySheet()
    sheet.note("user:1", "ip:192.0.2.1", Decision())
    first = sheet.take(dict, list)
    sheet.note("user:2", "ip:192.0.2.1", Decision())
    assert sheet.take(dict, list) is first
    sheet.told(first)
    assert list(sheet.take(dict, list).usage) == ["user:2"]


def test_a_tally_that_is_told_twice_counts_once(redis_url: str) -> None:
    sheet = TallySheet()
    sheet.note("user:1", "ip:192.0.2.1", Decision())
    tally = sheet.take(dict, list)
    records = configured_store().records
    records.add(tally)
    records.add(tally)
    assert records.usage(records.hours()[-1]) == {"user:1": Usage(1, 0)}


def test_a_tally_that_comes_again_after_a_later_one_counts_once(redis_url: str) -> None:
    sheet, records, taken = TallySheet(), configured_store().records, []
    for _ in range(2):
        sheet.note("user:1", "ip:192.0.2.1", Decision())
        taken.append(told(sheet))
    for tally in (*taken, taken[0]):
        records.add(tally)
    assert records.usage(records.hours()[-1]) == {"user:1": Usage(2, 0)}


def test_a_fork_is_a_teller_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = TallySheet()
    of_parent = [told(sheet), told(sheet)]
    monkeypatch.setattr(tallies, "getpid", lambda: -1)
    of_child = told(sheet)
    assert [tally.number for tally in (*of_parent, of_child)] == [1, 2, 1]
    assert of_parent[0].teller == of_parent[1].teller != of_child.teller


def told(sheet: TallySheet) -> Tally:
    tally = sheet.take(dict, list)
    sheet.told(tally)
    return tally


@pytest.mark.django_db
def test_requests_are_told_along_with_a_later_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_tier("anonymous", 2)
    clock = Clock()
    monkeypatch.setattr(limiter().teller, "_sheet", TallySheet(clock))
    client.get("/plain/")
    records = configured_store().records
    assert records.hours() == []
    clock.now += FLUSH_SECONDS + 1
    client.get("/plain/")
    client.get("/plain/")
    assert records.usage(records.hours()[-1])["ip:127.0.0.1"].allowed == 2


@pytest.mark.django_db
@pytest.mark.urls("tests.site")
@pytest.mark.parametrize("path", ["/plain/", "/free/", "/nothing/"])
def test_exempt_requests_are_counted_for_their_service_account(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    account = ServiceAccount.objects.create(
        name="monitor", owner="ops", reason="health checks", networks="127.0.0.1"
    )
    clock = Clock()
    monkeypatch.setattr(limiter().teller, "_sheet", TallySheet(clock))
    client.get(path)
    clock.now += FLUSH_SECONDS + 1
    client.get(path)
    records = configured_store().records
    assert records.usage(records.hours()[-1]) == {f"account:{account.pk}": Usage(2, 0)}
    assert list(records.accounts_used()) == [str(account.pk)]
