"""The command that replays access logs."""

from __future__ import annotations

import gzip
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.http import HttpRequest
from django.test import override_settings

from django_ratelimit_tiers.models import EndpointRule, Tier
from tests.databases import without_tables
from tests.policies import limit_tier, make_rule

pytestmark = pytest.mark.django_db

LINE = '{address} - - [17/May/2015:10:{time} +0000] "GET {path} HTTP/1.1" 200 1 "-" "agent"\n'


def line(time: str = "05:00", path: str = "/plain/", address: str = "192.0.2.7") -> str:
    return LINE.format(time=time, path=path, address=address)


def replay(*arguments: Any) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("ratelimit_replay", *map(str, arguments), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text("".join(line(f"05:0{second}") for second in range(5)))
    return path


def test_it_tells_who_would_have_been_refused(log: Path) -> None:
    limit_tier("anonymous", {"requests": 3, "period": 60, "algorithm": "token_bucket", "burst": 2})
    make_rule("tried", {"requests": 4, "period": 3600}, path="/plain/", mode="shadow")
    assert replay(log) == (
        """\
5 requests from 1 client, 2015-05-17 10:05 UTC to 2015-05-17 10:05 UTC.

refused requests             3
refused clients              1
exempt requests              0

Limits that refuse:
  refused  clients  limit
        3        1  anonymous-minute: 3 per minute, burst 2 (tier “anonymous”)

Clients refused most:
  refused  requests  client, first refused at
        3         5  ip:192.0.2.7, 2015-05-17 10:05 UTC

Endpoints refused most:
  refused  endpoint
        3  GET plain/
""",
        "",
    )
    assert "Limits in shadow mode that would refuse" not in replay(log)[0]


def test_changes_are_compared_with_the_policy_as_it_is(log: Path) -> None:
    limit_tier("anonymous", {"requests": 3, "period": 60})
    make_rule("tried", {"requests": 1, "period": 3600}, path="/plain/", mode="shadow")
    told, _ = replay(log, "--enforce", "tried", "--limit", "anonymous-minute=4")
    assert (
        """
                      as it is    as tried
refused requests             2           4
refused clients              1           1
exempt requests              0           0
0 clients newly refused, 0 no longer.

Limits that refuse:
  refused  clients  limit
        4        1  tried-hour: 1 per hour (rule “tried”)
"""
        in told
    )
    told, _ = replay(log, "--limit", "anonymous-minute=5")
    assert "0 clients newly refused, 1 no longer." in told
    assert "Limits in shadow mode that would refuse:" in told
    assert "4        1  tried-hour: 1 per hour (rule “tried”)" in told


def test_several_logs_are_read_in_the_order_of_their_times(tmp_path: Path) -> None:
    limit_tier("anonymous", {"requests": 2, "period": 60, "algorithm": "sliding_window_log"})
    older, newer = tmp_path / "access.log.1.gz", tmp_path / "access.log"
    older.write_bytes(gzip.compress(f"{line('05:00')}{line('05:59')}".encode()))
    newer.write_text(f"{line('05:30')}{line('06:10')}")
    assert "refused requests             1\n" in replay(newer, older)[0]


def test_a_log_that_is_not_in_the_order_of_its_times_is_told(log: Path) -> None:
    log.write_text("".join(map(line, ("09:00", "08:30", "07:59", "05:00"))))
    told, _ = replay(log)
    assert "2015-05-17 10:05 UTC to 2015-05-17 10:09 UTC.\n" in told
    assert "\n2 requests were made more than a minute before one that precedes it in the " in told
    log.write_text("".join(map(line, ("09:00", "09:01", "08:01"))))
    assert "precedes" not in replay(log)[0]


def test_a_log_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(line().encode() * 3)))
    assert replay("-")[0].startswith("3 requests from 1 client")


def test_lines_that_tell_of_no_request_are_counted(log: Path) -> None:
    log.write_text(f"{line()}hello\n{line('x')}" + '- - - [17/May/2015:10:05:03 +0000] "-" 408 0\n')
    told, unread = replay(log)
    assert told.startswith("1 request from 1 client")
    assert unread.startswith(f"3 lines were skipped; the first is line 2 of {log}: it is nei")


def test_bytes_that_are_no_text_stop_nothing(log: Path) -> None:
    log.write_bytes(line(path="/caf\xe9/").encode("latin-1") + b"\xff\xfe\n")
    told, unread = replay(log)
    assert told.startswith("1 request from 1 client")
    assert unread.startswith("1 line was skipped")


def test_rules_by_a_field_are_named_as_left_out(log: Path) -> None:
    make_rule("account", 1, path="/plain/", identify_by="field", request_field="username")
    told, _ = replay(log)
    assert "refused requests             0\n" in told
    assert told.endswith(
        "\nLeft out, as no log has the request field that they count by: account.\n"
    )


def test_it_says_where_a_rule_that_is_left_out_replaces_the_limits_of_tiers(log: Path) -> None:
    field = {"path": "/plain/", "identify_by": "field", "request_field": "username"}
    make_rule("also", 100, **field)
    make_rule("account", 100, tier_policies="replace", **field)
    make_rule("tried", 100, tier_policies="replace", mode="shadow", **field)
    limit_tier("anonymous", 2)
    told, _ = replay(log)
    assert "refused requests             3\n" in told  # the site refuses none of them
    assert told.endswith(
        "\nLimits of tiers were charged where these replace them on the site: account.\n"
    )
    assert replay(log, "--enforce", "tried")[0].endswith(" the site: account, tried.\n")


