"""An edit made in one process is obeyed by the next charged request of another, and not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.core.serializers import serialize
from django.db import connection, transaction
from django.test import Client, override_settings
from django.utils import timezone

from django_ratelimit_tiers.models import (
    EndpointRule,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
    TierPolicy,
)
from testproject.api_keys import issue_key
from testproject.models import ApiKey
from tests.databases import database_url
from tests.policies import YEAR, limit_tier, make_rule
from tests.servers import SiteProcess, ValkeyProcess, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

PATIENT = {"STORE_TIMEOUT": 20}
ANONYMOUS, FREE, PRO, BUSINESS = 1000, 2000, 3000, 4000

Look = Callable[[], int | None]


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def site(
    request: pytest.FixtureRequest, django_db_setup: None, valkey: ValkeyProcess
) -> Iterator[str]:
    """The other process: one server for all the tests here."""
    env = {"REDIS_URL": valkey.url, "DATABASE_URL": database_url(connection)}
    with SiteProcess(request.param, env=env, ratelimit=PATIENT) as site:
        yield site.url


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    with override_settings(RATELIMIT_TIERS={**settings.RATELIMIT_TIERS, **PATIENT}):
        yield


@pytest.fixture(autouse=True)
def _tiers() -> None:
    for slug, limit in zip(("anonymous", "free", "pro", "business"), NUMBERS, strict=True):
        limit_tier(slug, limit)


NUMBERS = (ANONYMOUS, FREE, PRO, BUSINESS)


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna")


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    return client


@pytest.fixture
def browser(site: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site, timeout=60) as browser:
        yield browser


@pytest.fixture
def look(browser: httpx.Client) -> Look:
    """Send the other process a request, and return the limit that the answer tells.

    It may have ended the last test with no limits, and then looks for new ones once a second.
    """

    def limit() -> int | None:
        response = browser.get("/plain/")
        assert response.status_code == 200, response.text
        told = response.headers.get("X-RateLimit-Limit")
        return None if told is None else int(told)

    assert wait_until(lambda: limit() == ANONYMOUS, seconds=10)
    return limit


def log_in(browser: httpx.Client, user: User) -> None:
    client = Client()
    client.force_login(user)
    browser.cookies.set("sessionid", client.cookies["sessionid"].value)


def is_obeyed_at_once(look: Look, edit: Callable[[], object], before: Any, after: Any) -> None:
    """Look before, after a rollback, within the transaction, and right after its commit."""
    assert look() == before
    with transaction.atomic():
        edit()
        transaction.set_rollback(True)
    assert look() == before
    with transaction.atomic():
        edit()
        assert look() == before
    assert look() == after


def anonymous_limit() -> TierPolicy:
    return TierPolicy.objects.get(tier__slug="anonymous")


def saved(row: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(row, name, value)
    row.save()


def bulk_updated(rows: Any, **fields: Any) -> None:
    rows = list(rows)
    for row in rows:
        for name, value in fields.items():
            setattr(row, name, value)
    type(rows[0]).objects.bulk_update(rows, fields)


def tier(slug: str) -> Tier:
    return Tier.objects.get(slug=slug)


POLICY_EDITS: dict[str, tuple[Callable[[], object], int | None]] = {
    "save of a limit": (lambda: saved(anonymous_limit(), requests=7), 7),
    "update of limits": (lambda: TierPolicy.objects.update(requests=8), 8),
    "bulk_update of limits": (lambda: bulk_updated(TierPolicy.objects.all(), requests=9), 9),
    "bulk_create of limits": (
        lambda: TierPolicy.objects.bulk_create(
            [TierPolicy(tier=tier("anonymous"), requests=10, period=YEAR - 1)]
        ),
        10,
    ),
    "creation of a limit": (
        lambda: TierPolicy.objects.create(tier=tier("anonymous"), requests=11, period=YEAR - 1),
        11,
    ),
    "deletion of a limit": (lambda: anonymous_limit().delete(), None),
    "deletion of a queryset": (lambda: TierPolicy.objects.all().delete(), None),
    "a limit moved through a relation": (
        lambda: tier("anonymous").policies.add(
            TierPolicy.objects.create(tier=tier("internal"), requests=12, period=YEAR - 1)
        ),
        12,
    ),
    "another default tier": (
        lambda: (
            Tier.objects.filter(slug="anonymous").update(default_for=""),
            saved(tier("pro"), default_for="anonymous"),
        ),
        PRO,
    ),
    "a rule": (lambda: make_rule("plain", 13), 13),
    "a service account": (
        lambda: ServiceAccount.objects.create(
            name="loopback", owner="o", reason="r", networks="127.0.0.0/8"
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", POLICY_EDITS)
def test_an_edit_of_the_policy_is_obeyed_at_once(look: Look, name: str) -> None:
    edit, after = POLICY_EDITS[name]
    is_obeyed_at_once(look, edit, ANONYMOUS, after)


RULE_EDITS: dict[str, tuple[Callable[[], object], int | None]] = {
    "save": (lambda: saved(EndpointRule.objects.get(), path="/other/"), ANONYMOUS),
    "deletion": (lambda: EndpointRule.objects.get().delete(), ANONYMOUS),
    "update": (lambda: EndpointRule.objects.update(mode="shadow"), ANONYMOUS),
    "update of its limits": (lambda: RulePolicy.objects.update(requests=21), 21),
    "deletion of its limits": (lambda: RulePolicy.objects.all().delete(), ANONYMOUS),
    "exemption": (lambda: EndpointRule.objects.update(exempt=True), None),
}


@pytest.mark.parametrize("name", RULE_EDITS)
def test_an_edit_of_a_rule_is_obeyed_at_once(look: Look, name: str) -> None:
    make_rule("plain", 20)
    edit, after = RULE_EDITS[name]
    is_obeyed_at_once(look, edit, 20, after)


def test_loaded_data_is_obeyed_at_once(look: Look, tmp_path: Path) -> None:
    limit = anonymous_limit()
    limit.requests = 30
    file = tmp_path / "limits.json"
    file.write_text(serialize("json", [limit]))
    is_obeyed_at_once(look, lambda: call_command("loaddata", file, verbosity=0), ANONYMOUS, 30)


@pytest.mark.parametrize(("action", "after"), [("delete_selected", ANONYMOUS), ("shadow", 20)])
def test_an_action_of_the_admin_is_obeyed_at_once(
    look: Look, staff: Client, action: str, after: int
) -> None:
    rule = make_rule("plain", 20)
    if action == "shadow":
        make_rule("async", 20, path="/plain/")
        RulePolicy.objects.filter(rule=rule).update(requests=15)

    def act() -> None:
        fields = {"action": action, "_selected_action": [rule.pk], "post": "yes"}
        page = "/admin/django_ratelimit_tiers/endpointrule/"
        assert staff.post(page, fields).status_code == 302

    is_obeyed_at_once(look, act, 15 if action == "shadow" else 20, after)


def test_the_form_of_the_admin_is_obeyed_at_once(look: Look, staff: Client) -> None:
    row = tier("anonymous")
    limit = row.policies.get()

    def submit() -> None:
        page = f"/admin/django_ratelimit_tiers/tier/{row.pk}/change/"
        form = staff.get(page).context["adminform"].form
        fields = {name: form[name].value() or "" for name in form.fields} | {"rank": 0}
        fields |= {"policies-TOTAL_FORMS": 1, "policies-INITIAL_FORMS": 1}
        fields |= {"policies-0-id": limit.pk, "policies-0-tier": row.pk, "policies-0-requests": 40}
        fields |= {"policies-0-period": YEAR, "policies-0-algorithm": limit.algorithm}
        response = staff.post(page, fields)
        assert response.status_code == 302, response.context["errors"]

    is_obeyed_at_once(look, submit, ANONYMOUS, 40)


def assign(slug: str, **subject: Any) -> TierAssignment:
    return TierAssignment.objects.create(tier=tier(slug), **subject)


ASSIGNMENT_EDITS: dict[str, tuple[Callable[[User], object], int | None]] = {
    "save": (
        lambda user: saved(TierAssignment.objects.get(user=user), tier=tier("business")),
        4000,
    ),
    "deletion": (lambda user: TierAssignment.objects.get(user=user).delete(), FREE),
    "deletion of a queryset": (lambda _user: TierAssignment.objects.all().delete(), FREE),
    "update": (lambda _user: TierAssignment.objects.update(tier=tier("business")), BUSINESS),
    "bulk_update": (
        lambda _user: bulk_updated(TierAssignment.objects.all(), tier=tier("business")),
        BUSINESS,
    ),
    "expiry": (
        lambda _user: TierAssignment.objects.update(expires_at=timezone.now() - timedelta(1)),
        FREE,
    ),
    "another user": (
        lambda _user: TierAssignment.objects.update(user=User.objects.create_user("bert")),
        FREE,
    ),
    "no limits": (lambda _user: TierAssignment.objects.update(tier=tier("internal")), None),
}


@pytest.mark.parametrize("name", ASSIGNMENT_EDITS)
def test_an_edit_of_a_users_tier_is_obeyed_at_once(
    look: Look, browser: httpx.Client, anna: User, name: str
) -> None:
    assign("pro", user=anna)
    log_in(browser, anna)
    edit, after = ASSIGNMENT_EDITS[name]
    is_obeyed_at_once(look, lambda: edit(anna), PRO, after)


@pytest.mark.parametrize("is_bulk", [False, True])
def test_a_user_gets_a_tier_at_once(
    look: Look, browser: httpx.Client, anna: User, is_bulk: bool
) -> None:
    log_in(browser, anna)

    def create() -> None:
        row = TierAssignment(user=anna, tier=tier("pro"))
        if is_bulk:
            TierAssignment.objects.bulk_create([row])
        else:
            row.save()

    is_obeyed_at_once(look, create, FREE, PRO)


def test_a_user_whose_tier_has_no_limits_gets_some_at_once(
    look: Look, browser: httpx.Client, anna: User
) -> None:
    assign("internal", user=anna)
    log_in(browser, anna)
    edit = TierAssignment.objects.update
    is_obeyed_at_once(look, lambda: edit(tier=tier("pro")), None, PRO)


def test_a_keys_tier_is_obeyed_at_once(look: Look, browser: httpx.Client, anna: User) -> None:
    browser.headers["X-API-Key"] = issue_key(anna)
    key_id = ApiKey.objects.get().key_id
    is_obeyed_at_once(look, lambda: assign("pro", api_key=key_id), FREE, PRO)
    is_obeyed_at_once(look, lambda: TierAssignment.objects.all().delete(), PRO, FREE)


def test_a_groups_tier_is_obeyed_at_once(look: Look, browser: httpx.Client, anna: User) -> None:
    group = Group.objects.create(name="customers")
    anna.groups.add(group)
    log_in(browser, anna)
    is_obeyed_at_once(look, lambda: assign("pro", group=group), FREE, PRO)
    edit = TierAssignment.objects.update
    is_obeyed_at_once(look, lambda: edit(tier=tier("business")), PRO, BUSINESS)
    is_obeyed_at_once(look, lambda: Group.objects.all().delete(), BUSINESS, FREE)


MEMBERSHIP_EDITS: dict[str, tuple[Callable[[User, Group], object], bool]] = {
    "user.groups.add": (lambda user, group: user.groups.add(group), True),
    "group.user_set.add": (lambda user, group: group.user_set.add(user), True),
    "user.groups.set": (lambda user, group: user.groups.set([group]), True),
    "user.groups.remove": (lambda user, group: user.groups.remove(group), False),
    "group.user_set.remove": (lambda user, group: group.user_set.remove(user), False),
    "user.groups.clear": (lambda user, _group: user.groups.clear(), False),
    "group.user_set.clear": (lambda _user, group: group.user_set.clear(), False),
}


@pytest.mark.parametrize("name", MEMBERSHIP_EDITS)
def test_a_membership_is_obeyed_at_once(
    look: Look, browser: httpx.Client, anna: User, name: str
) -> None:
    edit, joins = MEMBERSHIP_EDITS[name]
    group = Group.objects.create(name="customers")
    assign("pro", group=group)
    if not joins:
        anna.groups.add(group)
    log_in(browser, anna)
    before, after = (FREE, PRO) if joins else (PRO, FREE)
    is_obeyed_at_once(look, lambda: edit(anna, group), before, after)


def test_every_one_of_many_edits_in_a_row_is_obeyed_at_once(look: Look) -> None:
    told = []
    for number in range(100, 130):
        TierPolicy.objects.update(requests=number)
        told.append(look())
    assert told == list(range(100, 130))


def test_a_process_that_charges_nothing_obeys_within_a_second_or_two(look: Look) -> None:
    Tier.objects.filter(slug="anonymous").update(unlimited=True)
    assert look() is None
    Tier.objects.filter(slug="anonymous").update(unlimited=False)
    assert wait_until(lambda: look() == ANONYMOUS, seconds=4)


def test_an_exemption_that_ends_is_over_within_a_second_or_two(look: Look) -> None:
    make_rule("plain", exempt=True)
    assert look() is None
    EndpointRule.objects.all().delete()
    assert wait_until(lambda: look() == ANONYMOUS, seconds=4)


def test_a_store_that_has_lost_everything_brings_no_old_policy_back(
    look: Look, valkey_client: redis.Redis
) -> None:
    TierPolicy.objects.update(requests=7)
    assert look() == 7
    valkey_client.flushall()
    assert look() == 7
    TierPolicy.objects.update(requests=8)
    valkey_client.flushall()
    assert look() == 8


def test_a_process_that_counts_in_its_own_memory_obeys_within_a_second_or_two(
    serve: Callable[..., str],
) -> None:
    memory = {"STORE": "django_ratelimit_tiers.store.memory.MemoryStore"}
    anna = User.objects.create_user("anna")
    with httpx.Client(base_url=serve(ratelimit=memory)) as browser:

        def limit() -> str | None:
            return browser.get("/plain/").headers.get("X-RateLimit-Limit")

        assert limit() == str(ANONYMOUS)
        TierPolicy.objects.filter(tier__slug="anonymous").update(requests=7)
        assert wait_until(lambda: limit() == "7", seconds=5)
        log_in(browser, anna)
        assert limit() == str(FREE)
        assign("pro", user=anna)
        assert wait_until(lambda: limit() == str(PRO), seconds=5)


def test_usage_is_kept_when_a_limit_is_raised_and_when_a_user_moves_up(
    look: Look, browser: httpx.Client, anna: User
) -> None:
    log_in(browser, anna)
    for _ in range(5):
        browser.get("/plain/")
    assign("pro", user=anna)
    assert browser.get("/plain/").headers["X-RateLimit-Remaining"] == str(PRO - 6)
    TierPolicy.objects.filter(tier__slug="pro").update(requests=6)
    assert browser.get("/plain/").status_code == 429
    TierPolicy.objects.filter(tier__slug="pro").update(requests=10)
    assert browser.get("/plain/").headers["X-RateLimit-Remaining"] == "3"
