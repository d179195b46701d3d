"""The store on a real cluster of three primaries and three replicas."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from django.test import Client, override_settings
from hypothesis import HealthCheck, given, settings

from django_ratelimit_tiers.core.plans import Plan, StalePlan
from django_ratelimit_tiers.core.policies import MAX_PERIOD, Algorithm, Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import RefusalKey
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.exceptions import StoreRefused, StoreUnavailable
from django_ratelimit_tiers.store.cluster import PARTS, RedisClusterStore
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.redis import RedisStore
from tests.policies import limit_tier
from tests.servers import HOST, wait_until
from tests.store.test_equality import Reference, Step, answers_on_a_loop, histories
from tests.store.topologies import Cluster

CLUSTER_STORE = "django_ratelimit_tiers.store.cluster.RedisClusterStore"

SUBJECTS = [f"user:{number}" for number in range(40)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def module_store(cluster: Cluster) -> Iterator[RedisClusterStore]:
    store = RedisClusterStore(url=cluster.url, timeout=5)
    yield store
    store.close()


@pytest.fixture
def store(cluster: Cluster, module_store: RedisClusterStore) -> RedisClusterStore:
    empty(cluster)
    return module_store


def empty(cluster: Cluster) -> None:
    for node in cluster.primaries:
        cluster.call(node, "FLUSHALL")


def limit(requests: int, name: str = "any", **options: object) -> QuotaPolicy:
    return QuotaPolicy(name, requests, MAX_PERIOD, Algorithm.FIXED_WINDOW, **options)  # type: ignore[arg-type]


def of_one_subject(step: Step) -> Step:
    charges = [charge._replace(subject="user:1") for charge in step.charges]
    return replace(step, charges=tuple(charges))


@given(steps=histories().map(lambda steps: [of_one_subject(step) for step in steps]))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_plans_of_one_subject_are_answered_as_the_reference_does(
    cluster: Cluster, module_store: RedisClusterStore, steps: Sequence[Step]
) -> None:
    reference = Reference()
    expected = [reference.run(step) for step in steps]
    empty(cluster)
    assert [step.run(module_store) for step in steps] == expected  # type: ignore[arg-type]
    empty(cluster)
    assert asyncio.run(answers_on_a_loop(module_store, steps)) == expected  # type: ignore[arg-type]


@given(steps=histories())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_plans_of_several_subjects_decide_as_the_reference_does(
    cluster: Cluster, module_store: RedisClusterStore, steps: Sequence[Step]
) -> None:
    """What is charged and refunded across parts leaves every counter as one server would."""
    reference = Reference()
    empty(cluster)
    for step in steps:
        if step.action == "refund":
            continue
        step = replace(step, now=1_000_000 + step.now // 10**9)  # a clock that never goes back
        expected = reference.run(step)
        assert [o.allowed for o in step.run(module_store)] == [  # type: ignore[arg-type]
            o.allowed for o in expected
        ]


def test_the_work_is_spread_over_all_primaries(store: RedisClusterStore, cluster: Cluster) -> None:
    store.acquire([Charge(f"ip:192.0.2.{number}", limit(5)) for number in range(200)])
    sizes = [cluster.call(node, "DBSIZE") for node in cluster.primaries]
    assert min(sizes) > 30  # type: ignore[type-var]


def test_a_refusal_in_one_part_gives_back_what_the_others_charged(
    store: RedisClusterStore,
) -> None:
    assert len({store._part_of(subject) for subject in SUBJECTS}) > PARTS // 2
    full = Charge(SUBJECTS[-1], limit(1))
    store.acquire([full])
    charges = [*(Charge(subject, limit(5)) for subject in SUBJECTS[:-1]), full]
    outcomes = store.acquire(charges)
    assert [o.allowed for o in outcomes] == [True] * (len(charges) - 1) + [False]
    assert [o.remaining for o in outcomes] == [5] * (len(charges) - 1) + [0]
    assert [o.remaining for o in store.peek(charges)] == [5] * (len(charges) - 1) + [0]


def test_a_refusal_stays_one_when_another_part_does_not_answer(
    store: RedisClusterStore, cluster: Cluster
) -> None:
    here, there = next(
        pair for pair in pairwise(SUBJECTS) if len(set(map(store._part_of, pair))) > 1
    )
    refused = Charge(here, limit(1))
    logged = Charge(there, QuotaPolicy("log", 5, 60, Algorithm.SLIDING_WINDOW_LOG))
    store.acquire([refused])
    store.acquire([logged])
    part = store._part_of(there)
    for node in cluster.primaries:
        for key in cluster.call(node, "KEYS", f"{part.protocol.prefix}*"):  # type: ignore[attr-defined]
            if cluster.call(node, "TYPE", key) == b"list":
                cluster.call(node, "SET", key, "not ours")
    with pytest.raises(StoreRefused):
        store.acquire([logged])
    outcomes = store.acquire([refused, logged])
    assert [(outcome.charge, outcome.allowed) for outcome in outcomes] == [(refused, False)]


def test_shares_of_one_form_with_other_charges_are_other_shares(store: RedisClusterStore) -> None:
    here, there = next(
        pair for pair in pairwise(SUBJECTS) if len(set(map(store._part_of, pair))) > 1
    )
    policies = [limit(5, name) for name in "abc"]
    for subjects in ((here, here, there), (here, there, here)):
        store.execute(Plan(tuple(map(Charge, subjects, policies)), form="any"))
    peeked = store.peek([Charge(here, policy) for policy in policies])
    assert [outcome.remaining for outcome in peeked] == [3, 4, 4]


def test_a_plan_of_one_part_is_prepared_once(store: RedisClusterStore) -> None:
    here, there = next(
        pair for pair in pairwise(SUBJECTS) if len(set(map(store._part_of, pair))) > 1
    )
    for subjects, is_prepared in (((here, here), True), ((here, there), False)):
        plan = Plan(tuple(Charge(subject, limit(9)) for subject in subjects))
        store.execute(plan)
        prepared = plan.prepared
        store.execute(plan)
        assert (prepared is not None) is is_prepared
        assert plan.prepared is prepared


def test_a_shadow_policy_in_another_part_refuses_nothing(store: RedisClusterStore) -> None:
    full = Charge(SUBJECTS[1], limit(1, mode=Mode.SHADOW))
    for used in range(1, 4):
        outcomes = store.acquire([Charge(SUBJECTS[0], limit(5)), full])
        assert outcomes[0].remaining == 5 - used


def test_an_edit_is_seen_by_the_next_plan_in_every_part(store: RedisClusterStore) -> None:
    known = store.revision()
    plans = [Plan((Charge(subject, limit(5)),), revision=known) for subject in SUBJECTS]
    for plan in plans:
        store.execute(plan)
    store.announce_policy()
    for plan in plans:
        with pytest.raises(StalePlan) as stale:
            store.execute(plan)
        assert stale.value.revision == store.revision()


def test_an_edit_of_a_subject_is_seen_by_its_next_plan(store: RedisClusterStore) -> None:
    subjects = {"user:1": "", "key:2": ""}
    plan = Plan((Charge("ip:192.0.2.1", limit(5)),), subject_revisions=subjects)
    store.execute(plan)
    store.announce_subjects(["key:2"])
    with pytest.raises(StalePlan) as stale:
        store.execute(plan)
    assert stale.value.subject_revisions["key:2"] != ""
    assert store.peek(plan.charges)[0].remaining == 4


def test_a_part_that_lost_its_revision_is_given_a_new_one(
    store: RedisClusterStore, cluster: Cluster
) -> None:
    before = store.revision()
    cluster.call(cluster.primaries[1], "FLUSHALL")
    after = store.revision()
    assert after != before
    assert {part.revision() for part in store._parts} == {after}


def test_an_edit_that_is_being_announced_is_not_announced_once_more(
    store: RedisClusterStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = store.revision()
    other = RedisClusterStore(url=cluster.url, timeout=5)
    looked, last, middle = threading.Event(), store._parts[-1], other._parts[PARTS // 2]
    plain_revision, plain_command = last.revision, middle.command

    def revision() -> str:
        token = plain_revision()
        looked.set()
        announcing.join()
        return token

    def command(*words: str | bytes | int) -> object:
        assert looked.wait(20)
        return plain_command(*words)

    monkeypatch.setattr(last, "revision", revision)
    monkeypatch.setattr(middle, "command", command)
    announcing = threading.Thread(target=other.announce_policy)
    announcing.start()
    assert wait_until(lambda: other._parts[0].revision() != known, 20)
    announced = other._parts[0].revision()
    assert store.revision() == other.revision() == announced
    other.close()


def test_all_who_notice_that_parts_differ_give_them_the_same_revision(
    store: RedisClusterStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed: list[str] = []
    with noticing(store, cluster, monkeypatch, lambda: noticed.append(store.revision())) as other:
        assert [other.revision()] == noticed
    assert {part.revision() for part in store._parts} == set(noticed)


def test_who_notices_late_that_parts_differed_does_not_take_back_an_edit(
    store: RedisClusterStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []

    def announce() -> None:
        store.announce_policy()
        announced.append(store.revision())

    with noticing(store, cluster, monkeypatch, announce) as other:
        other.revision()
    assert {part.revision() for part in store._parts} == set(announced)


@contextmanager
def noticing(
    store: RedisClusterStore,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[], None],
) -> Iterator[RedisClusterStore]:
    """Let another process notice that parts differ; something happens before it mends the half."""
    store.revision()
    store._parts[3].announce_policy()
    other = RedisClusterStore(url=cluster.url, timeout=5)
    middle = other._parts[PARTS // 2]
    plain_command = middle.command

    def command(*words: str | bytes | int) -> object:
        if words[0] != "GET":
            meanwhile()
        return plain_command(*words)

    monkeypatch.setattr(middle, "command", command)
    yield other
    other.close()


def test_refusals_of_all_parts_are_counted_together(store: RedisClusterStore) -> None:
    for subject in SUBJECTS:
        plan = Plan((Charge(subject, limit(1)),), labels=("any\0free\0GET /",))
        for _ in range(3):
            store.execute(plan)
    counts: Counter[str] = Counter()
    for minute in store.records.minutes():
        for key, count in store.records.counts(minute).items():
            counts[key.subject] += count
    assert counts == dict.fromkeys(SUBJECTS, 2)
    for minute in store.records.minutes():
        store.records.forget_minute(minute)
    assert store.records.minutes() == []


def test_what_another_program_has_put_in_the_place_of_counts_gives_way_to_a_refusal(
    store: RedisClusterStore,
) -> None:
    for part in store._parts:
        part.command("SET", f"{part.protocol.counts_key}:minutes", "not ours")
    for subject in SUBJECTS:
        plan = Plan((Charge(subject, limit(1)),), labels=("any\0free\0GET /",))
        allowed = [store.execute(plan).outcomes[0].allowed for _ in range(3)]
        assert allowed == [True, False, False]
    counts = [store.records.counts(minute) for minute in store.records.minutes()]
    assert sum(sum(each.values()) for each in counts) == 2 * len(SUBJECTS)


def test_a_minute_that_is_being_forgotten_is_not_read_in_part(
    store: RedisClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [RefusalKey(Mode.ENFORCE, "any", "free", "GET a", subject) for subject in SUBJECTS]
    store.records.add(Tally(refusals=dict.fromkeys(keys, 3)))
    for subject in SUBJECTS * 2:
        store.execute(Plan((Charge(subject, limit(1)),), labels=("any\0free\0GET a\0",)))
    minute, *later = store.records.minutes()  # the clock may pass from one to the next
    found = [store.records.counts(each) for each in (minute, *later)]
    assert sum(sum(counts.values()) for counts in found) == 4 * len(SUBJECTS)

    def die(*_: object) -> None:
        raise StoreUnavailable("this part is away")

    with monkeypatch.context() as patched:
        patched.setattr(store._parts[9].records, "forget_minute", die)
        with pytest.raises(StoreUnavailable):
            store.records.forget_minute(minute)
    assert store.records.minutes() == [minute, *later]
    assert store.records.counts(minute) == {}
    store.records.forget_minute(minute)
    assert store.records.minutes() == later


def test_every_key_expires_and_belongs_to_a_part(
    store: RedisClusterStore, cluster: Cluster
) -> None:
    store.revision()
    store.announce_subjects(SUBJECTS)
    for subject in SUBJECTS:
        plan = Plan((Charge(subject, limit(1)),), labels=("any\0free\0GET /",))
        store.execute(plan)
        store.execute(plan)
    for node in cluster.primaries:
        keys = cluster.call(node, "KEYS", "*")
        assert keys
        assert all(key.startswith(b"rlt:{") for key in keys)  # type: ignore[attr-defined]
        assert all(cluster.call(node, "TTL", key) > 0 for key in keys)  # type: ignore[operator,attr-defined]


@pytest.mark.django_db
@pytest.mark.urls("tests.site")
def test_a_site_limits_on_a_cluster(store: RedisClusterStore, cluster: Cluster) -> None:
    limit_tier("anonymous", 2)
    setting = {"STORE": CLUSTER_STORE, "STORE_OPTIONS": {"url": cluster.url, "timeout": 5}}
    with override_settings(RATELIMIT_TIERS=setting):
        statuses = [Client().get("/plain/").status_code for _ in range(3)]
        configured_store().close()  # type: ignore[attr-defined]
    assert statuses == [200, 200, 429]


def slot_of(part: RedisStore) -> int:
    """Return the slot of all keys of a part."""
    slot: Any = part._server
    return int(slot._number)


def test_a_slot_is_followed_while_and_after_it_moves(
    store: RedisClusterStore, cluster: Cluster
) -> None:
    charge = Charge("user:1", limit(10))
    store.acquire([charge])
    part = store._part_of("user:1")
    known = store.revision()
    with cluster.moving(slot_of(part)) as slot:
        with pytest.raises(StoreRefused):  # keys that are not there may be at either node
            store.acquire([charge])
        for key in slot.keys:
            slot.take(key)
        assert part.revision() == known  # one key, so the source can say where it is
    assert store.acquire([charge])[0].remaining == 8


def test_a_tally_is_not_written_to_two_nodes_while_its_slot_moves(
    store: RedisClusterStore, cluster: Cluster
) -> None:
    key = RefusalKey(Mode.ENFORCE, "any", "free", "GET a", "user:1")
    store.records.add(Tally(usage={"user:1": Usage(3, 2)}, refusals={key: 2}))
    missed = Tally(usage={"user:1": Usage(3, 2)}, refusals={key: 2})
    with cluster.moving(slot_of(store._parts[0])) as slot:
        for moved in slot.keys:
            with suppress(StoreRefused):
                store.records.add(missed)
            slot.take(moved)
        with suppress(StoreRefused):
            store.records.add(missed)
    store.records.add(missed)
    counts = [store.records.counts(minute) for minute in store.records.minutes()]
    assert sum(sum(each.values()) for each in counts) == 4
    (hour, *_) = store.records.hours()
    assert store.records.usage(hour)["user:1"] == Usage(6, 4)


def test_a_log_at_two_nodes_concerns_its_client_alone(
    store: RedisClusterStore, cluster: Cluster
) -> None:
    charge = Charge("user:1", QuotaPolicy("log", 5, 3600, Algorithm.SLIDING_WINDOW_LOG))
    for _ in range(2):
        store.acquire([charge])
    with cluster.moving(slot_of(store._part_of("user:1"))) as slot:
        *longer, shortest = sorted(slot.keys, key=len, reverse=True)
        for key in longer:
            slot.take(key)
            with pytest.raises(StoreRefused):
                store.refund([charge])
            with pytest.raises(StoreRefused):
                store.reset(charge.subject)
        slot.take(shortest)
    assert store.peek([charge])[0].remaining == 3


def test_a_slot_that_another_thread_is_told_of_hides_no_other(cluster: Cluster) -> None:
    """While slots move, each redirection makes the threads learn the cluster anew."""
    interval = sys.getswitchinterval()
    store = RedisClusterStore(url=cluster.url, timeout=5)
    store.ping()
    nodes, stop = store._nodes, threading.Event()
    owners = dict(nodes._owners)

    def redirect() -> None:
        while not stop.is_set():
            nodes.moved(0, owners[0])
            nodes._owners = dict(owners)

    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=redirect)
    thread.start()
    try:
        for _ in range(3):
            for slot in owners:
                nodes.owner(slot, time.monotonic() + 5)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    store.close()


def test_a_node_that_left_the_cluster_leaves_it_to_the_others() -> None:
    with Cluster() as cluster:
        left = cluster.nodes[-1]
        store = RedisClusterStore(url=left.url, timeout=5)
        assert store.ping()
        name = cluster.call(left, "CLUSTER MYID")
        for node in cluster.nodes[:-1]:
            cluster.call(node, "CLUSTER FORGET", name)  # type: ignore[arg-type]
        cluster.call(left, "CLUSTER RESET", "SOFT")

        async def ping() -> None:
            assert await store.aping()
            await store.aclose()

        for _ in range(2):
            store._nodes.forget()
            store.ping()
            store._nodes.forget()
            asyncio.run(ping())
        store.close()


def test_a_node_that_lost_touch_does_not_hide_what_the_others_know() -> None:
    with Cluster() as cluster:
        killed, *primaries = cluster.primaries
        alone = cluster.nodes[-1]
        store = RedisClusterStore(url=alone.url, timeout=5)
        assert store.ping()
        cluster.call(alone, "DEBUG DROP-CLUSTER-PACKET-FILTER", -2)
        killed.kill()
        replica = cluster.nodes[3]
        assert wait_until(lambda: b"master" in cluster.call(replica, "ROLE"), 60)  # type: ignore[operator]
        assert wait_until(lambda: cluster.is_whole([*primaries, replica]), 60)

        def answers() -> bool:
            with suppress(StoreUnavailable):
                return store.ping()
            return False

        async def aanswers() -> bool:
            try:
                return await store.aping()
            except StoreUnavailable:
                return False
            finally:
                await store.aclose()

        assert any(answers() for _ in range(3))
        store._nodes.moved(0, (HOST, killed.port))
        assert any(asyncio.run(aanswers()) for _ in range(3))
        store.close()


def test_a_primary_killed_under_load_admits_no_more_than_the_limit() -> None:
    """Replicas are a moment behind: what they had not heard is all that may be lost."""
    most = 300
    with Cluster() as cluster:
        store = RedisClusterStore(url=cluster.url, timeout=1)
        subjects = SUBJECTS[:8]
        admitted: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        used_up: set[str] = set()
        stop = threading.Event()

        def load(mine: Sequence[str]) -> None:
            while not stop.is_set():
                for subject in mine:
                    try:
                        outcome = store.acquire([Charge(subject, limit(most))])[0]
                    except StoreUnavailable:  # it may have been charged all the same
                        failed[subject] += 1
                        time.sleep(0.01)
                        continue
                    admitted[subject] += outcome.allowed
                    if not outcome.allowed:
                        used_up.add(subject)

        threads = [threading.Thread(target=load, args=(subjects[n::2],)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            assert wait_until(lambda: sum(admitted.values()) > 400, 60)
            cluster.primaries[0].kill()
            survivors = cluster.nodes[1:]
            assert wait_until(lambda: cluster.is_whole(survivors), 120)
            used_up.clear()
            assert wait_until(lambda: used_up == set(subjects), 180)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        store.close()
    assert sum(failed.values()) > 0, "the primary was not missed"
    for subject, count in admitted.items():
        assert most - min(failed[subject], 20) <= count <= most + 20
