"""What servers forget, what databases do not tell, and edits that nobody was told of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_ratelimit_tiers.core.policies import Algorithm
from django_ratelimit_tiers.models import Tier, TierAssignment
from django_ratelimit_tiers.policy.assignments import REMEMBERED_SECONDS
from django_ratelimit_tiers.policy.conditions import present_condition
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.policy.snapshots import DATABASE_LOOK_SECONDS
from django_ratelimit_tiers.store.configured import configured_store
from tests import site
from tests.faults.conftest import LIMIT, Site
from tests.policies import ANYBODY, limit_tier, make_rule
from tests.site import statuses

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]


@contextmanager
def broken_database() -> Iterator[list[str]]:
    """Let every query fail, and list them."""
    asked: list[str] = []

    def fail(execute: Any, sql: str, *_: Any) -> None:
        asked.append(sql)
        raise OperationalError("the database is away")

    with connection.execute_wrapper(fail):
        yield asked


@contextmanager
def broken_assignments() -> Iterator[None]:
    """Let every query for an assignment of a tier fail, and no other."""

    def fail(execute: Any, sql: str, *arguments: Any) -> Any:
        if TierAssignment._meta.db_table in sql:
            raise OperationalError("the database is away")
        return execute(sql, *arguments)

    with connection.execute_wrapper(fail):
        yield


def calls(faulty: Site) -> int:
    """Return how often a script was called."""
    with faulty.server.client() as admin:
        return int(admin.info("commandstats")["cmdstat_evalsha"]["calls"])


def remaining(client: Client, path: str = "/plain/", **options: Any) -> int:
    return int(client.get(path, **options)["X-RateLimit-Remaining"])


@pytest.mark.parametrize("command", ["SCRIPT FLUSH", "FUNCTION FLUSH"])
def test_a_lost_script_is_sent_again_and_charged_once(
    faulty: Site, client: Client, command: str
) -> None:
    with faulty.using("closed"), faulty.server.client() as admin:
        assert remaining(client) == LIMIT - 1
        admin.execute_command(*command.split())
        assert remaining(client) == LIMIT - 2
        assert not limiter().breaker.is_open


def test_a_flushed_server_counts_from_zero_and_keeps_limiting(faulty: Site, client: Client) -> None:
    with faulty.using("closed"), faulty.server.client() as admin:
        assert remaining(client) == LIMIT - 1
        admin.flushall()
        assert [client.get("/plain/").status_code for _ in range(LIMIT + 1)] == [200] * LIMIT + [
            429
        ]


def test_a_flushed_server_neither_resurrects_an_old_policy_nor_stalls_a_new_one(
    faulty: Site, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    with faulty.using("closed"), faulty.server.client() as admin:
        assert remaining(client) == LIMIT - 1
        with django_capture_on_commit_callbacks(execute=True):
            limit_tier("anonymous", 10)
        assert remaining(client) == 8
        admin.flushall()
        assert remaining(client) == 9
        with django_capture_on_commit_callbacks(execute=True):
            limit_tier("anonymous", 20)
        assert remaining(client) == 18


def test_a_value_of_another_type_is_written_over(faulty: Site, client: Client) -> None:
    with faulty.using("closed"), faulty.server.client() as admin:
        admin.lpush(f"rlt:{{{ANYBODY}}}", "not ours")
        assert [remaining(client), remaining(client)] == [LIMIT - 1, LIMIT - 2]


@pytest.mark.parametrize("key", ["minute", "minutes", "sample"])
def test_a_refusal_stays_one_whatever_another_program_has_put_where_it_is_counted(
    faulty: Site, client: Client, key: str
) -> None:
    with faulty.using("open", REFUSAL_MEMORY=0) as store, faulty.server.client() as admin:
        now = store.records.now()
        minutes = [str(now - now % 60 + later) for later in (0, 60)]  # one may end meanwhile
        for name in minutes if key == "minute" else [key]:
            admin.set(f"rlt:counts:{name}", "not ours")
        assert statuses(client, "/plain/", LIMIT + 2) == [200] * LIMIT + [429] * 2
        counted = [store.records.counts(minute) for minute in store.records.minutes()]
        assert sum(sum(counts.values()) for counts in counted) == 2


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize(
    "command", [("RPUSH", "rlt:revision", "x"), ("SET", "rlt:revision", "\xff")]
)
def test_a_revision_that_another_program_wrote_neither_fails_nor_stalls_the_site(
    faulty: Site, client: Client, command: tuple[str, ...], is_warm: bool
) -> None:
    with faulty.using("open"), faulty.server.client(encoding="latin-1") as admin:
        if is_warm:
            client.get("/plain/")
        admin.delete("rlt:revision")
        admin.execute_command(*command)
        statuses = [client.get("/plain/").status_code for _ in range(LIMIT + 1 - is_warm)]
        assert statuses == [*[200] * (LIMIT - is_warm), 429]
        with CaptureQueriesContext(connection) as queries:
            client.get("/plain/")
        assert len(queries) == 0


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 503), ("local", 200)])
def test_a_client_whose_key_is_broken_does_not_take_the_store_from_the_others(
    faulty: Site, client: Client, policy: str, status: int
) -> None:
    limit_tier("anonymous", {"requests": LIMIT, "algorithm": Algorithm.SLIDING_WINDOW_LOG.value})
    with faulty.using(policy), faulty.server.client() as admin:
        assert remaining(client) == LIMIT - 1
        (log,) = [key for key in admin.scan_iter() if admin.type(key) == b"list"]
        admin.set(log, "not ours")
        assert client.get("/plain/").status_code == status
        assert remaining(client, REMOTE_ADDR="192.0.2.9") == LIMIT - 1
        assert not limiter().breaker.is_open


def test_a_worker_started_while_the_store_was_down_finds_it(faulty: Site, client: Client) -> None:
    faulty.proxy.refuse()
    with faulty.using("open"):
        assert "X-RateLimit-Limit" not in client.get("/plain/")
        faulty.proxy.listen()
        faulty.clock.pass_cool_down()
        assert remaining(client) == LIMIT - 1
        assert [client.get("/plain/").status_code for _ in range(LIMIT)] == [200] * (LIMIT - 1) + [
            429
        ]


def test_a_refusal_after_a_local_charge_gives_it_back(faulty: Site, client: Client) -> None:
    make_rule("wide", 3, path="/**")
    make_rule("narrow", 1, path="/plain/", identify_by="user_or_ip")
    with faulty.using("local"):
        faulty.proxy.refuse()
        assert statuses(client, "/plain/", 5) == [200] + [429] * 4
        assert statuses(client, "/body/", 3) == [200, 200, 429]


def test_what_did_not_fail_is_given_back_locally_too(faulty: Site, client: Client) -> None:
    make_rule("failures", 1, path="/plain/**", count="failed")
    with faulty.using("local"):
        faulty.proxy.refuse()
        assert statuses(client, "/plain/", 3) == [200] * 3
        assert statuses(client, "/plain/404/", 2) == [404, 429]


def test_what_the_store_was_not_charged_is_not_given_back(faulty: Site, client: Client) -> None:
    make_rule("failures", 1, path="/plain/**", count="failed")
    with faulty.using("open"):
        faulty.proxy.refuse()
        assert statuses(client, "/plain/", 3) == [200] * 3
        assert statuses(client, "/plain/404/", 2) == [404, 404]


def test_local_refusals_are_told_and_sampled_though_no_request_follows(
    faulty: Site, client: Client
) -> None:
    with faulty.using("local") as store:
        faulty.proxy.refuse()
        assert statuses(client, "/plain/?secret", LIMIT + 2) == [200] * LIMIT + [429] * 2
        faulty.proxy.listen()
        deadline = time.monotonic() + 20
        while not store.records.sample() and time.monotonic() < deadline:
            time.sleep(0.05)
        counts = [sum(store.records.counts(minute).values()) for minute in store.records.minutes()]
        assert sum(counts) == 2
        sampled = store.records.sample()
        assert {(one.method, one.path, one.address) for one in sampled} == {
            ("GET", "/plain/", "127.0.0.1")
        }
        assert len({one.decision_id for one in sampled}) == 2


def test_the_strictest_rule_on_the_path_decides(faulty: Site, client: Client) -> None:
    make_rule("plain", 100, on_store_failure="closed")
    with faulty.using("open"):
        faulty.proxy.refuse()
        assert client.get("/plain/").status_code == 503
        assert client.get("/marked/").status_code == 200


@pytest.mark.parametrize("setting", ["closed", "local"])
@pytest.mark.parametrize("identify_by", ["ip", "user_or_ip"])
@pytest.mark.parametrize("path", ["/plain/", "/drf/"])
def test_a_rule_may_be_laxer_than_the_setting_for_clients_with_a_tier(
    faulty: Site, client: Client, path: str, identify_by: str, setting: str
) -> None:
    make_rule("lax", 100, path=path, on_store_failure="open", identify_by=identify_by)
    with faulty.using(setting):
        faulty.proxy.refuse()
        assert statuses(client, path, LIMIT + 1) == [200] * (LIMIT + 1)
        assert statuses(client, "/marked/", LIMIT + 1)[-1] in (429, 503)


def test_a_rule_in_shadow_mode_does_not_make_the_setting_laxer(
    faulty: Site, client: Client
) -> None:
    make_rule("plain", 100, on_store_failure="open", mode="shadow")
    with faulty.using("closed"):
        faulty.proxy.refuse()
        assert client.get("/plain/").status_code == 503


def test_closed_is_told_in_the_problem_type_that_is_meant_for_it(
    faulty: Site, client: Client
) -> None:
    with faulty.using("closed"):
        faulty.proxy.refuse()
        response = client.get("/plain/", headers={"Accept": "application/problem+json"})
        assert response.status_code == 503
        assert response.json()["type"].endswith("#temporary-reduced-capacity")
        assert response["Cache-Control"] == "no-store"


def test_closed_is_told_by_rest_framework_views_as_well(faulty: Site, client: Client) -> None:
    with faulty.using("closed"):
        assert client.get("/drf/").status_code == 200
        faulty.proxy.refuse()
        response = client.get("/drf/")
        assert response.status_code == 503
        assert response.json()["error"] == "temporary_reduced_capacity"
        assert int(response["Retry-After"]) >= 1


def test_a_view_that_is_exempt_is_served_by_closed(faulty: Site, client: Client) -> None:
    with faulty.using("closed"):
        faulty.proxy.refuse()
        assert client.get("/plain/").status_code == 503
        assert client.get("/free/").status_code == 200


def test_without_the_database_the_last_policy_stays_in_force(
    faulty: Site, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with faulty.using("closed"):
        assert remaining(client) == LIMIT - 1
        configured_store().announce_policy()
        with broken_database():
            statuses = [client.get("/plain/").status_code for _ in range(LIMIT)]
        assert statuses == [200] * (LIMIT - 1) + [429]
        assert "the last policy stays in force" in caplog.text


def test_a_process_that_never_had_a_policy_is_in_no_good_condition(client: Client) -> None:
    with broken_database():
        assert client.get("/plain/").status_code == 200
        assert not present_condition().policy_is_current
    assert present_condition().policy_is_current


def test_a_policy_that_stays_in_force_is_asked_for_once_a_request(
    faulty: Site, client: Client
) -> None:
    with faulty.using("closed"):
        remaining(client)
        configured_store().announce_policy()
        with broken_database():
            client.get("/plain/")
            for _ in range(3):
                before = calls(faulty)
                client.get("/plain/")
                assert calls(faulty) - before == 1


def test_an_edit_made_known_while_the_database_was_away_is_read_afterwards(
    faulty: Site, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    with faulty.using("closed"):
        assert remaining(client) == LIMIT - 1
        clock = limiter()._snapshots._clock = faulty.clock
        with django_capture_on_commit_callbacks(execute=True):
            limit_tier("anonymous", 10)
        with broken_database():
            assert remaining(client) == LIMIT - 2
        clock.now += 2
        assert remaining(client) == 7


def test_without_the_database_a_known_user_keeps_the_tier(faulty: Site, client: Client) -> None:
    user = User.objects.create_user("anna")
    limit_tier("pro", 50)
    TierAssignment.objects.create(user=user, tier=Tier.objects.get(slug="pro"))
    with faulty.using("closed"):
        assignments = limiter()
        client.force_login(user)
        assert remaining(client, "/who/") == 49
        snapshot = assignments._snapshots.current
        assert snapshot is not None
        subject = f"user:{user.pk}"
        known = snapshot.assignments._assignments[subject]
        until = known.until
        with broken_database():
            again = snapshot.assignments.look_up_user(subject, user, known.revision)
        assert again.direct == "pro"
        assert again.until < until


@pytest.mark.parametrize("edited", ["the user", "the policy", "the policy, twice"])
def test_without_the_database_a_user_who_was_edited_keeps_the_last_known_tier(
    faulty: Site, client: Client, edited: str
) -> None:
    user = User.objects.create_user("anna")
    limit_tier("pro", 50)
    TierAssignment.objects.create(user=user, tier=Tier.objects.get(slug="pro"))
    client.force_login(user)
    with faulty.using("closed"):
        assert remaining(client, "/who/") == 49
        if edited == "the user":
            configured_store().announce_subjects([f"user:{user.pk}"])
        for _ in range(edited.count("policy") + edited.count("twice")):
            configured_store().announce_policy()
            client.get("/nothing/")  # lets the process load it
        with broken_assignments():
            assert remaining(client, "/who/") == 48


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 503), ("local", 200)])
def test_a_cold_start_with_neither_answers_by_the_failure_policy(
    faulty: Site, client: Client, policy: str, status: int
) -> None:
    faulty.proxy.refuse()
    with faulty.using(policy):
        with broken_database() as asked:
            assert client.get("/plain/").status_code == status
            questions = len(asked)
            assert client.get("/plain/").status_code == status
            assert len(asked) == questions, "the second request pays nothing"
        faulty.proxy.listen()
        faulty.clock.pass_cool_down()
        limiter()._snapshots._clock = faulty.clock
        faulty.clock.now = 1e9
        assert remaining(client) == LIMIT - 1
        assert site.RUNS["plain"] == (2 if status == 200 else 0) + 1


def test_a_cold_start_with_neither_refuses_no_exempt_view_of_the_rest_framework(
    faulty: Site, client: Client, settings: Any
) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "RateLimit" not in name]
    faulty.proxy.refuse()
    with faulty.using("closed"), broken_database():
        assert client.get("/drf/").status_code == 503
        assert client.get("/free-to-list/").status_code == 200


def test_an_edit_that_could_not_be_announced_is_found_in_the_database(
    faulty: Site,
    client: Client,
    django_capture_on_commit_callbacks: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with faulty.using("closed"):
        clock = limiter()._snapshots._clock = faulty.clock
        assert remaining(client) == LIMIT - 1
        faulty.proxy.refuse()
        with django_capture_on_commit_callbacks(execute=True):
            limit_tier("anonymous", 10)
        assert "could not announce" in caplog.text
        faulty.proxy.listen()
        assert remaining(client) == LIMIT - 2
        known = configured_store().revision()
        clock.now += DATABASE_LOOK_SECONDS + 1
        assert remaining(client) == 7
        assert configured_store().revision() != known  # the other processes are told


def test_an_edit_during_an_outage_is_found_as_soon_as_the_store_answers_again(
    faulty: Site, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    with faulty.using("open"):
        assert remaining(client) == LIMIT - 1
        faulty.proxy.refuse()
        client.get("/plain/")
        with django_capture_on_commit_callbacks(execute=True):
            limit_tier("anonymous", 10)
        faulty.proxy.listen()
        faulty.clock.pass_cool_down()
        assert remaining(client) == LIMIT - 2  # the probe
        assert remaining(client) == 7


def test_a_member_of_a_group_who_could_not_be_announced_is_logged(
    faulty: Site, django_capture_on_commit_callbacks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    user, group = User.objects.create_user("anna"), Group.objects.create(name="team")
    with faulty.using("closed"):
        faulty.proxy.refuse()
        with django_capture_on_commit_callbacks(execute=True):
            user.groups.add(group)
    [told] = caplog.messages
    assert told.startswith("could not announce an edit of assignments: ")


def test_a_tier_assigned_during_an_outage_is_found_in_the_database(
    faulty: Site, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    user = User.objects.create_user("anna")
    limit_tier("free", 10)
    limit_tier("pro", 50)
    with faulty.using("closed"):
        clock = limiter()._snapshots._clock = faulty.clock
        client.force_login(user)
        assert remaining(client, "/who/") == 9
        faulty.proxy.refuse()
        with django_capture_on_commit_callbacks(execute=True):
            TierAssignment.objects.create(user=user, tier=Tier.objects.get(slug="pro"))
        faulty.proxy.listen()
        assert remaining(client, "/who/") == 8
        clock.now += DATABASE_LOOK_SECONDS + 1
        assert clock.now < 1000 + REMEMBERED_SECONDS
        assert remaining(client, "/who/") == 47


def test_a_tier_assigned_lately_is_looked_up_anew_at_two_comparisons_and_no_more(
    faulty: Site, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    user = User.objects.create_user("anna")
    limit_tier("pro", 50)
    with faulty.using("closed"):
        clock = limiter()._snapshots._clock = faulty.clock
        client.force_login(user)
        with django_capture_on_commit_callbacks(execute=True):
            TierAssignment.objects.create(user=user, tier=Tier.objects.get(slug="pro"))
        assert remaining(client, "/who/") == 49
        looked_up = []
        for _ in range(4):
            clock.now += DATABASE_LOOK_SECONDS + 1
            with CaptureQueriesContext(connection) as queries:
                client.get("/who/")
            table = TierAssignment._meta.db_table
            looked_up.append(sum(table in query["sql"] for query in queries))
        assert looked_up == [1, 1, 0, 0]


def test_no_request_asks_the_database_twice_for_the_same_outage(
    faulty: Site, client: Client
) -> None:
    with faulty.using("closed"):
        clock = limiter()._snapshots._clock = faulty.clock
        assert remaining(client) == LIMIT - 1
        clock.now += DATABASE_LOOK_SECONDS + 1
        with broken_database() as asked:
            assert remaining(client) == LIMIT - 2
            assert len(asked) == 1
            assert remaining(client) == LIMIT - 3
            assert len(asked) == 1
