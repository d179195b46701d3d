"""Who a client is taken for: user, key or address, which tier it has, and who is exempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.test.utils import isolate_apps
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from django_ratelimit_tiers import receivers
from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.models import ServiceAccount, Tier, TierAssignment
from django_ratelimit_tiers.models.choices import DefaultFor
from django_ratelimit_tiers.policy import assignments, identity
from django_ratelimit_tiers.policy.accounts import CompiledAccount, compile_accounts
from django_ratelimit_tiers.store.configured import configured_store
from tests import site
from tests.policies import ANYBODY, limit_tier, make_rule, used
from tests.samples import sampled

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

MINE = "django_ratelimit_tiers.middleware.RateLimitMiddleware"

SIZES = {"anonymous": 1000, "free": 2000, "pro": 3000, "business": 4000, "enterprise": 5000}
TIERS = {size: slug for slug, size in SIZES.items()}

VERIFIED_KEYS = {"API_KEY_RESOLVER": "tests.site.key_from_header"}

TierOf = Callable[..., str | None]


@pytest.fixture(autouse=True)
def _tiers() -> None:
    for slug, size in SIZES.items():
        limit_tier(slug, size)


@pytest.fixture(autouse=True)
def _verified_keys() -> Iterator[None]:
    with override_settings(RATELIMIT_TIERS=VERIFIED_KEYS):
        yield


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", email="anna@example.org")


@pytest.fixture
def tier_of(client: Client) -> TierOf:
    """Return the tier by which a request is limited, None when it is by none."""

    def told(user: User | None = None, path: str = "/plain/", **options: Any) -> str | None:
        if user:
            client.force_login(user)
        limit = client.get(path, **options).headers.get("X-RateLimit-Limit")
        return None if limit is None else TIERS[int(limit)]

    return told


def assign(slug: str, **fields: Any) -> TierAssignment:
    return TierAssignment.objects.create(tier=Tier.objects.get(slug=slug), **fields)


def in_group(user: User, name: str) -> Group:
    group = Group.objects.create(name=name)
    user.groups.add(group)
    return group


HOUR = timedelta(hours=1)
KEY = {"X-Key": "k1"}


def test_nobody_has_the_tier_of_anonymous_clients_and_users_that_of_users(
    tier_of: TierOf, anna: User
) -> None:
    assert tier_of() == "anonymous"
    assert tier_of(anna) == "free"


@pytest.mark.parametrize(
    ("assigned", "expected"),
    [
        ({"user", "key", "group"}, "pro"),
        ({"user", "group"}, "pro"),
        ({"key", "group"}, "business"),
        ({"group"}, "enterprise"),
        ({"key"}, "business"),
        (set(), "free"),
    ],
)
def test_user_beats_key_beats_group(
    tier_of: TierOf, anna: User, assigned: set[str], expected: str
) -> None:
    group = in_group(anna, "big")
    rows: dict[str, dict[str, Any]] = {
        "user": {"slug": "pro", "user": anna},
        "key": {"slug": "business", "api_key": "k1"},
        "group": {"slug": "enterprise", "group": group},
    }
    for name in assigned:
        assign(**rows[name])
    assert tier_of(anna, headers=KEY) == expected


def test_among_groups_the_highest_rank_wins(tier_of: TierOf, anna: User) -> None:
    for slug in ("business", "enterprise", "pro"):
        assign(slug, group=in_group(anna, slug))
    best = Tier.objects.filter(slug__in=("business", "enterprise", "pro")).order_by("-rank")[0]
    assert tier_of(anna) == best.slug


def test_an_expired_assignment_counts_for_nothing(tier_of: TierOf, anna: User) -> None:
    assign("pro", user=anna, expires_at=timezone.now() - HOUR)
    assign("business", group=in_group(anna, "big"), expires_at=timezone.now() + HOUR)
    assert tier_of(anna) == "business"


@pytest.mark.parametrize("way", ["user", "group"])
@pytest.mark.parametrize(("holds", "least", "most"), [(60, 0, 60), (3600, 300, 300)])
def test_an_assignment_is_remembered_no_longer_than_it_holds(
    anna: User, way: str, holds: int, least: int, most: int
) -> None:
    whom = {"user": anna} if way == "user" else {"group": in_group(anna, "big")}
    assign("pro", **whom, expires_at=timezone.now() + timedelta(seconds=holds))
    before = time.monotonic()
    found = assignments.AssignmentCache().look_up_user(f"user:{anna.pk}", anna, "")
    assert "pro" in (found.direct, found.through_group)
    assert before + least <= found.until <= time.monotonic() + most


@pytest.mark.django_db(transaction=True)
def test_a_tier_is_assigned_at_once_however_the_users_primary_key_is_written(
    tier_of: TierOf, anna: User
) -> None:
    assert tier_of(anna) == "free"
    assign("pro", user_id=f"0{anna.pk}")  # as a UUID without its hyphens is written differently
    assert tier_of(anna) == "pro"


def test_a_verified_key_is_a_client_of_its_own(
    client: Client, tier_of: TierOf, valkey_client: redis.Redis
) -> None:
    assign("pro", api_key="k1")
    assert tier_of(headers=KEY) == "pro"
    assert tier_of(headers={"X-Key": "k2"}) == "free"
    assert set(used(valkey_client)) == {key_digest("k1"), key_digest("k2")}


def test_a_key_made_under_an_old_secret_keeps_its_tier(tier_of: TierOf) -> None:
    with override_settings(SECRET_KEY="the old one"):
        assign("pro", api_key="k1")
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["the old one"]):
        assert tier_of(headers=KEY) == "pro"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda row, tier: (setattr(row, "tier", tier), row.save()), "business"),
        (lambda _, tier: TierAssignment.objects.update(tier=tier), "business"),
        (lambda row, _: row.delete(), "free"),
    ],
    ids=["save", "update", "delete"],
)
def test_an_edit_of_a_key_made_under_an_old_secret_is_in_force_at_once(
    tier_of: TierOf, edit: Callable[[TierAssignment, Tier], object], expected: str
) -> None:
    with override_settings(SECRET_KEY="the old one"):
        row = assign("pro", api_key="k1")
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["the old one"]):
        assert tier_of(headers=KEY) == "pro"
        edit(row, Tier.objects.get(slug="business"))
        assert tier_of(headers=KEY) == expected


@override_settings(RATELIMIT_TIERS={})
def test_a_key_that_nobody_verified_counts_as_its_address(
    client: Client, valkey_client: redis.Redis
) -> None:
    for number in range(3):
        client.get("/plain/", headers={"X-Key": f"k{number}", "X-API-Key": f"k{number}"})
    assert used(valkey_client) == {ANYBODY: [3]}


class Stranger:
    """A user that only a token describes."""

    is_authenticated = True
    pk = None


@pytest.mark.parametrize("user", [None, AnonymousUser(), Stranger()])
@pytest.mark.parametrize("key", [None, "", 0, "k1"])
def test_a_user_who_cannot_be_told_from_others_is_nobody(user: Any, key: str | int | None) -> None:
    door = identity.Client("192.0.2.7", "ip:192.0.2.7")
    client = identity.identified_client(door, user, identity.verified_key(key))
    is_key = key not in (None, "")
    assert client.user_subject is None
    assert client.subject == (key_digest(str(key)) if is_key else "ip:192.0.2.7")
    assert client.is_anonymous == (not is_key)


@override_settings(MIDDLEWARE=[MINE, "tests.site.no_user"])
@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
def test_a_site_whose_users_are_none_counts_addresses(tier_of: TierOf, path: str) -> None:
    assert tier_of(path=path) == "anonymous"


def described(pk: object, **claims: Any) -> SimpleNamespace:
    return SimpleNamespace(pk=pk, is_authenticated=True, **claims)


@pytest.fixture
def tier_of_described(
    tier_of: TierOf, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Callable[[Any], str | None]:
    """Return the tier of a user of whom the request tells more than the database."""
    settings.MIDDLEWARE = [MINE, "tests.site.described_user"]

    def told(user: Any, **options: Any) -> str | None:
        monkeypatch.setattr(site.Described, "user", user)
        return tier_of(**options)

    return told


@pytest.mark.parametrize("pk", ["auth0|1", 2**70, -(2**70), str(2**70), (1,)], ids=str)
def test_a_user_whom_the_database_cannot_have_has_the_tier_of_users(
    tier_of_described: TierOf, valkey_client: redis.Redis, pk: object
) -> None:
    assert tier_of_described(described(pk)) == "free"
    assert used(valkey_client) == {f"user:{pk}": [1]}


@override_settings(MIDDLEWARE=[MINE, "tests.site.described_user"])
@pytest.mark.parametrize("pk", ["7\0", "7\ud800"])
def test_refusals_of_a_user_whose_name_no_row_can_hold_are_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch, pk: str
) -> None:
    limit_tier("free", 1)
    monkeypatch.setattr(site.Described, "user", described(pk))
    assert [client.get("/plain/").status_code for _ in range(2)] == [200, 429]
    records = configured_store().records
    [minute] = records.minutes()
    [(key, count)] = records.counts(minute).items()
    assert (key.subject, count) == (f"user:{key_digest(pk)}", 1)
    [refusal] = sampled()
    assert refusal.key == key


@pytest.mark.parametrize("path", ["/plain/", "/async/"])
@pytest.mark.parametrize("pk", [[7], {"id": 7}, ([7],)], ids=str)
def test_a_user_whom_a_token_names_by_a_list_or_a_dict_is_one_client(
    tier_of_described: TierOf, valkey_client: redis.Redis, pk: object, path: str
) -> None:
    assert [tier_of_described(described(pk), path=path) for _ in range(3)] == ["free"] * 3
    assert used(valkey_client) == {f"user:{key_digest(str(pk))}": [3]}


def test_groups_that_a_token_tells_are_none_of_the_database(tier_of_described: TierOf) -> None:
    assert tier_of_described(described(7, groups=["staff"])) == "free"


@pytest.mark.parametrize("kind", [int, str])
def test_a_user_that_a_token_describes_has_the_tier_of_that_user(
    tier_of_described: TierOf, anna: User, kind: type
) -> None:
    assign("pro", user=anna)
    assert tier_of_described(described(kind(anna.pk))) == "pro"


def test_a_user_that_a_token_describes_has_the_tier_of_that_users_groups(
    tier_of_described: TierOf, anna: User
) -> None:
    assign("business", group=in_group(anna, "big"))
    assert tier_of_described(described(anna.pk)) == "business"


@pytest.mark.parametrize("is_lazy", [False, True])
def test_a_row_of_another_model_is_not_the_user_of_the_same_number(
    tier_of_described: TierOf, valkey_client: redis.Redis, anna: User, is_lazy: bool
) -> None:
    account(user=anna).save()
    assign("pro", user=anna)
    device = Group(pk=anna.pk, name="any model that is not that of users")
    device.is_authenticated = True
    asks = SimpleLazyObject(lambda: device) if is_lazy else device
    assert [tier_of_described(asks) for _ in range(2)] == ["free", "free"]
    assert tier_of_described(anna) is None
    assert used(valkey_client) == {f"user:auth.group-{anna.pk}": [2]}


GROUPS = {
    "of another model": lambda: models.ManyToManyField(ContentType),
    "as JSON": models.JSONField,
    "one each": lambda: models.ForeignKey(Group, models.CASCADE),
}


@pytest.mark.parametrize("make_field", GROUPS.values(), ids=GROUPS)
def test_what_another_user_model_calls_its_groups_gives_no_tier(
    make_field: Callable[[], models.Field], monkeypatch: pytest.MonkeyPatch
) -> None:
    with isolate_apps("tests"):

        class Member(AbstractBaseUser):
            groups = make_field()

            class Meta:
                app_label = "tests"

    monkeypatch.setattr(assignments, "get_user_model", lambda: Member)
    receivers.connect()
    found = assignments.AssignmentCache().look_up_user("user:1", Member(pk=1), "")
    assert (found.direct, found.through_group) == (None, None)


RESOLVING = {"TIER_RESOLVER": "tests.site.tier_from_header", **VERIFIED_KEYS}
ARESOLVING = {
    "TIER_RESOLVER": "tests.site.atier_from_header",
    "API_KEY_RESOLVER": "tests.site.akey_from_header",
}


@pytest.mark.parametrize(
    ("named", "expected"), [("business", "business"), ("unheard-of", "free"), (None, "pro")]
)
@pytest.mark.parametrize("resolving", [RESOLVING, ARESOLVING], ids=["sync", "async"])
def test_a_resolver_names_the_tier_or_leaves_it_to_assignments(
    tier_of: TierOf, anna: User, named: str | None, expected: str, resolving: dict[str, str]
) -> None:
    assign("pro", user=anna)
    with override_settings(RATELIMIT_TIERS=resolving):
        headers = {"X-Tier": named} if named else {}
        for _ in range(2):
            assert tier_of(anna, headers=headers) == expected


@pytest.mark.parametrize("answer", [["pro"], 7, Tier(slug="pro")], ids=str)
def test_a_resolver_that_names_no_slug_is_told_what_would_be_right(
    client: Client, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr("tests.site.tier_from_header", lambda _request: answer)
    expected = r"TIER_RESOLVER \(tests.site.tier_from_header\) must return the slug of a tier"
    with override_settings(RATELIMIT_TIERS=RESOLVING), pytest.raises(TypeError, match=expected):
        client.get("/plain/")


@pytest.mark.parametrize("answer", [True, False])
def test_a_resolver_that_tells_only_whether_a_key_holds_is_told_what_would_be_right(
    client: Client, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    monkeypatch.setattr("tests.site.key_from_header", lambda _request: answer)
    expected = r"API_KEY_RESOLVER \(tests.site.key_from_header\) must return the id of a verified"
    with pytest.raises(TypeError, match=expected):
        client.get("/plain/")


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
@pytest.mark.parametrize("resolver", ["key_from_header", "tier_from_header"])
def test_whom_a_resolver_turns_away_is_charged_to_the_address(
    client: Client,
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    valkey_client: redis.Redis,
    path: str,
    resolver: str,
) -> None:
    def turn_away(_request: HttpRequest) -> None:
        raise PermissionDenied

    limit_tier("anonymous", 2)
    client.force_login(anna)
    with override_settings(RATELIMIT_TIERS=RESOLVING):
        with monkeypatch.context() as patch:
            patch.setattr(f"tests.site.{resolver}", turn_away)
            assert [client.get(path).status_code for _ in range(4)] == [403, 403, 429, 429]
        assert client.get(path).status_code == 200
    assert used(valkey_client) == {ANYBODY: [2], f"user:{anna.pk}": [1]}


@pytest.mark.parametrize("own", [{}, {"FAILED_STATUSES": [401, 403]}], ids=str)
@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
def test_whom_a_resolver_turns_away_pays_the_rules_on_the_view_whatever_is_left_of_its_tier(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    valkey_client: redis.Redis,
    path: str,
    own: dict[str, Any],
) -> None:
    def turn_away(_request: HttpRequest) -> None:
        raise PermissionDenied

    monkeypatch.setattr("tests.site.key_from_header", turn_away)
    limit_tier("anonymous", 1)
    make_rule("failures", 3, path=path, count="failed")
    with override_settings(RATELIMIT_TIERS=RESOLVING | own):
        answers = [client.get(path).status_code for _ in range(4)]
    assert answers == [403, 429, 429, 429]
    assert used(valkey_client) == {ANYBODY: [1, 3]}


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
@pytest.mark.parametrize("where", ["a header of the site's own", "the query"])
def test_who_has_used_up_its_tier_guesses_no_keys(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str, where: str
) -> None:
    def presented(request: HttpRequest) -> str | None:
        return request.headers.get("X-Key") or request.GET.get("api_key")

    def ask(key: str) -> int:
        if where == "the query":
            return client.get(path, {"api_key": key}).status_code
        return client.get(path, headers={"X-Key": key}).status_code

    keys = {"right": "7"}
    monkeypatch.setattr("tests.site.key_from_header", lambda request: keys.get(presented(request)))
    limit_tier("anonymous", 1)
    make_rule("guesses", 3, path=path)
    with override_settings(RATELIMIT_TIERS=VERIFIED_KEYS):
        for key in ("a", "b", "c"):
            ask(key)
        assert ask("right") == 429


@pytest.mark.parametrize("path", ["/drf/", "/marked/", "/amarked/", "/dear-drf-dispatch/"])
def test_whom_a_resolver_turns_away_is_refused_without_the_middleware_too(
    is_installed: bool,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    valkey_client: redis.Redis,
    path: str,
) -> None:
    def turn_away(_request: HttpRequest) -> None:
        raise PermissionDenied

    monkeypatch.setattr("tests.site.key_from_header", turn_away)
    limit_tier("anonymous", 2)
    make_rule("failures", 9, path=path, count="failed")
    with override_settings(RATELIMIT_TIERS={**RESOLVING, "FAILED_STATUSES": [401]}):
        answers = [client.get(path) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [403, 403, 429, 429]
    assert "Retry-After" in answers[-1].headers
    assert used(valkey_client) == {ANYBODY: [2]}


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
def test_a_resolver_is_asked_once_for_each_request(
    tier_of: TierOf, anna: User, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "tests.site.tier_from_header", lambda request: asked.append(request.path) or "pro"
    )
    with override_settings(RATELIMIT_TIERS=RESOLVING):
        for number in (1, 2, 3):
            assert tier_of(anna, path) == "pro"
            assert asked == [path] * number
            configured_store().announce_policy()  # as an edit in another process does


def test_a_test_of_users_is_asked_once_and_only_about_those_without_a_tier(
    tier_of: TierOf, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    Tier.objects.filter(slug="enterprise").update(default_for=DefaultFor.UNVERIFIED)
    monkeypatch.setattr("tests.site.is_verified", lambda user: asked.append(user) or False)
    with override_settings(RATELIMIT_TIERS={"VERIFIED_TEST": "tests.site.is_verified"}):
        assert tier_of() == "anonymous"
        for number in (1, 2, 3):
            assert tier_of(anna) == "enterprise"
            assert asked == [anna] * number
            configured_store().announce_policy()  # as an edit in another process does
        assign("pro", user=anna)
        configured_store().announce_subjects([f"user:{anna.pk}"])
        assert tier_of(anna) == "pro"
        asked.clear()
        assert tier_of(anna) == "pro"
        assert asked == []


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/", "/free/"])
def test_a_resolver_is_not_asked_about_who_is_exempt(
    tier_of: TierOf, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    if path != "/free/":
        account(networks="127.0.0.0/8").save()
    monkeypatch.setattr("tests.site.tier_from_header", lambda _request: pytest.fail("it was asked"))
    with override_settings(RATELIMIT_TIERS=RESOLVING):
        for _ in range(2):
            assert tier_of(path=path) is None


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
@pytest.mark.parametrize("test", ["tests.site.is_verified", "tests.site.ais_verified"])
def test_unverified_users_have_their_own_tier_until_they_are_verified(
    tier_of: TierOf, anna: User, path: str, test: str
) -> None:
    bert = User.objects.create_user("bert")
    testing = {**VERIFIED_KEYS, "VERIFIED_TEST": test}
    with override_settings(RATELIMIT_TIERS=testing):
        assert tier_of(bert, path) == "free"  # no tier is meant for them yet
        Tier.objects.filter(slug="enterprise").update(default_for=DefaultFor.UNVERIFIED)
    with override_settings(RATELIMIT_TIERS=testing):
        assert tier_of(bert, path) == "enterprise"
        assert tier_of(anna, path) == "free"
        assign("pro", user=bert)
    with override_settings(RATELIMIT_TIERS=testing):
        assert tier_of(bert, path) == "pro"


def test_without_a_default_tier_there_are_no_limits(tier_of: TierOf) -> None:
    Tier.objects.update(default_for="")
    assert tier_of() is None


def account(**fields: Any) -> ServiceAccount:
    texts = {"name": "backup", "owner": "ops", "reason": "nightly"}
    return ServiceAccount(**{**texts, **fields})


PATHS = ["/plain/", "/async/", "/drf/", "/nothing/"]


@pytest.mark.parametrize("path", PATHS)
def test_an_account_by_network_is_exempt_from_there_alone(
    tier_of: TierOf, valkey_client: redis.Redis, path: str
) -> None:
    account(networks="127.0.0.0/8").save()
    make_rule("all", 1000, path="/**")
    assert tier_of(path=path) is None
    assert used(valkey_client) == {}
    assert tier_of(path=path, REMOTE_ADDR="192.0.2.1") == "anonymous"


def test_a_client_is_compared_with_none_of_many_accounts_of_other_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = (account(pk=n, networks=f"10.{n // 250}.{n % 250}.0/24") for n in range(2000))
    accounts = compile_accounts(rows)
    compared: list[int] = []

    def holds(self: CompiledAccount, *_: object) -> bool:
        compared.append(self.id)
        return True

    monkeypatch.setattr(CompiledAccount, "holds", holds)
    assert accounts.of_address("192.0.2.1", 0.0) is None
    found = accounts.of_address("10.7.249.1", 0.0)
    assert found is not None
    assert compared == [found.id] == [1999]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_an_account_by_key_is_exempt_with_its_key_alone(
    tier_of: TierOf, valkey_client: redis.Redis, path: str, header: str
) -> None:
    row = account()
    key = row.new_key()
    row.save()
    prefix = "Bearer " if header == "Authorization" else ""
    assert tier_of(path=path, headers={header: f"{prefix}{key}"}) is None
    for wrong in (key[:-1], key + "x", key.removeprefix("rlt_"), "rlt_", str(row.key_digest)):
        assert tier_of(path=path, headers={header: f"{prefix}{wrong}"}) == "anonymous"
    assert key not in str(list(valkey_client.scan_iter()))


@pytest.mark.parametrize("own", ["k1", "rlt_" + 197 * "x"], ids=["id", "too-long"])
@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_what_is_written_unlike_a_service_key_shows_no_account(
    tier_of: TierOf, header: str, own: str
) -> None:
    """An account may be that of a key of the site's own, whose id is no secret."""
    account(key_digest=key_digest(own)).save()
    assert tier_of(headers={"X-Key": own}) is None
    prefix = "Bearer " if header == "Authorization" else ""
    assert tier_of(headers={header: f"{prefix}{own}"}) == "anonymous"


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/"])
def test_an_account_by_user_is_exempt_when_that_user_asks(
    tier_of: TierOf, anna: User, path: str
) -> None:
    account(user=anna).save()
    assert tier_of(path=path) == "anonymous"
    assert tier_of(anna, path) is None
    assert tier_of(User.objects.create_user("bert"), path) == "free"


