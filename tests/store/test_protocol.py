"""Plans as commands: what is written once is what would be written each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hiredis import Reader, pack_command
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.store import protocol, scripts
from django_ratelimit_tiers.store.agreements import REPLACE
from django_ratelimit_tiers.store.layouts import Layout
from django_ratelimit_tiers.store.protocol import Protocol, parse_reply
from django_ratelimit_tiers.store.scripts import ACQUIRE, REFUND, RESET, Call
from django_ratelimit_tiers.store.server_records import (
    ADD,
    GIVE_LOCK,
    LOCK_THOUGH_FULL,
    RENEW_LOCK,
    TAKE_SAMPLE,
)
from tests import strategies as own

PROTOCOL = Protocol()

POLICY = QuotaPolicy("p", 10, 60)


def written(by: Protocol, plan: Plan) -> tuple[Call, tuple[int, ...], str]:
    """Return a plan as it is sent, and how its reply is read."""
    call, layout = by.acquire(plan)
    return call, places(layout), layout.reply.format


def places(layout: Layout) -> tuple[int, ...]:
    """Return where the reply has the counter of each charge."""
    return tuple(part.start for _, part in layout.counters)


class Form:
    """What charges have in common that differ only by their subjects."""


@given(
    policies=st.lists(own.policies(), max_size=5),
    costs=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    subjects=st.lists(
        st.lists(st.sampled_from(["user:1", "ip:192.0.2.7", "all"]), min_size=5, max_size=5),
        min_size=2,
        max_size=5,
    ),
)
def test_plans_of_one_form_are_sent_as_those_without(
    policies: list[QuotaPolicy], costs: list[int], subjects: list[list[str]]
) -> None:
    form = Form()
    for of_request in subjects:
        charges = tuple(map(Charge, of_request, policies, costs))
        of_form = Plan(charges, form=form)
        assert written(PROTOCOL, of_form) == written(PROTOCOL, replace(of_form, form=None))


@given(
    charges=st.lists(own.charges(own.policies()), max_size=5),
    plans=st.lists(
        st.fixed_dictionaries(
            {
                "spend": st.booleans(),
                "now": st.none() | st.integers(0, own.LATEST),
                "revision": st.none() | st.sampled_from("ab"),
                "subject_revisions": st.dictionaries(st.sampled_from("ab"), st.sampled_from("cd")),
            }
        ),
        min_size=2,
        max_size=5,
    ),
)
def test_a_plan_that_comes_again_is_sent_as_it_was_never_seen(
    charges: list[Charge], plans: list[dict[str, Any]]
) -> None:
    own_protocol = Protocol()
    for fields in plans:
        again = Plan(tuple(charges), **fields)
        for _ in range(2):
            new = Plan(tuple(charges), **fields)
            assert written(own_protocol, again) == written(Protocol(), new)


def test_what_another_protocol_has_made_of_a_plan_is_not_sent() -> None:
    plan = Plan((Charge("user:1", POLICY),))
    for prefix in ("one", "two", "one"):
        call, _ = Protocol(prefix).acquire(plan)
        assert b"%b:{user:1}" % prefix.encode() in call.evalsha


@given(words=st.lists(st.binary(max_size=20), max_size=3))
def test_a_call_is_written_as_the_client_library_writes_commands(words: list[bytes]) -> None:
    call = Call.of(ACQUIRE, words, b"", b"x")
    command = (len(words), *words, b"", b"x")
    assert call.evalsha == pack_command(("EVALSHA", ACQUIRE.digest, *command))
    assert call.eval == pack_command(("EVAL", ACQUIRE.text, *command))


@given(
    charges=st.lists(own.charges(own.policies()), max_size=5),
    revisions=st.dictionaries(st.sampled_from(["a", "%b"]), st.sampled_from(["", "%d%%"])),
    now=st.none() | st.integers(0, own.LATEST),
)
def test_a_plan_is_a_command_whose_words_are_all_there(
    charges: list[Charge], revisions: dict[str, str], now: int | None
) -> None:
    plan = Plan(
        tuple(charges),
        now=now,
        subject_revisions=revisions,
        labels=("%b\0%d\0GET /",) * len(charges),
    )
    call, _ = PROTOCOL.acquire(plan)
    reader = Reader()
    reader.feed(call.evalsha)
    name, digest, number_of_keys, *words = reader.gets()
    keys, arguments = words[: int(number_of_keys)], words[int(number_of_keys) :]
    subjects = dict.fromkeys(charge.subject for charge in charges)
    assert (name, digest) == (b"EVALSHA", ACQUIRE.digest)
    assert keys[:2] == [b"rlt:counts", b"rlt:revision"]
    assert keys[2:] == [
        *(PROTOCOL.counters_key(subject).encode() for subject in subjects),
        *(PROTOCOL.subject_revision_key(subject).encode() for subject in revisions),
    ]
    assert arguments[0].count(b"%b\0%d\0GET /") == len(charges)
    assert arguments[1:] == [b"*", *(revision.encode() for revision in revisions.values())]


def test_a_reply_that_lets_in_makes_a_whole_decision() -> None:
    plan = Plan((Charge("user:1", POLICY),))
    _, layout = PROTOCOL.acquire(plan)
    decision = parse_reply(plan, layout, layout.reply.pack(7_000_000, 7_000_000, 1, 0))
    assert decision == Decision(decision.answer, now=7_000_000)
    assert [outcome.remaining for outcome in decision.outcomes] == [9]


def test_charges_of_one_counter_have_its_last_state() -> None:
    minute, day = QuotaPolicy("t", 10, 60), QuotaPolicy("t", 100, 86_400)
    charges = [Charge("user:1", policy) for policy in (minute, day, minute)]
    _, layout = PROTOCOL.acquire(Plan((*charges, Charge("user:2", minute))))
    assert places(layout) == (7, 4, 7, 10)


def test_charges_of_one_subject_are_sent_together() -> None:
    policies = [QuotaPolicy(name, 10, 60) for name in "abc"]
    subjects = ["user:1", "all", "user:1"]
    _, layout = PROTOCOL.acquire(Plan(tuple(map(Charge, subjects, policies))))
    assert places(layout) == (1, 7, 4)


def test_no_more_layouts_are_remembered_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_LAYOUTS", 3)
    own_protocol = Protocol()
    plan = Plan((Charge("user:1", POLICY),))
    for _ in range(10):
        own_protocol.acquire(replace(plan, form=Form()))
        assert len(own_protocol.memory.layouts) <= 3


def test_what_was_for_plans_of_a_former_revision_is_forgotten() -> None:
    own_protocol, kept = Protocol(), []
    plans = [
        Plan((Charge("user:1", POLICY),), revision=revision, form=Form())
        for revision in ("one", "one", "two")
    ]
    for plan in plans:
        own_protocol.acquire(plan)
        kept.append(len(own_protocol.memory.layouts))
    assert kept == [1, 2, 1]


def test_a_plan_of_any_revision_has_nothing_forgotten() -> None:
    own_protocol = Protocol()
    for revision in ("one", None):
        plan = Plan((Charge("user:1", POLICY),), revision=revision, form=Form())
        own_protocol.acquire(plan)
    assert len(own_protocol.memory.layouts) == 2


def test_a_script_has_whatever_it_says_is_put_in() -> None:
    for script in (ACQUIRE, REFUND, RESET):
        assert b"-- @" not in script.text.replace(b"`-- @file`", b"")


def test_every_file_of_lua_is_part_of_a_script() -> None:
    of_records = ADD, GIVE_LOCK, LOCK_THOUGH_FULL, RENEW_LOCK, TAKE_SAMPLE
    texts = [script.text for script in (ACQUIRE, REFUND, RESET, REPLACE, *of_records)]
    folder = Path(scripts.__file__).parent / "lua"
    beginnings = {file.name: file.read_bytes().splitlines()[0] for file in folder.glob("*.lua")}
    unused = [name for name, line in beginnings.items() if not any(line in text for text in texts)]
    assert beginnings
    assert unused == []
