from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ratelimit_tiers.core.automata import MAX_STATES, Automaton, RoutePart, route_automaton
from django_ratelimit_tiers.core.patterns import Pattern, parse_pattern
from django_ratelimit_tiers.core.reach import Reach

atoms = st.sampled_from(
    ["a", "b", "k", "/", "[ab]", "[^a]", "[a-c/]", ".", r"\d", r"\w", "(?i:k)", "(?i:[a-k])", ""]
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda both: f"(?:{both[0]}|{both[1]})"),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{1,3}", "{2,}", "+?"])).map(
            lambda both: f"(?:{both[0]}){both[1]}"
        ),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=6,
)
paths = st.text("abkKs/1\u212a\u0661", max_size=6)


def route(*sources: str, open_end: bool = False) -> Automaton:
    parts = [RoutePart((re.compile(source),)) for source in sources]
    return route_automaton(parts, open_end=open_end)


def reaches(pattern: Pattern | str, *sources: str, open_end: bool = False) -> bool:
    parsed = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    return bool(Reach([route(*sources, open_end=open_end)]).reached_by(parsed))


def segments(path: str) -> tuple[str, ...]:
    parts = path.split("/")
    return tuple(parts if parts[-1] else parts[:-1])


def spellings(pattern: Pattern) -> set[str]:
    """Return the paths that a pattern without wildcards covers, less the slash at their start."""
    path = "/".join(pattern.segments)
    if not pattern.segments:
        return {""}
    return {path, path + "/"} if pattern.segments[-1] else {path + "/"}


@given(expressions, paths)
def test_a_path_is_reached_exactly_when_one_of_its_spellings_matches(
    source: str, path: str
) -> None:
    pattern = Pattern(segments(path))
    matches = any(re.fullmatch(source, spelling) for spelling in spellings(pattern))
    assert reaches(pattern, rf"^(?:{source})\Z") is matches


@given(expressions, expressions, paths, st.data())
def test_a_pattern_reaches_every_route_that_matches_a_path_it_covers(
    outer: str, inner: str, path: str, data: st.DataObject
) -> None:
    begin = re.compile(outer).search(path)
    rest = None if begin is None else re.compile(inner).search(path[begin.end() :])
    if rest is None:
        return
    parts = segments(path)
    cut = data.draw(st.integers(0, len(parts)))
    wild = data.draw(st.lists(st.booleans(), min_size=cut, max_size=cut))
    kept = tuple("*" if star else part for star, part in zip(wild, parts, strict=False))
    assert reaches(Pattern(kept, rest=True), outer, inner, open_end=True)
    if cut == len(parts):
        assert reaches(Pattern(kept), outer, inner, open_end=True)


@pytest.mark.parametrize(
    ("pattern", "sources", "reached"),
    [
        ("/api/search", (r"^api/search/\Z",), True),
        ("/api/search", (r"^api/search\Z",), True),
        ("/api/search", (r"^api/searches/\Z",), False),
        ("/api/*", (r"^api/", r"^search/\Z"), True),
        ("/api/*", (r"^api/", r"^(?P<pk>[0-9]+)/\Z"), True),
        ("/api/*", (r"^api/\Z",), False),
        ("/api/*", (r"^api/", r"^a/b/\Z"), False),
        ("/api/*/b", (r"^api/", r"^(?P<rest>.+)\Z"), True),
        ("/api/**", (r"^api/\Z",), True),
        ("/api/**", (r"^api\Z",), True),
        ("/api/**", (r"^ap",), True),
        ("/api/**", (r"^apis/\Z",), False),
        ("/**", (r"^\Z",), True),
        ("/", (r"^\Z",), True),
        ("/", (r"^a",), False),
        ("/users/7", (r"^users/(?P<pk>[0-9]+)/\Z",), True),
        ("/users/me", (r"^users/(?P<pk>[0-9]+)/\Z",), False),
        ("/keys", (r"(?i)^KEYS/?$",), True),
        ("/\u212aey\u017f", (r"(?i)^keys/?$",), True),
        ("/x/search/y", (r"search",), True),
        ("/x/seek/y", (r"search",), False),
        ("/deep/api/search", (r"api/", r"^search$"), True),
        ("/api/x/search", (r"api/", r"^search$"), False),
        ("/a//", (r"^a/\Z",), False),
        ("/a//", (r"^a//\Z",), True),
        ("/a", (r"^a{2,4}$",), False),
        ("/aa", (r"^a{2,4}$",), True),
        ("/aaaa", (r"^a{2,4}$",), True),
        ("/aaaaa", (r"^a{2,4}$",), False),
    ],
)
def test_a_pattern_reaches_the_routes_of_its_paths(
    pattern: str, sources: tuple[str, ...], reached: bool
) -> None:
    assert reaches(pattern, *sources, open_end=True) is reached


