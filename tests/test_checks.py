"""Every wrong setting is found at start, with an id and a hint that says what would be right."""

from __future__ import annotations

import sys
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.core.checks.registry import registry
from django.test import override_settings
from django_redis.cache import RedisCache

from django_ratelimit_tiers.checks import check_settings
from django_ratelimit_tiers.conf import DEFAULTS, EVENT_DEFAULTS, conf
from django_ratelimit_tiers.middleware import RateLimitMiddleware
from django_ratelimit_tiers.models import AlertNotice
from django_ratelimit_tiers.policy.conditions import coverage_findings
from django_ratelimit_tiers.shapes import EVENT_SHAPES, SHAPES
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.redis import RedisStore

SHARDED = "django_redis.client.ShardClient"

MINE = "django_ratelimit_tiers.middleware.RateLimitMiddleware"


@pytest.fixture(autouse=True)
def mended_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run with versions of Django, too, that W004 warns of."""
    tell_version(monkeypatch, (6, 1, 0))


def tell_version(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]) -> None:
    """Tell the checks another version of Django, and nobody else: the REST framework asks, too."""
    told = SimpleNamespace(VERSION=(*version, "final", 0))
    monkeypatch.setattr("django_ratelimit_tiers.checks.django", told)


def found(**values: Any) -> list[tuple[str, str, str]]:
    """Return id, message and hint of everything that is wrong with these settings."""
    with override_settings(RATELIMIT_TIERS=values):
        return [(str(one.id), one.msg, str(one.hint)) for one in check_settings()]


def ids(**values: Any) -> list[str]:
    return [identity.removeprefix("ratelimit_tiers.") for identity, _, _ in found(**values)]


def test_the_check_is_registered_among_those_of_security() -> None:
    assert check_settings in registry.get_checks()
    assert checks.Tags.security in check_settings.tags


def test_the_settings_of_the_test_project_are_right() -> None:
    assert check_settings() == []


def test_every_default_is_right_and_every_key_has_one() -> None:
    defaults = {**DEFAULTS, "EVENTS": EVENT_DEFAULTS, "TRUSTED_PROXIES": ["127.0.0.1"]}
    assert ids(**defaults) == []
    assert SHAPES.keys() == DEFAULTS.keys()
    assert EVENT_SHAPES.keys() == EVENT_DEFAULTS.keys()


def test_missing_settings_mean_the_defaults() -> None:
    with override_settings():
        from django.conf import settings  # noqa: PLC0415

        del settings.RATELIMIT_TIERS
        assert check_settings() == []
        assert conf.KEY_PREFIX == "rlt"
        assert conf.EVENTS == EVENT_DEFAULTS
    with pytest.raises(AttributeError, match="UNHEARD"):
        _ = conf.UNHEARD


@pytest.mark.parametrize("value", [None, [], "off", 1])
def test_e001_settings_that_are_no_dict(value: Any) -> None:
    with override_settings(RATELIMIT_TIERS=value):
        (error,) = check_settings()
    assert error == checks.Error(
        "RATELIMIT_TIERS must be a dict.",
        hint="Write it like RATELIMIT_TIERS = {'STORE_TIMEOUT': 0.1}.",
        id="ratelimit_tiers.E001",
    )


def test_e002_an_unknown_key() -> None:
    (error,) = found(STORE_TIMEUOT=1)
    assert error[0] == "ratelimit_tiers.E002"
    assert error[1] == "RATELIMIT_TIERS has an unknown key 'STORE_TIMEUOT'."
    assert "STORE_TIMEOUT" in error[2]


def test_e002_an_unknown_key_of_the_events() -> None:
    (error,) = found(EVENTS={"SAMPEL": 1})
    assert error[:2] == (
        "ratelimit_tiers.E002",
        "RATELIMIT_TIERS['EVENTS'] has an unknown key 'SAMPEL'.",
    )
    assert "SAMPLE" in error[2]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"STORE_TIMEUOT": 1}, "Did you mean 'STORE_TIMEOUT'? The keys are: ENABLED, "),
        ({"enabled": False}, "Did you mean 'ENABLED'? The keys are: "),
        ({"RECIPIENTS": []}, "RECIPIENTS belongs in RATELIMIT_TIERS['EVENTS']. The keys are: "),
        ({"EVENTS": {"HEADERS": []}}, "HEADERS belongs in RATELIMIT_TIERS. The keys are: SAMPLE, "),
        ({"EVENTS": {"SAMPEL": 1}}, "Did you mean 'SAMPLE'? The keys are: "),
        ({"COLOUR": "red"}, "The keys are: "),
    ],
)
def test_e002_the_hint_names_what_was_probably_meant(values: dict[str, Any], hint: str) -> None:
    (error,) = found(**values)
    assert error[0] == "ratelimit_tiers.E002"
    assert error[2].startswith(hint)


def test_e002_a_key_that_is_no_text() -> None:
    with override_settings(RATELIMIT_TIERS={5: 1}):
        (error,) = check_settings()
    assert error.msg == "RATELIMIT_TIERS has an unknown key 5."


WRONG: list[tuple[str, Any]] = [
    ("ENABLED", "yes"),
    ("ENABLED", 1),
    ("STORE", None),
    ("STORE_OPTIONS", []),
    ("CACHE_ALIAS", None),
    ("STORE_TIMEOUT", 0),
    ("STORE_TIMEOUT", -1),
    ("STORE_TIMEOUT", "0.1"),
    ("STORE_TIMEOUT", True),
    ("STORE_TIMEOUT", float("nan")),
    ("STORE_TIMEOUT", 60.1),
    ("STORE_TIMEOUT", 10**9),
    ("KEY_PREFIX", ""),
    ("KEY_PREFIX", "a{b}"),
    ("KEY_PREFIX", "x" * 65),
    ("KEY_PREFIX", "a}"),
    ("KEY_PREFIX", "a\nb"),
    ("TRUSTED_PROXIES", "10.0.0.0/8"),
    ("TRUSTED_PROXIES", ["10.0.0.0/33"]),
    ("TRUSTED_PROXIES", ["10.0.0.1/8"]),
    ("TRUSTED_PROXIES", [1]),
    ("TRUSTED_PROXIES", [None]),
    ("TRUSTED_PROXIES", [["10.0.0.0/8"]]),
    ("TRUSTED_PROXIES", ["10.0.0.0/8", "0.0.0.0/0"]),
    ("TRUSTED_PROXIES", ["0.0.0.0/1", "128.0.0.0/1"]),
    ("TRUSTED_PROXIES", ["::/0"]),
    ("TRUSTED_PROXIES", ["::ffff:0:0/96"]),
    ("TRUSTED_PROXIES", -1),
    ("TRUSTED_PROXIES", True),
    ("TRUSTED_PROXIES", None),
    ("CLIENT_IP_HEADER", ""),
    ("CLIENT_IP_HEADER", None),
    ("CLIENT_IP_HEADER", "HTTP_X_FORWARDED_FOR"),
    ("CLIENT_IP_HEADER", "X_Forwarded_For"),
    ("CLIENT_IP_HEADER", "X-Real-IP: "),
    ("IPV6_PREFIX", 0),
    ("IPV6_PREFIX", 129),
    ("IPV6_PREFIX", "64"),
    ("TIER_RESOLVER", ""),
    ("TIER_RESOLVER", len),
    ("FAILED_STATUSES", 401),
    ("FAILED_STATUSES", ["401"]),
    ("FAILED_STATUSES", [4]),
    ("FAILED_STATUSES", [99]),
    ("FAILED_STATUSES", [401, 600]),
    ("ON_STORE_FAILURE", "ajar"),
    ("ON_STORE_FAILURE", None),
    ("WORKERS", 0),
    ("WORKERS", 1.5),
    ("WORKERS", "4"),
    ("WORKERS", True),
    ("REFUSAL_MEMORY", -0.1),
    ("REFUSAL_MEMORY", 1.1),
    ("REFUSAL_MEMORY", None),
    ("REFUSAL_MEMORY", True),
    ("HEADERS", "x-ratelimit"),
    ("HEADERS", ["x-rate-limit"]),
    ("HEADERS", [["x-ratelimit"]]),
    ("RESPONSE", ""),
    ("EVENTS", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_e003_a_value_of_the_wrong_form(key: str, value: Any) -> None:
    (error,) = found(**{key: value})
    assert error[:2] == ("ratelimit_tiers.E003", f"RATELIMIT_TIERS[{key!r}] is wrong.")
    assert error[2].startswith("Make it ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SAMPLE", -1),
        ("SAMPLE", 10**20),
        ("CARDINALITY", 0),
        ("COUNT_TTL", 1),
        ("COUNT_TTL", 10**15),
        ("RETENTION_DAYS", 0),
        ("RETENTION_DAYS", 10**9),
        ("RECIPIENTS", "ops@example.org"),
        ("RECIPIENTS", ["ops"]),
        ("WEBHOOK", ""),
        ("WEBHOOK", "hooks.example.org"),
        ("WEBHOOK", "ftp://hooks.example.org/"),
        ("WEBHOOK", "https://user:password@hooks.example.org/"),
        ("WEBHOOK", "https://hooks.example.org:99999/"),
        ("WEBHOOK", "https://hooks.example.org:port/"),
        ("WEBHOOK", "https://hooks.example.org/a b"),
        ("WEBHOOK", "https://hooks.example.org/\n"),
        ("WEBHOOK", "https://hooks.example.org/caf\u00e9"),
        ("WEBHOOK", "https://hooks.example.org/" + "x" * 500),
        ("WEBHOOK", 1),
        ("WEBHOOK_SECRET", None),
        ("LOG_PER_SECOND", 0),
        ("COUNT_TTL", 299),
        ("COUNT_TTL", 30 * 86_400 + 1),
        ("WEBHOOK", "https://user@hooks.example.org/"),
        ("WEBHOOK", "https:///hooks"),
    ],
)
def test_e003_a_value_of_the_events_of_the_wrong_form(key: str, value: Any) -> None:
    (error,) = found(EVENTS={key: value})
    assert error[:2] == ("ratelimit_tiers.E003", f"RATELIMIT_TIERS['EVENTS'][{key!r}] is wrong.")
    assert error[2].startswith("Make it ")


@pytest.mark.parametrize(
    "values",
    [
        {"STORE_TIMEOUT": 60, "REFUSAL_MEMORY": 0, "WORKERS": 1, "IPV6_PREFIX": 1},
        {"REFUSAL_MEMORY": 1, "IPV6_PREFIX": 128, "KEY_PREFIX": "x" * 64, "HEADERS": ()},
        {"FAILED_STATUSES": [100, 599], "TRUSTED_PROXIES": 0},
        {"TRUSTED_PROXIES": 1, "CLIENT_IP_HEADER": "X" * 64},
        {"TRUSTED_PROXIES": ["0.0.0.0/1", "8000::/1"]},
        {"EVENTS": {"SAMPLE": 0, "CARDINALITY": 1, "COUNT_TTL": 300, "LOG_PER_SECOND": 1}},
        {"EVENTS": {"COUNT_TTL": 30 * 86_400, "WEBHOOK": "http://chat:8080/hook"}},
    ],
)
def test_values_at_their_limits_are_right(values: dict[str, Any]) -> None:
    assert found(**values) == []


def test_a_webhook_is_as_long_at_most_as_the_database_can_keep() -> None:
    longest = "https://hooks.example.org/".ljust(
        AlertNotice._meta.get_field("target").max_length, "x"
    )
    assert ids(EVENTS={"WEBHOOK": longest}) == []
    assert ids(EVENTS={"WEBHOOK": longest + "x"}) == ["E003"]


@pytest.mark.parametrize("key", ["TIER_RESOLVER", "API_KEY_RESOLVER", "VERIFIED_TEST", "RESPONSE"])
@pytest.mark.parametrize("path", ["nowhere.nothing", "tests.site.missing", "word", "a..b", "."])
def test_e004_a_dotted_path_that_leads_nowhere(key: str, path: str) -> None:
    (error,) = found(**{key: path})
    assert error[:2] == (
        "ratelimit_tiers.E004",
        f"RATELIMIT_TIERS[{key!r}] names nothing that can be called: {path!r}.",
    )
    assert error[2].startswith("Correct the dotted path: ")


def test_e004_a_store_whose_client_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django_ratelimit_tiers.store.redis")
    monkeypatch.setitem(sys.modules, "django_redis", None)
    (error,) = found(STORE="django_ratelimit_tiers.store.redis.RedisStore")
    assert error[0] == "ratelimit_tiers.E004"
    assert error[2].startswith("Install django-ratelimit-tiers[redis]")


def test_e004_a_dotted_path_to_what_cannot_be_called() -> None:
    (error,) = found(RESPONSE="tests.site.RUNS")
    assert (error[0], error[2]) == ("ratelimit_tiers.E004", "Name a function or a class.")


def takes_nothing() -> None: ...


def takes_one(_one: object) -> None: ...


def takes_one_or_two(_one: object, _two: object = None) -> None: ...


async def takes_two(_one: object, _two: object) -> None: ...


class Resolver:
    def __call__(self, _one: object) -> None: ...


takes_one_by_call = Resolver()


@wraps(takes_two)
def takes_one_and_adds_another(one: object) -> Any:
    return takes_two(one, "added")


@pytest.mark.parametrize(
    ("key", "function"),
    [
        ("TIER_RESOLVER", "takes_nothing"),
        ("API_KEY_RESOLVER", "takes_two"),
        ("VERIFIED_TEST", "takes_nothing"),
        ("RESPONSE", "takes_one"),
        ("RESPONSE", "takes_one_by_call"),
    ],
)
def test_e008_a_function_that_takes_other_arguments(key: str, function: str) -> None:
    (error,) = found(**{key: f"{__name__}.{function}"})
    assert error[0] == "ratelimit_tiers.E008"
    assert error[1].startswith(f"RATELIMIT_TIERS[{key!r}] cannot be called with (")
    assert error[2].startswith("Write it like def ")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("TIER_RESOLVER", f"{__name__}.takes_one"),
        ("TIER_RESOLVER", f"{__name__}.takes_one_by_call"),
        ("TIER_RESOLVER", f"{__name__}.takes_one_and_adds_another"),
        ("API_KEY_RESOLVER", f"{__name__}.takes_one_or_two"),
        ("VERIFIED_TEST", "builtins.bool"),
        ("RESPONSE", f"{__name__}.takes_two"),
        ("RESPONSE", f"{__name__}.takes_one_or_two"),
    ],
)
def test_a_function_that_takes_what_it_is_called_with_is_right(key: str, path: str) -> None:
    assert ids(**{key: path}) == []


@pytest.mark.parametrize(
    ("store", "options"),
    [
        ("django_ratelimit_tiers.store.redis.RedisStore", {"uri": "redis://localhost"}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {"url": "localhost:6379"}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {"url": "redis://h/abc"}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {"url": "redis://h/1/2"}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {"url": "redis://h/-1"}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {"url": "redis://h#3"}),
        ("django_ratelimit_tiers.store.redis.RedisStore", {"url": "redis://h", "timeout": "1"}),
        ("django_ratelimit_tiers.store.memory.MemoryStore", {"most": 1}),
    ],
)
def test_e004_a_store_that_does_not_take_its_options(store: str, options: dict[str, Any]) -> None:
    (error,) = found(STORE=store, STORE_OPTIONS=options)
    assert error[0] == "ratelimit_tiers.E004"
    assert error[2].startswith("Correct STORE_OPTIONS: ")


def test_e004_a_password_that_is_taken_for_a_port_is_not_told() -> None:
    options = {"url": "redis://:se/cret@localhost:6379"}
    (error,) = found(STORE="django_ratelimit_tiers.store.redis.RedisStore", STORE_OPTIONS=options)
    assert "its port is no number. In a password write %2F for /" in error[2]
    assert "'se'" not in error[2]


@pytest.mark.parametrize("password", ["a[secret]b", "secret\N{FULLWIDTH SOLIDUS}b"])
def test_no_check_tells_a_password_that_makes_a_url_unreadable(password: str) -> None:
    url = f"redis://:{password}@localhost:6379/0"
    problems = found(
        STORE="django_ratelimit_tiers.store.redis.RedisStore", STORE_OPTIONS={"url": url}
    )
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}
    with override_settings(CACHES={"default": cache}):
        problems += found()
    assert len(problems) == 2
    for *_, hint in problems:
        assert "In a password write %5B for [" in hint
        assert "secret" not in hint


def test_e004_a_store_by_another_name_is_told_which_there_are() -> None:
    (error,) = found(STORE="redis")
    assert error[0] == "ratelimit_tiers.E004"
    assert "Name 'auto', 'django_ratelimit_tiers.store.redis.RedisStore', " in error[2]


def test_e004_a_class_that_makes_no_store() -> None:
    (error,) = found(STORE="django.http.HttpResponse")
    assert error == (
        "ratelimit_tiers.E004",
        "RATELIMIT_TIERS['STORE'] makes no store.",
        "Name a subclass of django_ratelimit_tiers.store.base.Store.",
    )


def test_e004_options_for_a_store_that_is_not_named() -> None:
    (error,) = found(STORE_OPTIONS={"url": "redis://localhost"})
    assert error[0] == "ratelimit_tiers.E004"
    assert error[2] == "Name the store that takes them in STORE, or leave them out."


def test_e005_an_alias_that_no_cache_has() -> None:
    (error,) = found(CACHE_ALIAS="limits")
    assert error == (
        "ratelimit_tiers.E005",
        "RATELIMIT_TIERS['CACHE_ALIAS'] names no cache: 'limits'.",
        "Add it to CACHES, or name one of: default.",
    )


@pytest.mark.parametrize(
    ("cache", "hint"),
    [
        ({"LOCATION": "localhost:6379"}, "Correct it: Redis URL must specify one of the following"),
        ({"LOCATION": "redis://:se/cret@localhost"}, "Correct it: its port is no number."),
        ({"LOCATION": "redis://localhost:99999"}, "Correct it: Port out of range 0-65535."),
        ({"LOCATION": ""}, "Correct it: Missing connections string."),
        ({}, "Correct it: Missing connections string."),
        (
            {"LOCATION": "redis://localhost", "OPTIONS": {"CLIENT_CLASS": "nowhere.Client"}},
            "Correct it: No module named 'nowhere'.",
        ),
        (
            {
                "LOCATION": "redis://a",
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.ShardClient"},
            },
            "Its client has no server of its own: name another cache in CACHE_ALIAS.",
        ),
    ],
)
def test_e007_a_cache_that_names_no_server(cache: dict[str, Any], hint: str) -> None:
    cache = {"BACKEND": "django_redis.cache.RedisCache", **cache}
    with override_settings(CACHES={"default": cache}):
        (error,) = found()
    assert error[:2] == (
        "ratelimit_tiers.E007",
        "CACHES['default'] names no server that counters can be kept on.",
    )
    assert error[2].startswith(hint)


@pytest.mark.parametrize(
    "location", ["redis://h/abc", "redis://h/1,redis://i/1x", ["redis://h/1/2"]]
)
def test_e007_a_database_that_is_no_number(location: Any) -> None:
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}
    with override_settings(CACHES={"default": cache}):
        (error,) = found()
    assert error[0] == "ratelimit_tiers.E007"
    assert "its database must be a number, as in redis://host:6379/1" in error[2]


def test_without_limits_a_cache_needs_no_server() -> None:
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": ""}
    with override_settings(CACHES={"default": cache}):
        assert [error[0] for error in found()] == ["ratelimit_tiers.E007"]
        assert found(ENABLED=False) == []


def test_e007_a_cache_whose_client_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django_ratelimit_tiers.store.redis")
    monkeypatch.setitem(sys.modules, "django_redis", None)
    (error,) = found()
    assert error[0] == "ratelimit_tiers.E007"
    assert error[2].startswith("Install django-ratelimit-tiers[redis]")


def test_e006_the_middleware_is_installed_twice() -> None:
    with override_settings(MIDDLEWARE=[MINE, MINE]):
        (error,) = found()
    assert error == (
        "ratelimit_tiers.E006",
        "The rate limit middleware is installed more than once.",
        "Keep the first entry in MIDDLEWARE.",
    )


class OwnLimits(RateLimitMiddleware):
    """The middleware as a project changes it."""


class Visitors(SessionMiddleware):
    """Sessions under a name that does not say so."""


class AuthorMiddleware:
    """Names the author of a page, and authenticates nobody."""


OWN = f"{__name__}.OwnLimits"


def test_e006_the_middleware_is_installed_beside_one_derived_from_it() -> None:
    with override_settings(MIDDLEWARE=[OWN, MINE]):
        assert ids() == ["E006"]


@pytest.mark.parametrize("path", [MINE, OWN])
def test_a_middleware_derived_from_ours_is_installed(path: str) -> None:
    with override_settings(MIDDLEWARE=[path]):
        assert list(coverage_findings()) == []
        assert found() == []


@pytest.mark.parametrize("path", ["tests.site.no_user", "nowhere.Middleware", f"{__name__}.gone"])
def test_middleware_that_is_no_class_or_cannot_be_imported_is_not_ours(path: str) -> None:
    with override_settings(MIDDLEWARE=[path]):
        [finding] = coverage_findings()
        assert finding.text.startswith("The middleware is not installed: ")
    with override_settings(MIDDLEWARE=[path, MINE]):
        assert found() == []


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "redis.RedisCache"])
def test_w001_counters_in_the_memory_of_each_process(backend: str) -> None:
    memory = {"default": {"BACKEND": f"django.core.cache.backends.{backend}"}}
    with override_settings(CACHES=memory):
        (warning,) = found()
        assert ids(STORE="django_ratelimit_tiers.store.memory.MemoryStore") == []
    assert warning[0] == "ratelimit_tiers.W001"
    assert "django_redis.cache.RedisCache" in warning[2]
    assert "make STORE 'django_ratelimit_tiers.store.redis.RedisStore'" in warning[2]


class MeasuredCache(RedisCache):
    """A cache of django-redis under another name, as monitoring packages have it."""


def test_a_cache_derived_from_that_of_django_redis_serves_as_well(redis_url: str) -> None:
    derived = {"BACKEND": "tests.test_checks.MeasuredCache", "LOCATION": redis_url}
    with override_settings(CACHES={"default": derived}):
        assert found() == []
        assert isinstance(configured_store(), RedisStore)


def test_w001_a_cache_that_cannot_be_imported() -> None:
    with override_settings(CACHES={"default": {"BACKEND": "nowhere.Cache"}}):
        assert ids() == ["W001"]


@pytest.mark.parametrize(
    "earlier",
    [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.PersistentRemoteUserMiddleware",
        "allauth.account.middleware.AccountAuthMiddleware",
        "nowhere.OAuth2TokenMiddleware",
        "tests.test_checks.Visitors",
    ],
)
@pytest.mark.parametrize("mine", [MINE, OWN])
def test_w002_sessions_or_authentication_come_first(earlier: str, mine: str) -> None:
    with override_settings(MIDDLEWARE=[earlier, mine]):
        (warning,) = found()
    assert warning[0] == "ratelimit_tiers.W002"
    assert earlier in warning[1]
    assert f"Put {mine} first in MIDDLEWARE" in warning[2]


@pytest.mark.parametrize(
    "path",
    [
        "django.middleware.security.SecurityMiddleware",
        "cors.CorsMiddleware",
        "shop.authors.middleware.LanguageMiddleware",
        "company.auth.middleware.RequestIdMiddleware",
        "tests.test_checks.AuthorMiddleware",
    ],
)
def test_other_middleware_may_come_first(path: str) -> None:
    with override_settings(MIDDLEWARE=[path, MINE]):
        assert found() == []
    with override_settings(MIDDLEWARE=[path]):
        assert found() == []


@pytest.mark.parametrize("proxies", [{}, {"TRUSTED_PROXIES": []}, {"TRUSTED_PROXIES": 0}])
def test_w003_a_header_that_nobody_is_trusted_to_send(proxies: dict[str, Any]) -> None:
    (warning,) = found(CLIENT_IP_HEADER="X-Real-IP", **proxies)
    assert warning == (
        "ratelimit_tiers.W003",
        "RATELIMIT_TIERS['CLIENT_IP_HEADER'] is never read: no proxy is trusted.",
        "Name the networks of your proxies in TRUSTED_PROXIES, or leave the header out.",
    )
    assert ids(CLIENT_IP_HEADER="X-Real-IP", TRUSTED_PROXIES=1) == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((5, 2, 12), ["W004"]),
        ((5, 2, 13), []),
        ((6, 0, 3), ["W004"]),
        ((6, 0, 4), []),
        ((6, 1, 0), []),
    ],
)
def test_w004_a_django_that_lets_clients_write_what_a_proxy_tells(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], expected: list[str]
) -> None:
    tell_version(monkeypatch, version)
    assert ids(TRUSTED_PROXIES=["10.0.0.0/8"]) == expected
    assert ids() == []
