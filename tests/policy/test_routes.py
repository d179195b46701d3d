from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import update_wrapper
from types import ModuleType
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import (
    Resolver404,
    ResolverMatch,
    URLPattern,
    URLResolver,
    clear_url_caches,
    include,
    path,
    re_path,
    register_converter,
    resolve,
    set_urlconf,
)
from django.urls.converters import get_converters
from django.urls.resolvers import RegexPattern
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy, override
from django.views import View
from django.views.decorators.cache import never_cache
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ViewSet

from django_ratelimit_tiers.core.patterns import Pattern, parse_pattern
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.rulesets import RuleSet
from django_ratelimit_tiers.policy import passages
from django_ratelimit_tiers.policy.passages import PassageBook
from django_ratelimit_tiers.policy.routemaps import RouteMap
from django_ratelimit_tiers.policy.routes import RouteIndex, resolution, route_map, routes_of
from django_ratelimit_tiers.policy.views import view_identity


def view(name: str) -> Any:
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse(name)

    answer.__name__ = answer.__qualname__ = name
    return answer


class Search(View):
    pass


class Notes(ViewSet):
    def list(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return HttpResponse()

    def retrieve(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return HttpResponse()


login, item, keys, report, files, seek, about, aliased, page = map(
    view, ["login", "item", "keys", "report", "files", "seek", "about", "aliased", "page"]
)

router = DefaultRouter()
router.register("notes", Notes, basename="note")

api = (
    [
        path("login/", login, name="login"),
        path("search/", Search.as_view(), name="search"),
        path("find/", Search.as_view(), name="find"),
        path("items/<int:number>/", item, name="item"),
        path("files/<path:rest>", files, name="files"),
        re_path(r"(?i)^keys/?$", keys, name="keys"),
        re_path(r"^reports/(?P<number>\d+)/?$", report),
        re_path(r"^seek", seek, name="seek"),
        path("", include(router.urls)),
    ],
    "api",
)


def rules_for(index: RouteIndex, match: ResolverMatch, method: str) -> tuple[Rule, ...]:
    return index.look_up(match, method, route_map())[1]


def route_of(index: RouteIndex, match: ResolverMatch) -> str:
    return index.look_up(match, "GET", route_map())[0]


def urlconf(*patterns: URLPattern | URLResolver) -> ModuleType:
    module = ModuleType("urls")
    module.urlpatterns = patterns  # type: ignore[attr-defined]
    return module


URLS = urlconf(
    path("api/", include(api, namespace="v1")),
    path("signin/", login, name="old-login"),
    *i18n_patterns(path("about/", about, name="about"), prefix_default_language=False),
)


@pytest.fixture(autouse=True)
def _urls() -> Iterator[None]:
    with override_settings(
        ROOT_URLCONF=URLS, LANGUAGE_CODE="en", LANGUAGES=[("en", "English"), ("de", "German")]
    ):
        yield


def covers(rule: Rule | str, spelling: str, method: str = "GET") -> bool:
    """Whether a rule, or one by this path, is on the view that a path resolves to."""
    rule = rule if isinstance(rule, Rule) else Rule(id=1, name="rule", path=rule)
    return bool(rules_for(RouteIndex([rule]), resolve(spelling), method))


@pytest.mark.parametrize(
    ("rule", "spellings"),
    [
        ("/api/search", ["/api/search/", "/api/find/"]),
        ("/api/find/", ["/api/search/", "/api/find/"]),
        ("/api/items/7", ["/api/items/7/", "/api/items/007/", "/api/items/8/"]),
        ("/api/items/*", ["/api/items/7/"]),
        ("/api/reports/7", ["/api/reports/7", "/api/reports/7/", "/api/reports/\u0667"]),
        ("/api/reports/*", ["/api/reports/7", "/api/reports/\uff17/"]),
        ("/api/keys", ["/api/keys", "/api/KEYS/", "/api/\u212aeys", "/api/key\u017f"]),
        ("/api/Keys/", ["/api/keys"]),
        ("/api/seek", ["/api/seek", "/api/seekers", "/api/seek/../x"]),
        ("/api/files/a/b", ["/api/files/a/b", "/api/files/../login/"]),
        ("/api/files/**", ["/api/files/a", "/api/files//"]),
        ("/api/notes", ["/api/notes/", "/api/notes.json", "/api/notes.json/"]),
        ("/api/notes/*", ["/api/notes/1/", "/api/notes/1.json"]),
        ("/api/login", ["/api/login/", "/signin/"]),
        ("/about", ["/about/"]),
    ],
)
def test_a_rule_by_path_is_on_the_view_whatever_the_spelling(
    rule: str, spellings: list[str]
) -> None:
    for spelling in spellings:
        assert covers(rule, spelling), spelling


@pytest.mark.parametrize(
    ("rule", "spelling"),
    [
        ("/api/search", "/api/login/"),
        ("/api/items/*", "/api/reports/7"),
        ("/api/notes", "/api/notes/1/"),
        ("/api/notes/*", "/api/notes/"),
        ("/api/notes/*/x", "/api/notes/1/"),
        ("/signin/**", "/api/search/"),
        ("/api", "/api/login/"),
    ],
)
def test_a_rule_by_path_is_on_no_other_view(rule: str, spelling: str) -> None:
    assert not covers(rule, spelling)


@pytest.mark.parametrize("rule", ["/about", "/de/about", "/*/about", "/de/**"])
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_rule_by_path_is_on_the_view_in_every_language(rule: str, language: str) -> None:
    with override(language):
        assert covers(rule, "/about/" if language == "en" else "/de/about/")
        assert not covers("/fr/about", "/about/" if language == "en" else "/de/about/")


@pytest.mark.parametrize("rule", ["/shop/*", "/*/shop/*", "/de/shop/7", "/shop/7"])
def test_a_language_that_is_a_variant_of_a_listed_one_is_the_sites_own(rule: str) -> None:
    shop = i18n_patterns(path("shop/<slug:name>/", item), prefix_default_language=False)
    with override_settings(ROOT_URLCONF=urlconf(*shop), LANGUAGE_CODE="en-us"):
        for language, spelling in (("en-us", "/shop/8/"), ("de", "/de/shop/8/")):
            with override(language):
                assert covers(rule, spelling)


@pytest.mark.parametrize("left_behind", ["en", "de"])
@pytest.mark.parametrize("spelling", ["/about/", "/de/about/"])
def test_a_view_is_foreseen_whatever_language_another_request_has_left_behind(
    spelling: str, left_behind: str
) -> None:
    rule = Rule(id=1, name="rule", view_name="about")
    with override(left_behind):
        found = PassageBook(RuleSet(), RouteIndex([rule])).foreseen(spelling, "GET", None)
    assert found is not None
    assert (found.view, found.rules.rules) == (about, (rule,))


def test_what_resolves_to_nothing_is_foreseen_as_nothing() -> None:
    book = PassageBook(RuleSet(), RouteIndex([Rule(id=1, name="rule", path="/**")]))
    for _ in range(2):
        assert book.foreseen("/nothing/", "GET", None) is None


def test_what_was_foreseen_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "REMEMBERED", 3)
    monkeypatch.setattr(passages, "LONGEST_REMEMBERED", len("/api/items/1/"))
    book = PassageBook(RuleSet(), RouteIndex([]))
    resolved: list[str] = []
    monkeypatch.setattr(
        passages, "resolution", lambda *asked: resolved.append(asked[0]) or resolution(*asked)
    )
    numbers = [1, 1, 22, 22, 3, 4, 5, 5, 1]
    found = {book.foreseen(f"/api/items/{number}/", "GET", None) for number in numbers}
    assert len(found) == 1
    assert [int(path.split("/")[3]) for path in resolved] == [1, 22, 22, 3, 4, 5, 1]


@pytest.mark.parametrize("name", ["v1:login", "api:login", "old-login", f"{__name__}.login"])
@pytest.mark.parametrize("spelling", ["/api/login/", "/signin/"])
def test_a_rule_by_view_name_is_on_the_view_under_all_its_names(name: str, spelling: str) -> None:
    assert covers(Rule(id=1, name="rule", view_name=name), spelling)


@pytest.mark.parametrize("name", ["login", "v2:login", "v1:search", "v1:", "testproject.login"])
def test_a_rule_by_another_name_is_not_on_the_view(name: str) -> None:
    assert not covers(Rule(id=1, name="rule", view_name=name), "/api/login/")


def test_the_name_of_an_application_is_that_of_its_instances_but_of_one_that_has_it() -> None:
    def site(*names: str) -> ModuleType:
        inner = {name: ([path("in/", view(name), name="in")], "site") for name in names}
        outer = [path(f"{name}/", include(inner[name], namespace=name)) for name in names]
        return urlconf(path("", include((outer, "all"), namespace="both")))

    for names, covered in ((("shop", "staff"), ["shop", "staff"]), (("shop", "site"), ["site"])):
        with override_settings(ROOT_URLCONF=site(*names)):
            for called in ("all:site:in", "both:site:in"):
                rule = Rule(id=1, name="rule", view_name=called)
                assert [name for name in names if covers(rule, f"/{name}/in/")] == covered
                assert route_map().has_view(called)
            assert not route_map().has_view("all:elsewhere:in")


def test_a_class_is_named_by_its_path() -> None:
    rule = Rule(id=1, name="rule", view_name=f"{__name__}.Search")
    assert covers(rule, "/api/find/")
    assert not covers(rule, "/api/login/")


def test_only_rules_for_the_method_are_found() -> None:
    rule = Rule(id=1, name="rule", path="/api/login", methods=frozenset(["GET"]))
    assert covers(rule, "/signin/", "HEAD")
    assert not covers(rule, "/signin/", "POST")


def test_rules_are_found_in_their_order() -> None:
    rules = [Rule(id=3, name="c", path="/api/**"), Rule(id=1, name="a", view_name="v1:login")]
    found = rules_for(RouteIndex(rules), resolve("/signin/"), "GET")
    assert [rule.id for rule in found] == [3, 1]


def test_one_route_stands_for_a_view_in_every_language() -> None:
    index = RouteIndex([])
    assert route_of(index, resolve("/signin/")) == "api/login/"
    assert route_of(index, resolve("/api/items/7/")) == "api/items/<int:number>/"
    with override("de"):
        assert route_of(index, resolve("/de/about/")) == "about/"


def test_a_view_that_no_route_leads_to_has_the_route_of_its_match() -> None:
    match = resolve("/api/login/")
    match.func = view("made_up")
    index = RouteIndex([Rule(id=1, name="rule", view_name="v1:login")])
    assert route_of(index, match) == "api/login/"
    assert rules_for(index, match, "GET")


class Traced:
    """A proxy as agents that trace requests put around the view of each one, a new one."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    @property
    def __class__(self) -> Any:
        return self.__wrapped__.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


class Pages:
    @method_decorator(never_cache)
    def show(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


pages = [Pages().show, Pages().show]


@pytest.mark.parametrize(
    "shown", [login, never_cache(login), Search.as_view(), pages[0], Traced(pages[1])]
)
def test_a_view_is_remembered_by_what_agents_put_their_proxies_around(shown: Any) -> None:
    rule = Rule(id=1, name="rule", path="/shown")
    routes = path("shown/", shown), path("other/", pages[shown is pages[0]])
    with override_settings(ROOT_URLCONF=urlconf(*routes)):
        book, found = PassageBook(RuleSet(), RouteIndex([rule])), set()
        for _ in range(3):
            match = resolve("/shown/")
            match.func = Traced(match.func)
            found.add(book.resolved((), match, "GET", None))
    [passage] = found
    assert passage.rules.rules == (rule,)
    assert type(passage.view) is not Traced


def test_a_decorator_that_is_an_object_is_remembered_by_itself() -> None:
    class Decorator:
        def __init__(self, wrapped: Any) -> None:
            update_wrapper(self, wrapped)

        def __call__(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse()

    free = Decorator(login)
    free.ratelimit_exempt = True  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urlconf(path("free/", free), path("login/", login))):
        book = PassageBook(RuleSet(), RouteIndex([]))
        found = [book.resolved((), resolve(p), "GET", None) for p in ("/free/", "/login/")]
    assert [passage.is_exempt for passage in found] == [True, False]


GENERIC = [
    re_path(r"^.*$", page),
    path("<path:rest>", page),
    path("<slug:name>/<slug:more>/", page),
    re_path(r"^(?!api/)(?P<rest>[\w/-]*)", page),
]


@pytest.mark.parametrize("fallback", GENERIC)
@pytest.mark.parametrize("rule", ["/api/login", "/api/login/", "/api/*", "/api/**", "/*/login"])
def test_a_fallback_of_the_site_is_not_limited_by_rules_for_its_other_pages(
    fallback: URLPattern, rule: str
) -> None:
    with override_settings(ROOT_URLCONF=urlconf(path("api/login/", login), fallback)):
        assert covers(rule, "/api/login/")
        assert not covers(rule, "/some/page/")


@pytest.mark.parametrize("fallback", GENERIC)
@pytest.mark.parametrize("rule", ["/some/page", "/some/*", "/some/**"])
def test_a_fallback_is_limited_by_rules_that_reach_nothing_else(
    fallback: URLPattern, rule: str
) -> None:
    with override_settings(ROOT_URLCONF=urlconf(path("api/login/", login), fallback)):
        assert covers(rule, "/any/other/")
        assert not covers(rule, "/api/login/")


def test_every_page_of_an_admin_is_a_view_of_its_own() -> None:
    sites = [AdminSite(name=name) for name in ("staff", "shop")]
    for site in sites:
        site.register([User, Group])
    urls = urlconf(*(path(f"{site.name}/", site.urls) for site in sites))
    pages = [
        f"/{site.name}/{page}/"
        for site in sites
        for page in ("login", "auth/user", "auth/group", "auth/user/add", "auth/user/7/delete")
    ]
    with override_settings(ROOT_URLCONF=urls):
        for rule in pages:
            assert [page for page in pages if covers(rule, page)] == [rule]


def test_the_resolver_decides_which_of_two_routes_a_literal_path_reaches() -> None:
    urls = urlconf(path("a/me/", login), path("a/<str:name>/", page))
    with override_settings(ROOT_URLCONF=urls):
        assert covers("/a/me", "/a/me/")
        assert not covers("/a/me", "/a/you/")
        assert covers("/a/you", "/a/them/")
        assert covers("/a/*", "/a/me/")


def test_translated_routes_are_reached_in_every_language() -> None:
    urls = urlconf(path(gettext_lazy("Monday"), login), re_path(gettext_lazy("May"), page))
    with override_settings(ROOT_URLCONF=urls):
        for language, spelling in [("en", "/Monday"), ("de", "/Montag")]:
            with override(language):
                assert covers("/Monday", spelling)
                assert covers("/Montag", spelling)
        with override("de"):
            assert covers("/May/**", "/Mai")


def test_a_urlconf_that_includes_itself_is_walked_once() -> None:
    urls = urlconf()
    urls.urlpatterns = [path("login/", login), path("again/", include(urls))]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls):
        assert [endpoint.route for endpoint in route_map().endpoints] == ["login/"]
        assert covers("/login", "/again/again/login/")
        assert covers("/again/login", "/login/")


class Failing:
    regex = "[a-z]+"

    def to_python(self, value: str) -> str:
        if value == "broken":
            raise LookupError(value)
        return value

    def to_url(self, value: str) -> str:
        return value


def test_a_converter_that_fails_takes_no_other_rule_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if "failing" not in get_converters():
        register_converter(Failing, "failing")
    rules = [Rule(id=1, name="a", path="/broken"), Rule(id=2, name="b", path="/login")]
    urls = urlconf(path("login/", login), path("<failing:name>/", page))
    with override_settings(ROOT_URLCONF=urls), caplog.at_level(logging.WARNING):
        found = rules_for(RouteIndex(rules), resolve("/login/"), "GET")
    assert [rule.id for rule in found] == [2]
    assert "no route is known for the rule path '/broken/'" in caplog.text


def test_a_converter_that_fails_before_middleware_ran_foresees_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "failing" not in get_converters():
        register_converter(Failing, "failing")
    with override_settings(ROOT_URLCONF=urlconf(path("<failing:name>/", page))):
        book = PassageBook(RuleSet(), RouteIndex([]))
        assert book.foreseen("/broken/", "GET", None) is None
        monkeypatch.setattr(Failing, "to_python", lambda _self, value: value)
        found = book.foreseen("/broken/", "GET", None)
    assert found is not None
    assert found.view is page


def test_the_routes_of_the_requests_own_urlconf_are_used() -> None:
    index = RouteIndex([Rule(id=1, name="rule", path="/elsewhere")])
    own = urlconf(path("elsewhere/", login))
    assert rules_for(index, resolve("/signin/"), "GET") == ()
    set_urlconf(own)
    try:
        assert rules_for(index, resolve("/elsewhere/", own), "GET")
    finally:
        set_urlconf(None)
    assert rules_for(index, resolve("/signin/"), "GET") == ()


def test_routes_that_changed_are_read_anew() -> None:
    urls = urlconf(path("old/", login))
    index = RouteIndex([Rule(id=1, name="rule", path="/new")])
    with override_settings(ROOT_URLCONF=urls):
        assert not rules_for(index, resolve("/old/"), "GET")
        urls.urlpatterns += (path("new/", login),)  # type: ignore[attr-defined]
        clear_url_caches()
        assert rules_for(index, resolve("/old/"), "GET")


def test_a_site_with_many_hosts_has_one_map_of_the_routes_of_each() -> None:
    hosts = [urlconf(path("own/", login)) for _ in range(100)]
    first = [routes_of(host) for host in hosts]
    assert [routes_of(host) for host in hosts] == first


def test_every_route_is_listed_in_the_sites_own_language() -> None:
    with override("de"):
        listed = {endpoint.route: endpoint for endpoint in route_map().endpoints}
    here = __name__
    assert list(listed)[:3] == ["api/login/", "api/search/", "api/find/"]
    assert listed["api/login/"].view_names == {"v1:login", "api:login"}
    assert listed["api/login/"].view_path == f"{here}.login"
    assert listed["api/search/"].view_path == f"{here}.Search"
    assert listed[r"api/reports/(?P<number>\d+)/?$"].view_names == {
        f"v1:{here}.report",
        f"api:{here}.report",
    }
    assert listed["about/"].view_names == {"about"}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_ratelimit_tiers.policy.routes.REMEMBERED_VIEWS", 1)
    monkeypatch.setattr("django_ratelimit_tiers.policy.routemaps.REMEMBERED_PATTERNS", 1)
    index = RouteIndex(
        [Rule(id=1, name="a", path="/api/login"), Rule(id=2, name="b", path="/api/*")]
    )
    for _ in range(2):
        assert len(rules_for(index, resolve("/api/login/"), "GET")) == 2
        assert len(rules_for(index, resolve("/api/find/"), "GET")) == 1


words = st.sampled_from(["a", "b", "A", "12", "0012", "a-b", "a.json", "", "\u0661"])
literals = ["a/", "b/", "a", "b/a/", "12/"]
captures = ["a/<int:x>/", "b/<slug:x>", "a<path:x>", "b/<str:x>/"]
regexes = [r"(?i)^a/?$", r"^b/(?P<x>\d+)/?$", r"^a(?P<x>.*)$", r"a/b", r"^(?:a|b)/+$", r"b$"]
views = st.sampled_from([login, item, keys, page])
leaf_patterns = st.one_of(
    st.builds(path, st.sampled_from([*literals, *captures]), views),
    st.builds(re_path, st.sampled_from(regexes), views),
)
included = st.builds(
    lambda begin, inner: begin(include(inner)),
    st.sampled_from(
        [
            lambda to: path("a/", to),
            lambda to: path("b/<int:y>/", to),
            lambda to: path("", to),
            lambda to: re_path(r"", to),
            lambda to: re_path(r"^(?i:a)/", to),
            lambda to: re_path(r"b/?", to),
        ]
    ),
    st.lists(leaf_patterns, min_size=1, max_size=3),
)
resolvers = st.lists(leaf_patterns | included, min_size=1, max_size=5).map(
    lambda patterns: URLResolver(RegexPattern(r"^/"), patterns)
)
paths = st.lists(words, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def resolved(resolver: URLResolver, spelling: str) -> Any:
    try:
        return view_identity(resolver.resolve(spelling).func)
    except Resolver404:
        return None


@given(resolvers, paths)
def test_a_literal_rule_is_exactly_on_what_the_resolver_finds(
    resolver: URLResolver, rule: str
) -> None:
    pattern = parse_pattern(rule)
    found = {resolved(resolver, spelling) for spelling in {str(pattern), str(pattern) + "/"}}
    if str(pattern).endswith("/"):
        found = {resolved(resolver, str(pattern))}
    assert RouteMap(resolver).reached_views(pattern) == found - {None}


@given(resolvers, paths, st.data())
def test_a_rule_with_wildcards_is_on_every_view_that_the_resolver_finds_below_it(
    resolver: URLResolver, spelling: str, data: st.DataObject
) -> None:
    parts: Sequence[str] = parse_pattern(spelling).segments
    cut = data.draw(st.integers(0, len(parts)))
    stars = data.draw(st.lists(st.booleans(), min_size=cut, max_size=cut))
    kept = tuple("*" if star else part for star, part in zip(stars, parts, strict=False))
    view_found = resolved(resolver, spelling)
    if view_found is not None:
        pattern = Pattern(kept, rest=cut < len(parts) or not any(stars))
        assert view_found in RouteMap(resolver).reached_views(pattern)