@pytest.mark.parametrize("source", ["", "a*", "(?:a|)", "x?"])
def test_a_part_that_needs_nothing_does_not_skip_anything(source: str) -> None:
    assert reaches("/search", source, r"^search/\Z")
    assert not reaches("/other/search", source, r"^search/\Z")


@pytest.mark.parametrize(
    "source", ["(?=.*x)search", "(?<!x)search", r"(s)(?(1)earch|x)", r"\bsearch\b", "(?m:^)search"]
)
def test_conditions_that_are_not_looked_into_are_taken_to_hold(source: str) -> None:
    assert reaches("/search", f"^{source}$")


@pytest.mark.parametrize("source", [r"^(.+)/\1$", "^(?>a+)/b$", "^a++/b$"])
def test_what_regular_expressions_have_beyond_regular_ones_is_understood(source: str) -> None:
    assert reaches("/*/*", source)


@pytest.mark.parametrize("source", ["(?m)^a\\n^b", "(?m)a$\\nb", "a\\n(?m:^)b"])
def test_an_anchor_of_lines_may_hold_in_the_middle_of_a_path(source: str) -> None:
    assert re.search(source, "a\nb")
    assert reaches("/**", source)


@pytest.mark.parametrize("source", [r"(?m)a\Ab", r"(?m)a\Zb"])
def test_an_anchor_of_the_whole_path_holds_at_its_ends_only(source: str) -> None:
    assert not reaches("/**", source)


def test_what_can_never_match_is_never_reached() -> None:
    assert not reaches("/**", "a^b")
    assert not reaches("/**", r"a\Zb")
    assert not reaches("/**", "(?!)x", r"^a\Zb")


def test_long_repeats_match_at_least_what_they_should() -> None:
    assert reaches("/" + "a" * 64, r"^a{64}$")
    assert reaches("/" + "a" * 64, r"^a{20,100}$")


def test_huge_expressions_make_bounded_automata() -> None:
    nested = "a{12}"
    for _ in range(6):
        nested = f"(?:{nested}){{12}}"
    assert len(route(f"^{nested}$").edges) < 20 * MAX_STATES
    assert reaches("/*", f"^{nested}$")


def test_each_alternative_of_a_part_is_reached() -> None:
    languages = RoutePart(tuple(re.compile(f"^{prefix}") for prefix in ("", "de/", "fr/")))
    about = RoutePart((re.compile(r"^about/\Z"),))
    reach = Reach([route_automaton([languages, about], open_end=False)])
    found = {
        text: bool(reach.reached_by(parse_pattern(text)))
        for text in ("/about", "/de/about", "/fr/about", "/it/about")
    }
    assert found == {"/about": True, "/de/about": True, "/fr/about": True, "/it/about": False}


def test_of_many_routes_exactly_the_reached_are_named() -> None:
    sources = [r"^a/\Z", r"^a/b/\Z", r"^b/\Z", r"^(?P<x>[^/]+)/\Z"]
    reach = Reach(map(route, sources))
    assert reach.reached_by(parse_pattern("/a")) == {0, 3}
    assert reach.reached_by(parse_pattern("/a/*")) == {1}
    assert reach.reached_by(parse_pattern("/a/**")) == {0, 1, 3}
    assert reach.reached_by(parse_pattern("/**")) == {0, 1, 2, 3}