def test_a_stolen_key_used_from_elsewhere_is_an_ordinary_client(tier_of: TierOf) -> None:
    row = account(networks="192.0.2.0/24")
    headers = {"X-API-Key": row.new_key()}
    row.save()
    assert tier_of(headers=headers) == "anonymous"
    assert tier_of(headers=headers, REMOTE_ADDR="192.0.2.9") is None
    assert tier_of(REMOTE_ADDR="192.0.2.9") == "anonymous"


def test_an_accounts_user_is_exempt_from_its_networks_alone(tier_of: TierOf, anna: User) -> None:
    account(networks="192.0.2.0/24", user=anna).save()
    assert tier_of(anna) == "free"
    assert tier_of(anna, REMOTE_ADDR="192.0.2.9") is None


@pytest.mark.parametrize(
    "other",
    [{"networks": "198.51.100.0/24"}, {"expires_at": timezone.now() - HOUR}],
    ids=["elsewhere", "expired"],
)
@pytest.mark.parametrize("name", ["a", "z"])
def test_a_user_with_two_accounts_is_exempt_by_either(
    tier_of: TierOf, anna: User, name: str, other: dict[str, Any]
) -> None:
    account(name="m", networks="192.0.2.0/24", user=anna).save()
    account(name=name, user=anna, **other).save()
    assert tier_of(anna) == "free"
    assert tier_of(anna, REMOTE_ADDR="192.0.2.9") is None


