"""Refusals that are put aside in full: the newest are kept, and each is taken once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from django_ratelimit_tiers.core.decisions import Outcome
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import (
    LONGEST_METHOD,
    LONGEST_PATH,
    LONGEST_USER_AGENT,
    RefusalKey,
)
from django_ratelimit_tiers.events.samples import Sample
from django_ratelimit_tiers.events.tallies import MOST_SAMPLED

LABEL = "free-minute\0free\0GET plain/\0search"
TOLD = ("id", 7, "GET", "192.0.2.1", "/plain/", "tester/1")


def refused(wait: int = 7, mode: Mode = Mode.ENFORCE) -> Outcome:
    policy = QuotaPolicy("free-minute", 60, 60, mode=mode)
    return Outcome(Charge("user:1", policy), False, 0, 9, wait)


def test_the_newest_are_kept_in_full() -> None:
    sample = Sample()
    for number in range(MOST_SAMPLED + 5):
        sample.add(refused(wait=number), LABEL, 1000 + number, (f"id{number}", *TOLD[1:]))
    taken = sample.take()
    numbers = range(5, MOST_SAMPLED + 5)
    assert [refusal.decision_id for refusal in taken] == [f"id{number}" for number in numbers]
    assert [refusal.at for refusal in taken] == [1000 + number for number in numbers]
    newest = taken[-1]
    assert newest.key == RefusalKey(Mode.ENFORCE, "free-minute", "free", "GET plain/", "user:1")
    assert (newest.rule, newest.retry_after, newest.revision) == ("search", MOST_SAMPLED + 4, 7)
    assert (newest.method, newest.path) == ("GET", "/plain/")
    assert (newest.address, newest.user_agent) == ("192.0.2.1", "tester/1")
    assert sample.take() == []


def test_what_a_shadow_policy_would_refuse_is_kept_as_that() -> None:
    sample = Sample()
    sample.add(refused(mode=Mode.SHADOW), LABEL, 1, TOLD)
    assert [refusal.key.mode for refusal in sample.take()] == [Mode.SHADOW]


def test_hostile_texts_are_bounded_and_inert() -> None:
    sample, hostile = Sample(), "/a\0b\x1b[2J\ud800" + "x" * 1000
    sample.add(refused(), LABEL, 1, ("id", 7, hostile, "192.0.2.1", hostile, hostile))
    [refusal] = sample.take()
    texts = refusal.method, refusal.path, refusal.user_agent
    assert [len(text) for text in texts] == [LONGEST_METHOD, LONGEST_PATH, LONGEST_USER_AGENT]
    assert all(text.startswith("/a\ufffdb\ufffd[2J\ufffd") for text in texts)


def test_threads_take_each_once() -> None:
    sample = Sample()
    with ThreadPoolExecutor(4) as pool:
        for round_ in range(200):
            for number in range(MOST_SAMPLED):
                sample.add(refused(), LABEL, round_ * MOST_SAMPLED + number, TOLD)
            parts = pool.map(lambda _: sample.take(), range(4))
            times = [refusal.at for part in parts for refusal in part]
            assert len(set(times)) == len(times) == MOST_SAMPLED
