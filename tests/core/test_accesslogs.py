"""Lines of access logs as requests."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.accesslogs import LoggedRequest, parse_line

AT = int(datetime(2015, 5, 17, 10, 5, 3, tzinfo=UTC).timestamp()) * 1_000_000

COMMON = '192.0.2.7 - {user} [17/May/2015:10:05:03 +0000] "{request}" 200 2326'

JSON = (
    '{"time": "2015-05-17T10:05:03Z", "address": "192.0.2.7", "method": "GET", "path": "/a?b=1",'
    ' "status": 200%s}'
)


QUERY = {"query": "b=1"}


def logged(**fields: Any) -> LoggedRequest:
    told = {"at": AT, "address": "192.0.2.7", "method": "GET", "path": "/a", "status": 200}
    return LoggedRequest(**{**told, **fields})


def common(request: str = "GET /a HTTP/1.1", user: str = "-") -> str:
    return COMMON.format(request=request, user=user)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (common(), {}),
        (common() + "\n", {}),
        (common() + ' "http://example.org/" "Mozilla/5.0 (\\"quoted\\")"', {}),
        (f"www.example.org:443 {common()}", {}),
        (common(user="alice"), {"user": "alice"}),
        (common(user="alice smith"), {"user": "alice smith"}),
        (common("POST /a?b=1&c=%2F HTTP/2.0"), {"method": "POST", "query": "b=1&c=%2F"}),
        (common("GET /%C3%A9 HTTP/1.1"), {"path": "/%C3%A9"}),
        (common("GET /a b HTTP/1.1"), {"path": "/a b"}),
        (common("GET http://example.org/a?b HTTP/1.1"), {"query": "b"}),
        (common("GET http://example.org HTTP/1.1"), {"path": "/"}),
        (common("GET //a HTTP/1.1"), {"path": "//a"}),
        (common(r"GET /\"a\\\x41\t HTTP/1.1"), {"path": '/"a\\A\t'}),
        (common(r"GET /\xc3\xa9 HTTP/1.1"), {"path": "/\udcc3\udca9"}),
        (common().replace("+0000", "+0200"), {"at": AT - 7_200_000_000}),
        (common().replace("+0000", "-0330"), {"at": AT + 12_600_000_000}),
        (common().replace("192.0.2.7", "2001:db8::7"), {"address": "2001:db8::7"}),
        (common().replace(":03 ", ":60 "), {"at": AT + 56_000_000}),
        (JSON % "", QUERY),
        (JSON % ', "user": "alice", "extra": [1]', QUERY | {"user": "alice"}),
        (JSON % ', "user": 42, "api_key": 7', QUERY | {"user": "42", "api_key": "7"}),
        (JSON % ', "user": null, "tier": "pro"', QUERY | {"tier": "pro"}),
        (JSON % ', "user": "-", "tier": ""', QUERY),
        (JSON.replace('"2015-05-17T10:05:03Z"', "1431857103.5") % "", QUERY | {"at": AT + 500_000}),
        (JSON.replace("2015-05-17T10:05:03Z", "1431857103.25") % "", QUERY | {"at": AT + 250_000}),
        (JSON.replace("10:05:03Z", "10:05:03") % "", QUERY),
        (JSON.replace("10:05:03Z", "12:05:03+02:00") % "", QUERY),
        (JSON.replace("200", '"404"') % "", QUERY | {"status": 404}),
    ],
)  # fmt: skip
def test_a_line_tells_of_a_request(line: str, told: dict[str, Any]) -> None:
    assert parse_line(line) == logged(**told)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "neither in the common"),
        ("hello", "neither in the common"),
        (common("-"), "no HTTP request"),
        (common(r"\x16\x03\x01"), "no HTTP request"),
        (common("GET /a"), "no HTTP request"),
        (common("GET  HTTP/1.1"), "no method or no path"),
        (common().replace("192.0.2.7", "host.example.org"), "'host.example.org' is no address"),
        (common().replace("192.0.2.7", "192.0.2.7, 10.0.0.1"), "'192.0.2.7,' is no address"),
        (common().replace("192.0.2.7", "unknown, 10.0.0.1"), "'unknown,' is no address"),
        (common().replace("May", "Mai"), "'17/Mai/2015:10:05:03 \\+0000' is no time"),
        (common().replace("17/", "32/"), "day"),
        (common().replace('" 200', '" 099'), "from 100 to 599, not 99"),
        ("{", "no JSON object"),
        (f'{{"a":{"[" * 90_000}', "no JSON object"),
        (JSON.replace("/a", "/\\ud800") % "", "surrogates not allowed"),
        ("{}", "'address' must be a text, not None"),
        (JSON.replace("192.0.2.7", "nowhere") % "", "'nowhere' is no address"),
        (JSON.replace('"GET"', '""') % "", "no method or no path"),
        (JSON.replace('"GET"', "[]") % "", "'method' must be a text"),
        (JSON.replace("200", "true") % "", "'status' must be a number, not True"),
        (JSON.replace("200", "200.5") % "", "'status' must be a whole number"),
        (JSON.replace("200", "1e999") % "", "'status' must be a number, not inf"),
        (JSON.replace("2015-05-17T10:05:03Z", "yesterday") % "", "'time' must be ISO 8601"),
        (JSON.replace('"2015-05-17T10:05:03Z"', "null") % "", "'time' must be ISO 8601"),
        (JSON.replace('"2015-05-17T10:05:03Z"', "-1") % "", "1970 to 9999"),
        (JSON.replace('"2015-05-17T10:05:03Z"', "1e300") % "", "1970 to 9999"),
    ],
)
def test_a_line_that_tells_of_none_says_why(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_line(line)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (r"j\xc3\xb6rg", "jörg"),
        (r"j\xC3\xB6rg", "jörg"),
        ("jörg", "jörg"),
        (r"CORP\\anna", "CORP\\anna"),
        (r"anna \"b\"", 'anna "b"'),
        ("[anna] b[", "[anna] b["),
        (r"j\xf6rg", "j\ufffdrg"),
    ],
)
def test_a_user_is_known_by_a_name_that_the_server_has_escaped(written: str, name: str) -> None:
    assert parse_line(common(user=written)) == logged(user=name)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("/go/https://example.org/b", {"path": "/go/https://example.org/b"}),
        ("/https://example.org", {"path": "/https://example.org"}),
        ("/a?next=http://example.org/b", {"query": "next=http://example.org/b"}),
        ("http://a.org/go/http://b.org/?c=http://d.org/", {
            "path": "/go/http://b.org/", "query": "c=http://d.org/"
        }),
    ],
)  # fmt: skip
def test_only_the_host_that_a_proxy_is_asked_for_is_left_out_of_a_path(
    target: str, told: dict[str, Any]
) -> None:
    assert parse_line(common(f"GET {target} HTTP/1.1")) == logged(**told)


@pytest.mark.parametrize(
    "host", ["198.51.100.1", "2001:db8::1", "[2001:db8::1]", "198.51.100.1:80", "www"]
)
def test_a_virtual_host_that_is_asked_for_by_its_address_is_not_the_client(host: str) -> None:
    assert parse_line(f"{host} {common()}") == logged()


@pytest.mark.parametrize("time", ["1e305", "-1e305", f'"{"9" * 306}"'])
def test_a_time_that_is_no_number_of_microseconds_is_told(time: str) -> None:
    with pytest.raises(ValueError, match="'time' must be ISO 8601 or seconds since 1970"):
        parse_line(JSON.replace('"2015-05-17T10:05:03Z"', time) % "")


@pytest.mark.parametrize("target", ["/a?b=1#c", "/a?b=1#?d", "http://example.org/a?b=1#/c"])
def test_what_follows_a_hash_is_no_part_of_the_path_or_the_query(target: str) -> None:
    """gunicorn logs it, and leaves it out of what Django gets."""
    assert parse_line(common(f"GET {target} HTTP/1.1")) == logged(**QUERY)


def test_names_are_shown_on_one_line() -> None:
    line = JSON % r', "user": "a\u0000b\ud800", "tier": "\u001b[31mred"'
    assert parse_line(line) == logged(query="b=1", user="a\ufffdb\ufffd", tier="\ufffd[31mred")


PIECES = st.sampled_from(
    [
        *(
            '"',
            "\\",
            "[",
            "]",
            " ",
            "-",
            "{",
            "}",
            ":",
            ",",
            "GET /",
            "HTTP/1.1",
            "200",
            "192.0.2.7",
        ),
        *(
            '"time"',
            '"status"',
            "17/May/2015:10:05:03 +0000",
            "1e999",
            "null",
            "\\x",
            "\udc80",
            "\0",
        ),
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_is_a_request_or_a_value_error(line: str) -> None:
    with suppress(ValueError):
        found = parse_line(line)
        assert found.method
        assert found.path


def test_a_long_line_takes_time_in_proportion() -> None:
    """A backtracking pattern would not end."""
    with pytest.raises(ValueError, match="neither"):
        parse_line("192.0.2.7 " + '"' * 200_000)
    with pytest.raises(ValueError, match="neither"):
        parse_line("192.0.2.7" + ' [a] "' * 30_000)
    with pytest.raises(ValueError, match="neither"):
        parse_line(common("GET /" + "\\" * 200_001))