@pytest.mark.parametrize("way", ["network", "key", "user"])
def test_an_account_is_exempt_beside_others_that_are_known_in_other_ways(
    tier_of: TierOf, anna: User, way: str
) -> None:
    bert, keyed = User.objects.create_user("bert"), account(name="keyed")
    key = keyed.new_key()
    keyed.save()
    account(name="near", networks="192.0.2.0/24").save()
    account(name="person", user=anna).save()
    asked: dict[str, dict[str, Any]] = {
        "network": {"REMOTE_ADDR": "192.0.2.9"},
        "key": {"headers": {"X-API-Key": key}},
        "user": {"user": anna},
    }
    assert tier_of(bert) == "free"
    assert tier_of(**{"user": bert, **asked[way]}) is None


@pytest.mark.parametrize(
    "fields",
    [{"is_active": False}, {"expires_at": timezone.now() - HOUR}],
    ids=["inactive", "expired"],
)
def test_an_account_that_is_inactive_or_expired_exempts_nobody(
    tier_of: TierOf, fields: dict[str, Any]
) -> None:
    account(networks="127.0.0.0/8", **fields).save()
    assert tier_of() == "anonymous"


def test_a_group_of_ipv6_addresses_is_one_client_and_ipv4_behind_ipv6_its_own(
    client: Client, valkey_client: redis.Redis
) -> None:
    for address in ("2001:db8::1", "2001:db8::ffff:1", "::ffff:192.0.2.7", "192.0.2.7"):
        client.get("/plain/", REMOTE_ADDR=address)
    assert used(valkey_client) == {"ip:2001:db8::/64": [2], "ip:192.0.2.7": [2]}


