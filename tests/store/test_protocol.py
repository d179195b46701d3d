"""Plans as commands: what is written once is what would be written each time."""

from __future__ import annotations

import pytest
from hiredis import Reader, pack_command
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.plans import Plan
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.store import protocol
from django_ratelimit_tiers.store.protocol import Protocol
from django_ratelimit_tiers.store.scripts import ACQUIRE, REFUND, RESET, Call
from tests import strategies as own

PROTOCOL = Protocol()


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
        call, layout = PROTOCOL.acquire(Plan(charges, form=form))
        alone, layout_alone = PROTOCOL.acquire(Plan(charges))
        assert call == alone
        assert layout.places == layout_alone.places
        assert layout.reply.format == layout_alone.reply.format


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
        detail="100 % \N{SNOWMAN}",
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
    assert arguments[1:] == [
        plan.detail.encode(),
        b"*",
        *(revision.encode() for revision in revisions.values()),
    ]


def test_charges_of_one_counter_have_its_last_state() -> None:
    minute, day = QuotaPolicy("t", 10, 60), QuotaPolicy("t", 100, 86_400)
    charges = [Charge("user:1", policy) for policy in (minute, day, minute)]
    _, layout = PROTOCOL.acquire(Plan((*charges, Charge("user:2", minute))))
    assert layout.places == (7, 4, 7, 10)


def test_charges_of_one_subject_are_sent_together() -> None:
    policies = [QuotaPolicy(name, 10, 60) for name in "abc"]
    subjects = ["user:1", "all", "user:1"]
    _, layout = PROTOCOL.acquire(Plan(tuple(map(Charge, subjects, policies))))
    assert layout.places == (1, 7, 4)


def test_no_more_layouts_are_remembered_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MOST_LAYOUTS", 3)
    own_protocol = Protocol()
    plan = Plan((Charge("user:1", QuotaPolicy("p", 10, 60)),))
    for _ in range(10):
        own_protocol.acquire(plan._replace(form=Form()))
        assert len(own_protocol.layouts) <= 3


def test_a_script_has_whatever_it_says_is_put_in() -> None:
    for script in (ACQUIRE, REFUND, RESET):
        assert b"-- @" not in script.text.replace(b"`-- @file`", b"")
