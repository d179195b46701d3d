from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_ratelimit_tiers.core import tries
from django_ratelimit_tiers.core.patterns import Pattern, parse_pattern
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.rulesets import RuleSet

words = st.sampled_from(["a", "b", "", "..", "A", "%61"])
patterns = st.builds(
    Pattern, st.lists(words | st.just("*"), max_size=4).map(tuple), st.booleans()
).map(str)
paths = st.lists(words, max_size=7).map(lambda parts: "/" + "/".join(parts))
methods = st.frozensets(st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"]), max_size=3)


def rule(path: str = "", /, **fields: object) -> Rule:
    return Rule(**{"id": 1, "name": path or "rule", "path": path, **fields})  # type: ignore[arg-type]


def covers(pattern: list[str], path: list[str]) -> bool:
    """Say the slow and obvious way whether a pattern's segments cover a path's."""
    if pattern == ["**"]:
        return True
    if not pattern or not path:
        return pattern == path
    return pattern[0] in ("*", path[0]) and covers(pattern[1:], path[1:])


def segments(path: str) -> list[str]:
    parts = path.split("/")[1:]
    return parts if parts[-1] else parts[:-1]


def names(found: tuple[Rule, ...]) -> list[str]:
    return [rule.name for rule in found]


@given(st.lists(patterns, max_size=12), st.lists(paths, max_size=6))
def test_exactly_the_rules_whose_pattern_covers_the_path_are_found(
    texts: list[str], asked: list[str]
) -> None:
    rules = RuleSet(rule(text) for text in texts)
    for path in asked:
        expected = [text for text in texts if covers(segments(text), segments(path))]
        assert names(rules.match("GET", path)) == expected


@given(st.lists(methods, max_size=6), st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "X"]))
def test_exactly_the_rules_for_the_method_are_found(
    named: list[frozenset[str]], method: str
) -> None:
    rules = RuleSet(rule("/a", name=str(number), methods=m) for number, m in enumerate(named))
    asked = {method, "GET"} if method == "HEAD" else {method}
    expected = [str(number) for number, m in enumerate(named) if not m or m & asked]
    assert names(rules.match(method, "/a")) == expected


@given(st.text(), st.text())
@example("*", "OPTIONS")
@example("http://host/api", "GET")
@example("", "")
def test_no_path_and_no_method_raises(path: str, method: str) -> None:
    found = RuleSet([rule("/**")]).match(method, path)
    assert names(found) == (["/**"] if path.startswith("/") else [])


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("/api/search", True),
        ("/api/search/", True),
        ("/api/search//", False),
        ("//api/search", False),
        ("/api//search", False),
        ("/api/x/../search", False),
        ("/API/search", False),
        ("/api/se%61rch", False),
    ],
)
def test_a_path_is_compared_as_django_sees_it(path: str, covered: bool) -> None:
    assert bool(RuleSet([rule("/api/search")]).match("GET", path)) is covered


@pytest.mark.parametrize("path", ["/" * 100_000, "/a" * 50_000, "/" + "a" * 100_000])
def test_a_hostile_path_is_matched_like_any_other(path: str) -> None:
    texts = ["/**", "/a/**", "/*/a/*", "/*/*/*/*"]
    rules = RuleSet(rule(text) for text in texts)
    expected = [text for text in texts if covers(segments(text)[:5], segments(path)[:5])]
    assert names(rules.match("GET", path)) == expected


def test_a_long_segment_is_not_taken_for_a_literal_that_begins_like_it() -> None:
    longest = "/" + "a" * 499
    rules = RuleSet([rule(longest)])
    assert names(rules.match("GET", longest)) == [longest]
    assert rules.match("GET", longest + "a") == ()
    assert rules.match("GET", longest + "aa") == ()


def test_positions_are_forgotten_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tries, "MAX_NODES", 3)
    texts = ["/a/*/c", "/*/b/c", "/a/b/*", "/b/**"]
    rules = RuleSet(rule(text) for text in texts)
    for path in ["/a/b/c", "/b/b/c", "/c/b/c", "/a/x/c", "/a/b/c"] * 2:
        expected = [text for text in texts if covers(segments(text), segments(path))]
        assert names(rules.match("GET", path)) == expected
        assert len(rules._by_path._positions) <= 3


def test_many_rules_below_any_segment_take_no_memory_for_each_segment_asked_for() -> None:
    tenants = [f"/tenant{number}/**" for number in range(1000)]
    rules = RuleSet(map(rule, tenants + [f"/*/page{number}" for number in range(1000)]))
    tracemalloc.start()
    try:
        for tenant in tenants:
            path = tenant.replace("**", "page7")
            assert names(rules.match("GET", path)) == [tenant, "/*/page7"]
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


def test_positions_of_many_nodes_are_forgotten_sooner() -> None:
    steps = range(11)
    choices = ["/".join("*" if n >> k & 1 else "a" for k in steps) for n in range(1 << 11)]
    rules = RuleSet(rule(f"/{choice}") for choice in choices)
    for number in range(1 << 11):
        rules.match("GET", "/" + "/".join("a" if number >> k & 1 else "b" for k in steps))
    kept = rules._by_path._positions.values()
    assert sum(len(position.nodes) for position in kept) < tries.MAX_NODES + 2_000


def test_rules_that_are_off_are_left_out() -> None:
    rules = RuleSet([rule("/a", mode=Mode.OFF), rule("/a", mode=Mode.SHADOW)])
    assert [found.mode for found in rules.match("GET", "/a")] == [Mode.SHADOW]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "no-slash"}, "rule 'broken': path 'no-slash' must start with a slash"),
        ({"path": ""}, "rule 'broken': give either a path or a view name"),
        ({"path": "/a", "view_name": "b"}, "rule 'broken': give either a path or a view name"),
    ],
)
def test_a_broken_rule_is_refused_by_its_name(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RuleSet([rule(name="broken", **fields)])


def test_a_rule_by_view_is_found_by_no_path() -> None:
    rules = RuleSet([rule(view_name="shop:search"), rule("/**")])
    assert [names(rules.match("GET", path)) for path in ("/", "/shop:search")] == [["/**"]] * 2
    assert names(rules.rules) == ["rule", "/**"]


def test_a_pattern_of_a_rule_is_read_like_any_pattern() -> None:
    assert parse_pattern("/a/") == parse_pattern("/a")
    assert names(RuleSet([rule("/a/")]).match("GET", "/a")) == ["/a/"]


@pytest.mark.parametrize(
    ("now", "active"), [(9.999, False), (10.0, True), (19.999, True), (20.0, False)]
)
def test_a_rule_is_active_from_its_start_until_its_end(now: float, active: bool) -> None:
    assert rule("/a", starts_at=10.0, ends_at=20.0).is_active(now) is active


def test_a_rule_without_times_is_always_active() -> None:
    assert rule("/a").is_active(0.0)