def test_a_header_names_the_client_only_when_a_trusted_proxy_says_so(
    client: Client, valkey_client: redis.Redis
) -> None:
    headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.5"}
    client.get("/plain/", headers=headers)
    with override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": ["127.0.0.0/8"]}):
        client.get("/plain/", headers=headers)
    assert used(valkey_client) == {ANYBODY: [1], "ip:203.0.113.5": [1]}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-For", "198.51.100.1, 203.0.113.5"),
        ("x-forwarded-for", "203.0.113.5"),
        ("X-Real-IP", "203.0.113.5"),
        ("Forwarded", 'for=198.51.100.1, for="203.0.113.5:8080";proto=https'),
        ("CF-Connecting-IP", "203.0.113.5"),
        ("X-Forwarded-For", ", ".join(["198.51.100.1"] * identity.LONGEST_REMEMBERED)),
    ],
)
def test_a_trusted_proxy_tells_of_the_client_in_the_header_of_the_setting(
    header: str, value: str
) -> None:
    setting = {"TRUSTED_PROXIES": ["127.0.0.1"], "CLIENT_IP_HEADER": header}
    expected = value.split(", ")[-1] if len(value) > identity.LONGEST_REMEMBERED else "203.0.113.5"
    with override_settings(RATELIMIT_TIERS=setting):
        for peer, address in (("127.0.0.1", expected), ("192.0.2.7", "192.0.2.7")) * 2:
            request = RequestFactory().get("/", headers={header: value}, REMOTE_ADDR=peer)
            assert identity.address_client(request).address == address


