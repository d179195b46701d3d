"""The view for monitors and the command for people: both say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from django.urls import path

from django_ratelimit_tiers.health import health
from django_ratelimit_tiers.models import EndpointRule, PolicyRevision, RulePolicy, Tier
from django_ratelimit_tiers.store.configured import configured_store
from tests.events.rows import fill_minute, key
from tests.policies import limit_tier, make_rule
from tests.servers import ValkeyProcess, free_port
from tests.site import urlpatterns as of_the_site

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [*of_the_site, path("limits/health/", health, name="health")]

REDIS_STORE = "django_ratelimit_tiers.store.redis.RedisStore"


def store_at(url: str, **options: Any) -> Any:
    options = {"url": url, "timeout": 2, **options}
    return override_settings(RATELIMIT_TIERS={"STORE": REDIS_STORE, "STORE_OPTIONS": options})


def check() -> str:
    """Return what the command says."""
    out = StringIO()
    try:
        call_command("ratelimit_check", stdout=out, no_color=True)
    except CommandError as error:
        out.write(f"{error}\n")
    return out.getvalue()


@pytest.fixture
def private_valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


def test_a_healthy_process_says_so(client: Client) -> None:
    response = client.get("/limits/health/")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "store_answers": True,
        "breaker_is_closed": True,
        "policy_is_current": True,
    }


def test_the_health_view_is_not_limited(client: Client) -> None:
    limit_tier("anonymous", 1)
    assert [client.get("/limits/health/").status_code for _ in range(3)] == [200] * 3


def test_a_process_without_its_store_says_so(client: Client) -> None:
    with store_at(f"redis://127.0.0.1:{free_port()}/0"):
        client.get("/plain/")
        response = client.get("/limits/health/")
    assert response.status_code == 503
    assert response.json() == {
        "status": "degraded",
        "store_answers": False,
        "breaker_is_closed": False,
        "policy_is_current": True,
    }


def test_a_process_with_an_old_policy_says_so(client: Client) -> None:
    client.get("/plain/")
    PolicyRevision.objects.create(model="a", reason="an edit that nobody was told of")
    assert client.get("/limits/health/").json()["policy_is_current"] is False


def test_the_command_finds_nothing_wrong_with_a_healthy_site(redis_url: str) -> None:
    with store_at(redis_url):
        said = check()
    assert "Nothing is wrong." in said
    assert "runs scripts" in said
    assert "takes charges" in said
    assert "eviction policy noeviction" in said


def test_the_command_names_the_switch_that_is_off() -> None:
    with override_settings(RATELIMIT_TIERS={"ENABLED": False}):
        assert "WRONG  Nothing is limited: ENABLED is False." in check()


def test_the_command_says_what_is_limited_without_the_middleware() -> None:
    said = "only views with TierThrottle or a decorator are limited"
    assert said not in check()
    with override_settings(MIDDLEWARE=[]):
        assert said in check()


def test_the_command_names_a_store_that_does_not_answer() -> None:
    with store_at(f"redis://127.0.0.1:{free_port()}/0"):
        said = check()
    assert "does not answer" in said
    assert "Found 1 thing to look at." in said


def test_the_command_names_an_eviction_policy_that_forgets(private_valkey: ValkeyProcess) -> None:
    with private_valkey.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    with store_at(private_valkey.url):
        assert "WRONG  The store has the eviction policy allkeys-lru." in check()


def test_the_command_allows_any_eviction_policy_where_memory_has_no_end(
    private_valkey: ValkeyProcess,
) -> None:
    with private_valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", 0)
    with store_at(private_valkey.url):
        assert "ok     The store has the eviction policy allkeys-lru." in check()


def test_the_command_names_a_store_that_forbids_scripts(private_valkey: ValkeyProcess) -> None:
    with private_valkey.client() as client:
        client.acl_setuser("limited", enabled=True, nopass=True, categories=["+@all"], keys=["*"])
        client.execute_command("ACL", "SETUSER", "limited", "-eval")
    with store_at(private_valkey.url.replace("//", "//limited:any@")):
        assert "WRONG  The store runs no scripts" in check()


@pytest.mark.parametrize("right", ["set", "setrange", "mget", "rpush", "del"])
def test_the_command_names_a_store_that_denies_what_a_charge_needs(
    private_valkey: ValkeyProcess, right: str
) -> None:
    with private_valkey.client() as client:
        client.acl_setuser("limited", enabled=True, nopass=True, categories=["+@all"], keys=["*"])
        client.execute_command("ACL", "SETUSER", "limited", f"-{right}")
    with store_at(private_valkey.url.replace("//", "//limited:any@")):
        said = check()
    assert "WRONG  The store takes no charges" in said
    assert "Found 1 thing to look at." in said


@pytest.mark.parametrize(
    ("setting", "advice"),
    [("maxmemory", "raise maxmemory"), ("min-replicas-to-write", "Look at its replicas")],
)
def test_the_command_does_not_blame_rights_for_a_server_that_is_full_or_alone(
    private_valkey: ValkeyProcess, setting: str, advice: str
) -> None:
    with private_valkey.client() as client, store_at(private_valkey.url):
        client.config_set(setting, 1)
        said = check()
    assert "WRONG  The store takes no charges" in said
    assert advice in said
    assert "rights" not in said


def test_the_command_leaves_nothing_behind(private_valkey: ValkeyProcess) -> None:
    with store_at(private_valkey.url), private_valkey.client() as client:
        check()
        assert client.keys("*check*") == []


def test_the_command_notices_that_nobody_runs_the_tasks(private_valkey: ValkeyProcess) -> None:
    with store_at(private_valkey.url):
        now = configured_store().records.now()
        fill_minute((now - 120) // 60 * 60, {key(): 3})
        assert "Nothing is wrong." in check()
        fill_minute((now - 720) // 60 * 60, {key(): 3})
        said = check()
        assert "WRONG  What was refused in a minute waits to be written." in said
        assert "manage.py ratelimit_worker" in said
        call_command("ratelimit_worker", "--once")
        assert "Nothing is wrong." in check()


def test_the_command_names_a_replica(private_valkey: ValkeyProcess) -> None:
    with private_valkey.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
    with store_at(private_valkey.url):
        assert "is a replica and takes no charges" in check()


def test_the_command_names_wrong_settings_and_looks_no_further() -> None:
    with override_settings(RATELIMIT_TIERS={"STORE_TIMEOUT": "soon"}):
        said = check()
    assert "RATELIMIT_TIERS['STORE_TIMEOUT'] is wrong" in said
    assert "nothing else was looked at" in said


def test_the_command_says_nothing_of_a_warning_that_the_site_silences(redis_url: str) -> None:
    order = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django_ratelimit_tiers.middleware.RateLimitMiddleware",
    ]
    with store_at(redis_url), override_settings(MIDDLEWARE=order):
        assert "WRONG  Sessions or authentication come before" in check()
        with override_settings(SILENCED_SYSTEM_CHECKS=["ratelimit_tiers.W002"]):
            assert "Nothing is wrong." in check()


def test_the_command_names_a_rule_that_is_not_in_force(redis_url: str) -> None:
    rule = EndpointRule.objects.create(name="broken rule", path="/plain/")
    RulePolicy.objects.bulk_create([RulePolicy(rule=rule, requests=1, period=60)])
    EndpointRule.objects.filter(pk=rule.pk).update(path="/a***b/")
    with store_at(redis_url):
        assert "WRONG  The endpoint rule 'broken rule' is not in force." in check()


def test_the_command_names_a_rule_whose_view_has_gone(redis_url: str) -> None:
    make_rule("gone", 1, view_name="no-such-view")
    make_rule("by name", 1, view_name="health")
    make_rule("by path", 1, view_name="django_ratelimit_tiers.health.health")
    with store_at(redis_url):
        said = check()
    assert "WRONG  The endpoint rule 'gone' does nothing: no view is called 'no-such-view'." in said
    assert "Found 1 thing to look at." in said


def test_the_command_names_a_rule_without_limits_that_exempts_nothing(redis_url: str) -> None:
    make_rule("empty")
    make_rule("exempt", exempt=True)
    make_rule("off", mode="off")
    with store_at(redis_url):
        said = check()
    assert "WRONG  The endpoint rule 'empty' does nothing: it has no limit" in said
    assert "Found 1 thing to look at." in said


def test_the_command_names_a_rule_that_no_request_can_pass(redis_url: str) -> None:
    bucket = {"algorithm": "token_bucket", "burst": 5}
    make_rule("dear", 2, path="/plain/", cost=5)
    make_rule("bucket", {"requests": 2, "period": 60, **bucket}, path="/plain/", cost=5)
    make_rule("exempt", 2, path="/async/", cost=5, exempt=True)
    with store_at(redis_url):
        said = check()
    assert "WRONG  The endpoint rule 'dear' cannot be passed: its cost is 5, and a limit" in said
    assert "Found 1 thing to look at." in said


def test_the_command_misses_a_tier_for_anonymous_clients(redis_url: str) -> None:
    Tier.objects.filter(slug="anonymous").update(default_for="")
    with store_at(redis_url):
        assert "No tier is the default of anonymous clients" in check()


def test_the_command_says_that_memory_is_not_shared() -> None:
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={"default": cache}):
        assert "WRONG  Limits are counted in the memory of each process." in check()


@pytest.mark.django_db(transaction=True)
def test_a_process_without_its_database_says_so_though_requests_are_atomic(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.close()
    settings = {"NAME": "/missing/database", "HOST": "127.0.0.1", "PORT": str(free_port())}
    with monkeypatch.context() as away:
        for key, value in {**settings, "ATOMIC_REQUESTS": True}.items():
            away.setitem(connection.settings_dict, key, value)
        response = client.get("/limits/health/")
    assert response.status_code == 503
    assert response.json()["policy_is_current"] is False
