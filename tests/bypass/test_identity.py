"""Nobody becomes somebody else, or many, by headers, keys, accounts or addresses."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.authtoken.models import Token

from django_ratelimit_tiers.core.policies import Algorithm, counter_id
from django_ratelimit_tiers.models import ServiceAccount
from django_ratelimit_tiers.store.protocol import Protocol
from testproject.api_keys import issue_key
from tests.policies import ANYBODY, limit_tier, make_rule, used

LIMIT = 3
TOO_MANY = range(LIMIT + 2)
STOPPED = [200] * LIMIT + [429] * 2


def everything_in(client: redis.Redis) -> Iterator[bytes]:
    """Yield every key and value of a Valkey."""
    for name in client.scan_iter("*"):
        yield name
        match client.type(name):
            case b"hash":
                yield repr(client.hgetall(name)).encode()
            case b"list":
                yield repr(client.lrange(name, 0, -1)).encode()
            case b"zset":
                yield repr(client.zrange(name, 0, -1)).encode()
            case b"set":
                yield repr(client.smembers(name)).encode()
            case b"string":
                yield client.get(name)
            case kind:
                raise AssertionError(f"{name!r} is a {kind!r}: read it here, too")


@pytest.mark.django_db
class TestAddresses:
    @pytest.fixture(autouse=True)
    def limits(self) -> None:
        limit_tier("anonymous", LIMIT)

    @pytest.mark.parametrize(
        "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "Client-IP"]
    )
    def test_an_address_that_the_client_claims_counts_for_nothing(
        self, client: Client, header: str
    ) -> None:
        claims = [{header: f"192.0.2.{n}"} for n in TOO_MANY]
        assert [client.get("/plain/", headers=h).status_code for h in claims] == STOPPED

    @override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": ["127.0.0.1", "10.0.0.0/8"]})
    def test_behind_a_proxy_what_the_client_adds_before_counts_for_nothing(
        self, client: Client
    ) -> None:
        claims = [{"X-Forwarded-For": f"192.0.2.{n}, 198.51.100.9, 10.1.1.1"} for n in TOO_MANY]
        assert [client.get("/plain/", headers=h).status_code for h in claims] == STOPPED

    @override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": ["127.0.0.1"]})
    def test_behind_a_proxy_two_clients_are_two(self, client: Client) -> None:
        for n in TOO_MANY:
            headers = {"X-Forwarded-For": f"198.51.100.{n}"}
            assert client.get("/plain/", headers=headers).status_code == 200

    def test_the_addresses_of_one_site_of_ipv6_are_one_client(self, client: Client) -> None:
        addresses = [f"2001:db8:0:7:{n:x}::1" for n in TOO_MANY]
        found = [client.get("/plain/", REMOTE_ADDR=a).status_code for a in addresses]
        assert found == STOPPED

    @pytest.mark.parametrize("peer", ["", None])
    def test_peers_without_an_address_are_one_client(
        self, client: Client, peer: str | None
    ) -> None:
        found = [client.get("/plain/", REMOTE_ADDR=peer).status_code for _ in TOO_MANY]
        assert found == STOPPED

    def test_an_ipv4_address_in_ipv6_clothes_is_the_same_client(self, client: Client) -> None:
        addresses = ["192.0.2.9", "::ffff:192.0.2.9", "::ffff:c000:209", "192.0.2.9", "192.0.2.9"]
        found = [client.get("/plain/", REMOTE_ADDR=a).status_code for a in addresses]
        assert found == STOPPED


def basic_authentication(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Log in by name and password, as sites do whose clients are programs."""

    def middleware(request: HttpRequest) -> HttpResponse:
        encoded = request.headers.get("Authorization", "").removeprefix("Basic ")
        name, _, password = b64decode(encoded).decode().partition(":")
        request.user = authenticate(request, username=name, password=password) or request.user
        return get_response(request)

    return middleware