def test_rules_by_a_field_are_left_out_of_what_is_tried_too(log: Path) -> None:
    make_rule("account", 1, path="/plain/", identify_by="field", request_field="username")
    limit_tier("anonymous", {"requests": 3, "period": 60})
    told, _ = replay(log, "--limit", "anonymous-minute=4")
    assert "refused requests             2           1\n" in told


def test_it_says_when_nothing_or_not_everything_is_limited(log: Path) -> None:
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        assert replay(log)[0].endswith("\nNote: Nothing is limited: ENABLED is False.\n")
    with override_settings(MIDDLEWARE=[]):
        assert "\nNote: The middleware is not installed: only views with " in replay(log)[0]


class Head(StringIO):
    """What closes once something is written to it, as `head` does with a pipe."""

    def write(self, text: str) -> int:
        if self.getvalue():
            raise BrokenPipeError
        return super().write(text)


def test_who_reads_only_the_head_of_it_gets_no_error(log: Path) -> None:
    head = Head()
    call_command("ratelimit_replay", str(log), stdout=head)
    assert head.getvalue().startswith("5 requests")


def test_long_lists_are_cut(tmp_path: Path) -> None:
    limit_tier("anonymous", {"requests": 1, "period": 60})
    log = tmp_path / "access.log"
    log.write_text("".join(2 * line(address=f"192.0.2.{number}") for number in range(12)))
    assert f"{'':21}and 2 more\n" in replay(log)[0]


def test_whoever_and_whatever_was_refused_most_comes_first(log: Path) -> None:
    limit_tier("anonymous", {"requests": 1, "period": 60})
    asked = {("192.0.2.1", "/plain/"): 2, ("192.0.2.2", "/async/"): 4, ("192.0.2.3", "/async/"): 3}
    log.write_text("".join(n * line(path=path, address=ip) for (ip, path), n in asked.items()))
    told = replay(log)[0].split("Clients refused most:")[1].splitlines()
    clients = [row.split()[:3] for row in told if ", 2015" in row]
    assert clients == [
        ["3", "4", "ip:192.0.2.2,"],
        ["2", "3", "ip:192.0.2.3,"],
        ["1", "2", "ip:192.0.2.1,"],
    ]
    assert [row.split() for row in told[-2:]] == [["5", "GET", "async/"], ["1", "GET", "plain/"]]


def no_tier(request: HttpRequest) -> str:
    return str(request.session["tier"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--enforce", "none"], "No endpoint rule has the name 'none'."),
        (["--enforce-tier", "none"], "No tier has the name 'none'; there are anonymous, business,"),
        (["--limit", "none=1"], "No limit has the name 'none'; there are anonymous-day, anon"),
        (
            ["--limit", "anonymous-minute"],
            "'anonymous-minute' is no limit such as free-minute=30",
        ),
        (["--limit", "anonymous-minute=-1"], "is no limit such as"),
        (["--limit", "anonymous-minute=0"], "policy 'anonymous-minute': requests must be from 1"),
        (["--limit", "anonymous-day=5,9"], "burst is only for the token bucket"),
    ],
)
def test_a_wrong_option_is_told(log: Path, arguments: list[str], why: str) -> None:
    with pytest.raises(CommandError, match=why.replace(".", r"\.")):
        replay(log, *arguments)


def test_a_log_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nothing\.log cannot be read: .*No such file"):
        replay(tmp_path / "nothing.log")
    broken = tmp_path / "broken.gz"
    for content in (b"no gzip", gzip.compress(line().encode())[:-9], b"\x1f\x8b\x08" + b"\0" * 30):
        broken.write_bytes(content)
        with pytest.raises(CommandError, match=r"broken\.gz cannot be read"):
            replay(broken)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", ["ratelimit_replay", "ratelimit_preview"])
def test_a_database_without_the_tables_is_told_in_words(command: str, log: Path) -> None:
    arguments = [str(log)] if command == "ratelimit_replay" else ["GET", "/plain/"]
    with (
        without_tables(EndpointRule),
        pytest.raises(CommandError, match=r"(?s)cannot be read: .*run `manage\.py migrate`"),
    ):
        call_command(command, *arguments)


def test_a_log_without_a_request_is_told(log: Path) -> None:
    log.write_text("hello\n")
    with pytest.raises(CommandError, match=r"tell of no request\. 1 line was skipped; "):
        replay(log)


@override_settings(RATELIMIT_TIERS={"TIER_RESOLVER": f"{__name__}.no_tier"})
def test_a_function_of_the_site_that_fails_is_told_with_the_request(log: Path) -> None:
    with pytest.raises(CommandError, match=r"GET /plain/ of 192\.0\.2\.7 cannot be .*log the tier"):
        replay(log)
    log.write_text(
        '{"time": 1, "address": "192.0.2.7", "method": "GET", "path": "/plain/", "status": 200,'
        ' "tier": "pro"}'
    )
    assert replay(log)[0].startswith("1 request from 1 client")


def test_a_tier_in_shadow_mode_is_tried_as_enforced(log: Path) -> None:
    tier = limit_tier("anonymous", {"requests": 3, "period": 60})
    Tier.objects.filter(pk=tier.pk).update(mode="shadow")
    told, _ = replay(log)
    assert "Limits in shadow mode that would refuse:" in told
    assert "refused requests             0\n" in told
    told, _ = replay(log, "--enforce-tier", "anonymous")
    assert "refused requests             0           2\n" in told


def test_a_limit_that_counts_each_route_is_one_limit_of_the_report(log: Path) -> None:
    make_rule("routes", {"requests": 1, "period": 3600}, path="/**", scope="route")
    log.write_text("".join(2 * line(path=path) for path in ("/plain/", "/async/", "/about")))
    assert """
Limits that refuse:
  refused  clients  limit
        3        1  routes-hour: 1 per hour (rule “routes”)

""" in replay(log)[0]