@override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": "10.0.0.0/8"})
def test_proxies_that_are_no_list_are_told_so() -> None:
    with pytest.raises(ValueError, match=r"must be a list, such as \['10.0.0.0/8'\]"):
        identity.address_client(RequestFactory().get("/"))


@pytest.mark.parametrize("length", [identity.LONGEST_REMEMBERED, 8_000])
def test_no_header_fills_the_memory_with_its_length(length: int) -> None:
    remembered = identity._address_client.cache_info
    with override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": ["127.0.0.1"]}):
        before = remembered().misses
        identity.address_client(RequestFactory().get("/", HTTP_X_FORWARDED_FOR="x" * length))
    assert remembered().misses - before == (length <= identity.LONGEST_REMEMBERED)


def login(client: Client, username: str, address: str = "192.0.2.1") -> HttpResponse:
    fields = {"username": username, "password": "wrong"}
    return client.post("/login/", fields, "application/json", REMOTE_ADDR=address)


def test_a_field_of_the_request_is_counted_whatever_address_it_comes_from(
    client: Client, valkey_client: redis.Redis
) -> None:
    make_rule("login", 2, identify_by="field", request_field="username", count="failed")
    spellings = ["anna", " ANNA ", "anna"]
    answers = [login(client, name, f"192.0.2.{n}") for n, name in enumerate(spellings)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert login(client, "bert").status_code == 401
    assert "anna" not in str(list(valkey_client.scan_iter()))


@pytest.mark.parametrize("path", ["/free/", "/afree/", "/free-drf-function/", "/free-to-list/"])
def test_a_service_account_that_only_its_user_shows_is_exempt_on_exempt_views_too(
    client: Client, anna: User, valkey_client: redis.Redis, path: str
) -> None:
    make_rule("all", 2, path="/**")
    ServiceAccount.objects.create(name="a", owner="o", reason="r", user=anna)
    client.force_login(anna)
    assert [client.get(path).status_code for _ in range(4)] == [200] * 4
    assert used(valkey_client) == {}
