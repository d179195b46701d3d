from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.patterns import Pattern, parse_pattern, path_segments

segments = st.one_of(
    st.sampled_from(["*", "", ".", "..", "%2F", "a b", "café"]),
    st.text(st.characters(exclude_characters="/*?<>", exclude_categories=["Cc", "Cs"]), max_size=8),
)
patterns = st.builds(Pattern, st.lists(segments, max_size=6).map(tuple), st.booleans())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/", Pattern(())),
        ("//", Pattern(("",))),
        ("/**", Pattern((), rest=True)),
        ("/api/search", Pattern(("api", "search"))),
        ("/api/search/", Pattern(("api", "search"))),
        ("/api/users/*/orders", Pattern(("api", "users", "*", "orders"))),
        ("/api/**", Pattern(("api",), rest=True)),
        ("/api/**/", Pattern(("api",), rest=True)),
        ("/100%25/../x", Pattern(("100%25", "..", "x"))),
    ],
)
def test_a_pattern_is_its_segments(text: str, expected: Pattern) -> None:
    assert parse_pattern(text) == expected


@given(patterns)
def test_a_written_pattern_is_read_back(pattern: Pattern) -> None:
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must start with a slash"),
        ("api/search", "must start with a slash"),
        ("^/api", "must start with a slash"),
        ("/" + "a" * 500, "at most 500 characters"),
        ("/api/**/orders", r"\*\* at its end only"),
        ("/api/v*/orders", r"'v\*'"),
        ("/api/***", r"'\*\*\*'"),
        ("/users/<int:pk>/", r"must have \* in place of '<int:pk>'"),
        ("/search?q=1", "question mark"),
        ("/a\nb", "control characters"),
        ("/a\x00", "control characters"),
    ],
)
def test_an_impossible_pattern_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_pattern(text)


def test_a_refusal_quotes_hostile_text_short_and_in_ascii() -> None:
    with pytest.raises(ValueError, match="slash") as refusal:
        parse_pattern("\u202e<script>" * 1_000)
    assert str(refusal.value).isascii()
    assert len(str(refusal.value)) < 300


@given(st.text())
def test_any_text_is_parsed_or_refused_with_a_value_error(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "literal"), [("/api/search", True), ("/", True), ("/api/*", False), ("/**", False)]
)
def test_a_pattern_without_wildcards_is_literal(text: str, literal: bool) -> None:
    assert parse_pattern(text).is_literal is literal


@pytest.mark.parametrize("segment", ["<b", "b>", "a<b>c"])
def test_a_single_angle_bracket_is_a_character_like_any_other(segment: str) -> None:
    assert parse_pattern(f"/a/{segment}") == Pattern(("a", segment))


@given(st.text("/ab", min_size=1, max_size=12), st.integers(0, 6))
def test_segments_beyond_the_most_are_counted_as_one(path: str, most: int) -> None:
    path = "/" + path
    everything, some = path_segments(path), path_segments(path, most)
    assert some[:most] == everything[:most]
    assert len(some) == min(len(everything), most + 1)
