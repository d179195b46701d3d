"""Requests as a web server has logged them.

Two forms are read, line by line: the common and the combined format of Apache and nginx, also with
the virtual host before them, and JSON objects.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from ipaddress import ip_address
from typing import IO, Any

from django_ratelimit_tiers.core.policies import MICROSECONDS
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.core.words import shown

NOBODY = "-"
"""How servers log what they do not know."""

LONGEST_LINE = 100_000
"""Bytes of a line that are read at once: servers take no longer requests."""

READ_ERRORS = OSError, EOFError, zlib.error
"""What is raised for a file that cannot be read, or not be unpacked."""

MOST_SECONDS = 253_402_300_799
"""The last second of the year 9999."""

_LINE = re.compile(
    r"""
    (?P<client> (?: [^\[] | \[ (?! \d\d/ ) )+ ) \x20
    \[ (?P<time> [^\]]{1,40} ) \] \x20
    " (?P<request> (?: [^"\\] | \\. )* ) " \x20
    (?P<status> [0-9]{3} ) (?: \s | \Z )
    """,
    re.VERBOSE,
)
"""The common log format, https://httpd.apache.org/docs/2.4/logs.html#common, and what follows."""

_TIME = re.compile(
    r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)", re.ASCII
)
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.))")
_LETTERS = {"b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_AUTHORITY = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request of the past.

    `at` is in microseconds since the epoch. `path` and `query` are as the client sent them,
    percent-encoded. `user` is a user name and `api_key` the id of a verified key, empty where none
    was logged; `tier` is a slug, None where none was logged.
    """

    at: int
    address: str
    method: str
    path: str
    status: int
    query: str = ""
    user: str = ""
    api_key: str = ""
    tier: str | None = None


def log_lines(file: IO[bytes], name: str) -> Iterator[str]:
    """Yield the lines of a file, which is unpacked if its name ends in `.gz`.

    A line of more than LONGEST_LINE bytes is cut into several. Raises one of READ_ERRORS where
    the file cannot be read.
    """
    raw: Any = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
    while line := raw.readline(LONGEST_LINE):
        yield line.decode(errors="surrogateescape")


class LogReader:
    """Reads the requests of logs, and keeps what it could not read.

    `unread` is how many lines told of no request, `first_unread` where the first of them is and why
    it does not.
    """

    def __init__(self) -> None:
        self.unread = 0
        self.first_unread = ""

    def read(self, lines: Iterable[str], name: str) -> Iterator[LoggedRequest]:
        """Yield the requests of the lines of one log, whose name is for words."""
        for number, line in enumerate(lines, start=1):
            try:
                yield parse_line(line)
            except ValueError as error:
                self.unread += 1
                if not self.first_unread:
                    self.first_unread = f"line {number} of {name}: {shown(str(error))}"

    @property
    def unread_words(self) -> str:
        """What could not be read, as one sentence; empty when everything could."""
        if not self.unread:
            return ""
        lines = "1 line was" if self.unread == 1 else f"{self.unread:,} lines were"
        return f"{lines} skipped; the first is {self.first_unread}."


def parse_line(line: str) -> LoggedRequest:
    """Return the request that a line tells of; raises ValueError saying why it tells of none."""
    line = line.strip()
    return _parse_object(line) if line.startswith("{") else _parse_text(line)


def _parse_text(line: str) -> LoggedRequest:
    match = _LINE.match(line)
    if match is None:
        raise ValueError("it is neither in the common or combined log format nor a JSON object")
    words = match["client"].split()
    if len(words) > 3 and _is_virtual_host(*words[:2]):
        del words[0]
    address, user = words[0] if words else "", _unescaped(" ".join(words[2:]))
    user = user.encode(errors="surrogateescape").decode(errors="replace")
    method, target = _parse_request(_unescaped(match["request"]))
    at = _parse_time(match["time"])
    return _logged(at, address, method, target, int(match["status"]), user=user)


def _is_virtual_host(first: str, second: str) -> bool:
    """Return whether a line begins with its virtual host, which may be named by its address.

    A comma is that of a list of proxies.
    """
    return not first.endswith(",") and (_is_address(second) or not _is_address(first))


def _parse_request(line: str) -> tuple[str, str]:
    method, _, rest = line.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not protocol.startswith("HTTP/"):
        raise ValueError("it is no HTTP request")
    return method, target


@lru_cache(maxsize=16)
def _parse_time(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise ValueError(f"{text!r} is no time such as 17/May/2015:10:05:03 +0000")
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    moment = datetime(
        *(int(year), 1 + _MONTHS.index(month), int(day)),
        *(int(hour), int(minute), min(int(second), 59)),  # a leap second
        tzinfo=timezone(-offset if sign == "-" else offset),
    )
    return int(moment.timestamp()) * MICROSECONDS


def _unescaped(text: str) -> str:
    """Return a text as it was before the server made it printable.

    Bytes above 127 are surrogates, as those of a file are that is read with `surrogateescape`.
    """
    if "\\" not in text:
        return text

    def original(match: re.Match[str]) -> str:
        code, letter = match.groups()
        if code is None:
            return _LETTERS.get(letter, letter)
        return bytes.fromhex(code).decode(errors="surrogateescape")

    return _ESCAPE.sub(original, text)


def _parse_object(line: str) -> LoggedRequest:
    try:
        told: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON object: {error}") from error
    address, method, target = (_text(told, name) for name in ("address", "method", "path"))
    at, status = _moment(told), _number(told, "status")
    if not status.is_integer():
        raise ValueError(f"its 'status' must be a whole number such as 200, not {status!r}")
    user, key, tier = (_text(told, name, "") for name in ("user", "api_key", "tier"))
    return _logged(at, address, method, target, int(status), user=user, api_key=key, tier=tier)


def _text(told: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = told.get(name, default)
    if value is None and default is not None:  # logged as null
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"its {name!r} must be a text, not {value!r}")
    return value


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"its {name!r} must be a number, not {value!r}")
    return number


def _moment(told: Mapping[str, Any]) -> int:
    """Return the time of an object: seconds since the epoch or ISO 8601, UTC unless it says so."""
    value = told.get("time")
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            moment = datetime.fromisoformat(value)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        else:
            seconds = _number(told, "time")
        return round(seconds * MICROSECONDS)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"its 'time' must be ISO 8601 or seconds since 1970, not {value!r}"
        ) from error


def _logged(
    at: int,
    address: str,
    method: str,
    target: str,
    status: int,
    *,
    user: str,
    api_key: str = "",
    tier: str = "",
) -> LoggedRequest:
    if not _is_address(address):
        raise ValueError(f"its client {address!r} is no address")
    if not 0 <= at <= MOST_SECONDS * MICROSECONDS:
        raise ValueError("its time is not in the years 1970 to 9999")
    if not method or not target:
        raise ValueError("it has no method or no path")
    target.encode(errors="surrogateescape")  # what no client can have sent is a ValueError
    if not 100 <= status <= 599:
        raise ValueError(f"its status must be from 100 to 599, not {status}")
    asked, _, _ = _AUTHORITY.sub("", target, count=1).partition("#")  # as servers leave it out
    path, _, query = asked.partition("?")
    user, key, tier = ("" if text == NOBODY else printable(text) for text in (user, api_key, tier))
    return LoggedRequest(at, address, method, path or "/", status, query, user, key, tier or None)


@lru_cache(maxsize=8192)
def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