def turning_away(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Answer wrong passwords before any view, as middleware for programs does."""

    def middleware(request: HttpRequest) -> HttpResponse:
        encoded = request.headers.get("Authorization", "").removeprefix("Basic ")
        name, _, password = b64decode(encoded).decode().partition(":")
        request.user = authenticate(request, username=name, password=password)
        return HttpResponse(status=401) if request.user is None else get_response(request)

    return middleware


@pytest.mark.django_db
class TestKeysAndAccounts:
    @pytest.mark.parametrize("left", [1, 100])
    @pytest.mark.parametrize("count", ["failed", "all"])
    @pytest.mark.parametrize(
        ("named", "asked"),
        [
            ({"view_name": "report"}, "/api/reports/sales/"),
            ({"path": "/api/reports/*"}, "/api/REPORTS/sales/"),
        ],
    )
    def test_guesses_that_middleware_turns_away_count_for_the_rules_on_the_view(
        self, client: Client, left: int, count: str, named: dict[str, str], asked: str
    ) -> None:
        User.objects.create_user("ada", password="right")
        limit_tier("anonymous", left)
        make_rule("guesses", LIMIT, count=count, **named)
        guesses = [b64encode(f"ada:{guess}".encode()).decode() for guess in (*TOO_MANY, "right")]
        with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, f"{__name__}.turning_away"]):
            answers = [
                client.get(asked, headers={"Authorization": f"Basic {guess}"}).status_code
                for guess in guesses
            ]
        assert answers[-1] == 429

    @pytest.mark.parametrize("count", ["failed", "all"])
    def test_who_has_used_up_its_tier_guesses_no_passwords_past_a_rule(
        self, client: Client, valkey_client: redis.Redis, count: str
    ) -> None:
        User.objects.create_user("ada", password="right")
        limit_tier("anonymous", 1)
        make_rule("plain", LIMIT, count=count)
        guesses = [b64encode(f"ada:{guess}".encode()).decode() for guess in (*TOO_MANY, "right")]
        middleware = [*settings.MIDDLEWARE, f"{__name__}.basic_authentication"]
        with override_settings(MIDDLEWARE=middleware):
            answers = [
                client.get("/plain/", headers={"Authorization": f"Basic {guess}"})
                for guess in guesses
            ]
        assert answers[-1].status_code == 429
        assert used(valkey_client)[ANYBODY][-1] == LIMIT

    @pytest.mark.parametrize(
        "own", [{"RESPONSE": "tests.site.teapot"}, {"FAILED_STATUSES": [401, 403]}], ids=str
    )
    def test_guesses_past_a_used_up_tier_count_as_failed_whatever_status_refuses_them(
        self, client: Client, valkey_client: redis.Redis, own: dict[str, object]
    ) -> None:
        User.objects.create_user("ada", password="right")
        limit_tier("anonymous", 1)
        make_rule("plain", LIMIT, count="failed")
        guesses = [b64encode(f"ada:{guess}".encode()).decode() for guess in (*TOO_MANY, "right")]
        middleware = [*settings.MIDDLEWARE, f"{__name__}.basic_authentication"]
        with override_settings(MIDDLEWARE=middleware, RATELIMIT_TIERS=own):
            answers = [
                client.get("/plain/", headers={"Authorization": f"Basic {guess}"})
                for guess in guesses
            ]
        assert answers[-1].status_code in (418, 429)
        assert used(valkey_client)[ANYBODY][-1] == LIMIT

    def test_keys_that_nobody_verified_count_as_their_address(
        self, client: Client, valkey_client: redis.Redis
    ) -> None:
        limit_tier("anonymous", LIMIT)
        keys = [{"X-API-Key": f"guess{n}.secret"} for n in TOO_MANY]
        assert [client.get("/plain/", headers=h).status_code for h in keys] == STOPPED
        assert used(valkey_client) == {ANYBODY: [LIMIT]}

    def test_tokens_that_do_not_hold_count_as_their_address(self, client: Client) -> None:
        limit_tier("anonymous", LIMIT)
        tokens = [{"Authorization": f"Token {n}"} for n in TOO_MANY]
        found = [client.get("/api/search/", headers=h).status_code for h in tokens]
        assert found == [401] * LIMIT + [429] * 2

    @pytest.mark.parametrize("count", ["failed", "all"])
    def test_who_has_used_up_its_tier_guesses_no_tokens_past_a_rule(
        self, client: Client, valkey_client: redis.Redis, count: str
    ) -> None:
        limit_tier("anonymous", 1)
        make_rule("guesses", LIMIT, path="/api/search/", count=count)
        tokens = [{"Authorization": f"Token {n}"} for n in TOO_MANY]
        found = [client.get("/api/search/", headers=h).status_code for h in tokens]
        assert found == [401] + [429] * 4
        assert used(valkey_client) == {ANYBODY: [1, LIMIT]}
        right = Token.objects.create(user=User.objects.create_user("ada"))
        headers = {"Authorization": f"Token {right.key}"}
        assert client.get("/api/search/", headers=headers).status_code == 429

    def test_the_keys_of_one_user_share_the_users_limit(self, client: Client) -> None:
        limit_tier("free", LIMIT)
        user = User.objects.create_user("ada")
        keys = [{"X-API-Key": issue_key(user)} for _ in TOO_MANY]
        assert [client.get("/api/search/", headers=h).status_code for h in keys] == STOPPED

    def test_other_addresses_do_not_help_one_user(self, client: Client) -> None:
        limit_tier("free", LIMIT)
        client.force_login(User.objects.create_user("ada"))
        addresses = [f"192.0.2.{n}" for n in TOO_MANY]
        found = [client.get("/plain/", REMOTE_ADDR=a).status_code for a in addresses]
        assert found == STOPPED

    def test_other_accounts_do_not_help_one_address(self, client: Client) -> None:
        make_rule("plain", LIMIT)
        found = []
        for n in TOO_MANY:
            client.force_login(User.objects.create_user(f"user{n}"))
            found.append(client.get("/plain/").status_code)
        assert found == STOPPED

    def test_no_secret_reaches_the_store(self, client: Client, valkey_client: redis.Redis) -> None:
        limit_tier("anonymous", 1)
        key = issue_key(User.objects.create_user("ada"))
        make_rule("plain", 1, identify_by="api_key")
        for _ in range(3):
            client.get("/plain/", headers={"X-API-Key": key, "Authorization": "Bearer s3cret"})
        stored = b"".join(everything_in(valkey_client))
        key_id, secret = key.split(".")
        assert b"enforce" in stored
        for told in (secret, key_id, "s3cret"):
            assert told.encode() not in stored


@pytest.mark.django_db
class TestServiceAccounts:
    @pytest.fixture
    def key(self) -> str:
        limit_tier("anonymous", LIMIT)
        account = ServiceAccount(
            name="crawler", owner="team search", reason="indexes", networks="10.0.0.0/8"
        )
        key = account.new_key()
        account.save()
        return key

    def found(self, client: Client, address: str, **headers: str) -> list[int]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return [
            client.get("/plain/", REMOTE_ADDR=address, headers=named).status_code for _ in TOO_MANY
        ]

    def test_the_key_exempts_where_the_account_is_at_home(self, client: Client, key: str) -> None:
        assert self.found(client, "10.1.2.3", X_API_Key=key) == [200] * 5
        assert self.found(client, "10.1.2.3", Authorization=f"Bearer {key}") == [200] * 5

    def test_a_stolen_key_is_an_ordinary_client_elsewhere(self, client: Client, key: str) -> None:
        assert self.found(client, "192.0.2.1", X_API_Key=key) == STOPPED

    def test_the_network_alone_exempts_nobody_when_there_is_a_key(
        self, client: Client, key: str
    ) -> None:
        assert self.found(client, "10.1.2.3") == STOPPED

    def test_an_address_that_a_client_claims_is_no_network(self, client: Client, key: str) -> None:
        assert self.found(client, "192.0.2.1", X_Forwarded_For="10.1.2.3", X_API_Key=key) == STOPPED

    def test_an_account_that_is_not_active_exempts_nobody(self, client: Client, key: str) -> None:
        ServiceAccount.objects.update(is_active=False)
        assert self.found(client, "10.1.2.3", X_API_Key=key) == STOPPED


@pytest.mark.django_db(transaction=True)
def test_parallel_guesses_cannot_overshoot(serve: Callable[..., str]) -> None:
    limit_tier("anonymous")
    User.objects.create_user("ada", password="right")
    make_rule("login", LIMIT, view_name="login", count="failed")
    base = serve("gunicorn", workers=2, threads=8)

    def post(password: str) -> int:
        body = json.dumps({"username": "ada", "password": password})
        headers = {"Content-Type": "application/json"}
        return httpx.post(f"{base}/api/login/", content=body, headers=headers).status_code

    with ThreadPoolExecutor(16) as pool:
        good = Counter(pool.map(post, ["right"] * 2))
        guesses = Counter(pool.map(post, ["wrong"] * 40))
    assert good == {200: 2}
    assert guesses == {401: LIMIT, 429: 40 - LIMIT}


names = st.text(max_size=40)


@given(names, names, st.sampled_from(["rlt", "a:b"]), st.sampled_from(["rlt", "a"]))
def test_no_two_keys_of_the_store_are_written_alike(
    one: str, other: str, prefix: str, other_prefix: str
) -> None:
    keys = [
        *(key(one) for key in _keys_of(prefix)),
        *(key(other) for key in _keys_of(other_prefix)),
    ]
    same = (one, prefix) == (other, other_prefix)
    assert len(set(keys)) == (len(keys) // 2 if same else len(keys))


def _keys_of(prefix: str) -> list[Callable[[str], str]]:
    protocol = Protocol(prefix)
    return [protocol.counters_key, protocol.subject_revision_key]


@given(st.integers(1, 10**6), st.integers(1, 10**6), names)
def test_a_rule_by_route_never_counts_on_another_rules_counter(
    one: int, other: int, route: str
) -> None:
    counters = {
        counter_id(counter, 60, Algorithm.FIXED_WINDOW)
        for counter in (f"r{one}/{route}", f"r{other}/{route}")
    }
    assert len(counters) == (1 if one == other else 2)
