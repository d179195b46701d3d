"""The smallest set of rights that a store can live with, as the documentation lists it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Algorithm, Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import RefusalKey, SampledRefusal
from django_ratelimit_tiers.core.tallies import Tally, Usage
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.redis import RedisStore
from tests.servers import ROOT, ValkeyProcess


def documented_user() -> str:
    """Return the line of the ACL file in docs/redis.md."""
    text = (ROOT / "docs" / "redis.md").read_text()
    found = re.search(r"^user limits .*(?:\n .*)*", text, re.MULTILINE)
    assert found is not None
    return " ".join(found[0].split())


@pytest.fixture
def guarded() -> Iterator[ValkeyProcess]:
    with ValkeyProcess(documented_user()) as server:
        yield server


@pytest.fixture
def store(guarded: ValkeyProcess) -> Iterator[RedisStore]:
    store = RedisStore(url=guarded.url.replace("//", "//limits:secret@"), timeout=5)
    yield store
    store.close()


def test_the_documented_rights_are_enough_with_a_client_name() -> None:
    text = (ROOT / "docs" / "redis.md").read_text()
    besides = re.search(r"`client_name` needs `(\S+)` besides", text)
    assert besides is not None
    with ValkeyProcess(f"{documented_user()} {besides[1]}") as server:
        url = server.url.replace("//", "//limits:secret@") + "?client_name=limits"
        store = RedisStore(url=url, timeout=5)
        store.ping()
        store.close()


SAMPLED = SampledRefusal(
    key=RefusalKey(Mode.ENFORCE, "any", "free", "GET /", "user:1"),
    rule="",
    at=7,
    retry_after=7,
    decision_id="id",
    revision=7,
    method="GET",
    address="192.0.2.1",
    path="/",
    user_agent="tester/1",
)


def denied(server: ValkeyProcess) -> list[str]:
    """Return what the server has refused to do."""
    with server.client() as client:
        return [str(entry) for entry in client.acl_log()]


def test_the_documented_rights_are_enough_for_everything(
    guarded: ValkeyProcess, store: RedisStore
) -> None:
    policies = [QuotaPolicy("any", 2, 60, algorithm) for algorithm in Algorithm]
    for policy in policies:
        charge = Charge("user:1", policy)
        plan = Plan((charge,), labels=("any\0free\0GET /",))
        for _ in range(3):
            store.execute(plan)
        store.peek([charge])
        store.refund([charge])
        asyncio.run(charge_on_a_loop(store, charge))
    store.ping()
    store.revision()
    store.announce_policy()
    store.announce_subjects(["user:1"])
    records = store.records
    usage, sightings = {"user:1": Usage(1, 2)}, [("user:1", "192.0.2.0")]
    records.add(Tally(usage=usage, sightings=sightings, sample=[SAMPLED]))
    records.now()
    for minute in records.minutes():
        records.counts(minute)
        records.forget_minute(minute)
    records.sample()
    records.forget_sample()
    for hour in records.hours():
        records.usage(hour)
        records.forget_hour(hour)
    records.accounts_used()
    records.sightings(0, 1200)
    records.quotas()
    records.forget_quotas(records.quotas())
    with records.lock("any", 10) as is_held:
        assert is_held
    store.reset("user:1")
    assert [finding.text for finding in store.examine() if finding.is_wrong] == []
    assert denied(guarded) == []


async def charge_on_a_loop(store: RedisStore, charge: Charge) -> tuple[Outcome, ...]:
    return await store.aacquire([charge])


def test_the_documented_rights_end_at_our_own_keys(
    guarded: ValkeyProcess, store: RedisStore
) -> None:
    for words in (("SET", "session:1", "x"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*")):
        with pytest.raises(StoreUnavailable, match="NoPermission"):
            store.command(*words)
    assert len(denied(guarded)) == 4


def test_a_wrong_password_is_a_store_that_is_not_there(guarded: ValkeyProcess) -> None:
    store = RedisStore(url=guarded.url.replace("//", "//limits:wrong@"), timeout=5)
    with pytest.raises(StoreUnavailable, match="AuthenticationError"):
        store.ping()
