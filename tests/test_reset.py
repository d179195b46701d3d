"""The command that lets clients start anew."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError
from django.test import override_settings

from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.store.configured import configured_store

POLICY = QuotaPolicy("p", 1, 86_400)


def reset(*subjects: str) -> str:
    out = StringIO()
    call_command("ratelimit_reset", *subjects, stdout=out)
    return out.getvalue()


def remaining(subject: str) -> int:
    return configured_store().peek([Charge(subject, POLICY)])[0].remaining


@pytest.mark.parametrize(
    ("named", "subject"),
    [
        ("user:42", "user:42"),
        ("key:0123456789abcdef0123456789abcdef", "key:0123456789abcdef0123456789abcdef"),
        ("key:customer-1", key_digest("customer-1")),
        ("field:unclear", "field:unclear"),
        ("all", "all"),
        ("ip:192.0.2.7", "ip:192.0.2.7"),
        ("ip:::ffff:192.0.2.7", "ip:192.0.2.7"),
        ("ip:2001:db8::/64", "ip:2001:db8::/64"),
        ("ip:2001:DB8::1", "ip:2001:db8::/64"),
        ("ip:2001:db8::1/128", "ip:2001:db8::/64"),
        ("ip:192.0.2.7/32", "ip:192.0.2.7"),
    ],
)
def test_a_client_starts_anew_and_no_other(named: str, subject: str) -> None:
    configured_store().acquire([Charge(subject, POLICY), Charge("user:7", POLICY)])
    assert reset(named) == f"{subject} starts anew.\n"
    assert (remaining(subject), remaining("user:7")) == (1, 0)


def test_a_key_whose_id_looks_like_a_digest_starts_anew() -> None:
    key_id = "9f86d081884c7d659a2feaa0c55ad015"
    configured_store().acquire([Charge(key_digest(key_id), POLICY)])
    reset(f"key:{key_id}")
    assert remaining(key_digest(key_id)) == 1


@pytest.mark.parametrize("named", ["user:042", "user:+42", "user:\uff14\uff12"])
def test_a_user_whose_id_is_written_in_another_way_starts_anew(named: str) -> None:
    configured_store().acquire([Charge("user:42", POLICY)])
    reset(named)
    assert remaining("user:42") == 1


def test_a_name_where_an_id_belongs_is_pointed_out() -> None:
    configured_store().acquire([Charge("user:auth0|7", POLICY)])
    told = StringIO()
    call_command("ratelimit_reset", "user:auth0|7", "user:7", stdout=StringIO(), stderr=told)
    assert told.getvalue() == "'auth0|7' is no user's id: only a token could give it.\n"
    assert remaining("user:auth0|7") == 1


def test_a_wrong_setting_is_told_and_not_taken_for_a_wrong_subject() -> None:
    wrong = override_settings(RATELIMIT_TIERS={"IPV6_PREFIX": "64"})
    with wrong, pytest.raises(SystemCheckError, match="Make it a number from 1 to 128"):
        call_command("ratelimit_reset", "ip:2001:db8::1", skip_checks=False)


def test_several_clients_start_anew() -> None:
    configured_store().acquire([Charge("user:1", POLICY), Charge("user:2", POLICY)])
    reset("user:1", "user:2")
    assert (remaining("user:1"), remaining("user:2")) == (1, 1)


@pytest.mark.parametrize(
    "named",
    [
        *("42", "user:", "user:1 2", "key:", "field:name", "ip:", "ip:x"),
        *("everyone", "*", "ip:192.0.2.0/24", "ip:2001:db8::/32", "ip:192.0.2.7/x"),
    ],
)
def test_what_names_no_client_is_refused_and_nobody_starts_anew(named: str) -> None:
    configured_store().acquire([Charge("user:1", POLICY)])
    with pytest.raises(CommandError):
        reset("user:1", named)
    assert remaining("user:1") == 0


def test_a_store_that_cannot_be_reset_is_told() -> None:
    memory = {"STORE": "django_ratelimit_tiers.store.memory.MemoryStore"}
    away = {
        "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
        "STORE_OPTIONS": {"url": "redis://127.0.0.1:1"},
    }
    for setting in (memory, away):
        with override_settings(RATELIMIT_TIERS=setting), pytest.raises(CommandError):
            reset("user:1")


def test_a_network_of_many_clients_is_refused_and_says_what_would_be_one() -> None:
    with pytest.raises(CommandError, match=r"many clients: .* such as ip:2001:db8::/64"):
        reset("ip:2001:db8::/48")
