"""Path patterns of endpoint rules: literal segments, `*` and `**`, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

MAX_LENGTH = 500
"""The most characters of a pattern."""

ANY = "*"
"""Stands for exactly one segment."""

REST = "**"
"""Stands for all the segments that follow, also for none; only at the end."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed path pattern.

    `segments` are the literal segments and `ANY`; `rest` tells whether `**` follows them.
    A path is compared as Django sees it: case counts, a percent sign is a percent sign, and double
    slashes and dot segments stay. One slash at the end of the pattern or of the path makes no
    difference, because `APPEND_SLASH` makes one endpoint of both. `*` also stands for the empty
    segment between two slashes, which a regular expression route may accept.
    """

    segments: tuple[str, ...]
    rest: bool = False

    def __str__(self) -> str:
        parts = (*self.segments, REST) if self.rest else self.segments
        return "/" + "/".join(parts) + ("/" if parts[-1:] == ("",) else "")

    @property
    def is_literal(self) -> bool:
        """Whether the pattern is one path, with no wildcard in it."""
        return not self.rest and ANY not in self.segments


@lru_cache(maxsize=20_000)
def parse_pattern(text: str) -> Pattern:
    """Return the pattern that a text writes, such as `/api/users/*/orders` or `/api/**`.

    Raises ValueError, in words that tell what to write instead.
    """
    if not text.startswith("/"):
        raise ValueError(f"path {_quote(text)} must start with a slash")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"path {_quote(text)} must have at most {MAX_LENGTH} characters")
    segments = path_segments(text)
    rest = bool(segments) and segments[-1] == REST
    if rest:
        segments.pop()
    for segment in segments:
        if problem := _segment_problem(segment):
            raise ValueError(f"path {_quote(text)} {problem}")
    return Pattern(tuple(segments), rest)


def path_segments(path: str, most: int = -1) -> list[str]:
    """Return the segments of a path that starts with a slash, without the slash at its end.

    With `most` given, what follows so many segments is one segment more, slashes and all.
    """
    segments = path.split("/", most + 1 if most >= 0 else -1)
    del segments[0]
    if not segments[-1]:
        segments.pop()
    return segments


def _segment_problem(segment: str) -> str | None:
    if segment == ANY:
        return None
    if segment == REST:
        return "must have ** at its end only: * is one segment, ** is all that follow"
    if ANY in segment:
        return f"must use * for a whole segment, not for a part of one as in {_quote(segment)}"
    if segment.startswith("<") and segment.endswith(">"):
        return f"must have * in place of {_quote(segment)}: converters are not read here"
    if "?" in segment:
        return "must not contain a question mark: the query string is not compared"
    if any(character < " " or character == "\x7f" for character in segment):
        return "must not contain control characters"
    return None


def _quote(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
