"""What becomes of a refusal at once: a count, a sample, a log line, a signal, an id."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.events import refusals
from django_ratelimit_tiers.events.log_gates import LogGate
from django_ratelimit_tiers.models import PolicyRevision
from django_ratelimit_tiers.policy import cashiers
from django_ratelimit_tiers.signals import request_throttled
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.memory import MemoryStore
from tests.policies import YEAR, limit_tier, make_rule
from tests.samples import sampled
from tests.site import plain

pytestmark = pytest.mark.django_db

urlpatterns = [path("", plain)]

LOGGER = "django_ratelimit_tiers.throttled"


@pytest.fixture(autouse=True)
def _unused_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_gate", LogGate())


def refuse(client: Client, times: int = 1, **extra: Any) -> list[str]:
    """Refuse an anonymous client; returns the ids that it was told."""
    limit_tier("anonymous", 1)
    allowed = client.get("/plain/")
    assert allowed.status_code == 200
    assert "X-RateLimit-Decision" not in allowed.headers
    answers = [client.get("/plain/", **extra) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {429}
    return [answer.headers["X-RateLimit-Decision"] for answer in answers]


def test_every_refusal_is_counted_under_policy_tier_endpoint_and_subject(client: Client) -> None:
    refuse(client, 3)
    records = configured_store().records
    found = [pair for minute in records.minutes() for pair in records.counts(minute).items()]
    assert sum(count for _, count in found) == 3
    assert {(k.mode, k.tier, k.endpoint, k.subject) for k, _ in found} == {
        (Mode.ENFORCE, "anonymous", "GET plain/", "ip:127.0.0.1")
    }


def test_the_sample_tells_what_staff_wants_to_know_of_a_refusal(client: Client) -> None:
    [decision_id] = refuse(client, HTTP_USER_AGENT="tester/1")
    [refusal] = sampled()
    assert refusal.decision_id == decision_id
    assert (refusal.method, refusal.path, refusal.address) == ("GET", "/plain/", "127.0.0.1")
    assert refusal.user_agent == "tester/1"
    assert refusal.revision == PolicyRevision.objects.latest("pk").pk
    assert refusal.retry_after > 0


def test_the_sample_names_the_rule_that_refused(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1)
    client.get("/plain/")
    client.get("/plain/")
    [refusal] = sampled()
    assert refusal.rule == "plain"


@pytest.mark.parametrize("name", ["検索\u3000API", "page\u00a0simple"])
def test_the_sample_names_a_rule_whose_spaces_have_another_width(client: Client, name: str) -> None:
    limit_tier("anonymous")
    make_rule(name, 1, path="/plain/")
    client.get("/plain/")
    answer = client.get("/plain/")
    [refusal] = sampled()
    assert refusal.rule == name
    assert all(value.isascii() for value in answer.headers.values())


@pytest.mark.parametrize("letter", ["\n", "\x1b", "\x7f", "\u2028", "\u2029", "\u202e", "\u200b"])
def test_what_acts_on_a_screen_is_replaced(letter: str) -> None:
    assert printable(f"a{letter}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("path", ["/plain/%00%1b[2J", "/plain/" + "x" * 5000, "/plain/%ff"])
def test_a_hostile_path_is_bounded_and_inert_in_the_sample(client: Client, path: str) -> None:
    limit_tier("anonymous", 1)
    client.get("/plain/")
    assert client.get(path).status_code == 429
    [refusal] = sampled()
    assert refusal.path.isprintable()
    assert len(refusal.path) <= 500


def method_of_form(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Take the method from a field of the form, as sites do for browsers."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.method = request.POST.get("_method", request.method)
        return get_response(request)

    return middleware


@pytest.mark.urls("tests.site")
@pytest.mark.parametrize("path", ["/plain/", "/drf/"])
@pytest.mark.parametrize(
    ("method", "kept"), [("put", "PUT"), ("A\0B", "A\ufffdB"), ("x" * 500, "X" * 20)]
)
def test_a_hostile_method_that_middleware_puts_in_place_is_sampled_inert(
    client: Client, path: str, method: str, kept: str
) -> None:
    limit_tier("anonymous", 1)
    chain = [*settings.MIDDLEWARE, "tests.events.test_refusals.method_of_form"]
    with override_settings(MIDDLEWARE=chain):
        for _ in range(2):
            answer = client.post(path, {"_method": method})
    assert answer.status_code == 429
    [refusal] = sampled()
    assert (refusal.method, refusal.address, refusal.path) == (kept, "127.0.0.1", path)


def test_a_decision_has_an_id_of_its_own_that_only_refused_clients_see(client: Client) -> None:
    ids = refuse(client, 5)
    assert len(set(ids)) == 5


def test_refusals_are_logged_with_who_where_and_why(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    [decision_id] = refuse(client)
    [record] = [r for r in caplog.records if r.name == LOGGER]
    told: Any = record
    assert (told.key, told.client) == ("ip:127.0.0.1", "ip:127.0.0.1")
    assert (told.endpoint, told.policy) == ("GET plain/", f"anonymous-{YEAR}s")
    assert told.decision_id == decision_id


def test_a_client_that_only_a_token_names_forges_no_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    charge = Charge("user:7\nforged \x1b[31m", QuotaPolicy("p", 1, 60))
    store = MemoryStore()
    store.acquire([charge])
    refusals.announce_refusal(
        HttpRequest(), Decision(store.acquire([charge])), charge.subject, "GET a"
    )
    (record,) = caplog.records
    assert record.message.isprintable()
    assert record.__dict__["client"] == record.__dict__["key"] == printable(charge.subject)


@pytest.mark.parametrize("failure", ["open", "local"])
def test_a_refusal_before_the_route_is_known_is_logged_where_it_is_counted(
    client: Client, caplog: pytest.LogCaptureFixture, failure: str, settings: Any
) -> None:
    if failure == "local":
        settings.RATELIMIT_TIERS = {
            "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
            "STORE_OPTIONS": {"url": "redis://127.0.0.1:1"},
            "ON_STORE_FAILURE": failure,
        }
    make_rule("plain", 1)
    for _ in range(3):
        client.get("/plain/")
    told = {r.__dict__["endpoint"] for r in caplog.records if r.name == LOGGER}
    assert told == {"GET /plain/"}


@pytest.mark.urls(__name__)
def test_the_root_has_a_name_of_its_own(client: Client) -> None:
    limit_tier("anonymous", 1)
    for _ in range(2):
        client.get("/")
    [refusal] = sampled()
    assert refusal.key.endpoint == "GET /"


def test_an_attack_does_not_flood_the_log_and_what_is_left_out_is_told(
    client: Client,
    caplog: pytest.LogCaptureFixture,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"LOG_PER_SECOND": 2}}
    now = 100.0
    monkeypatch.setattr(refusals, "_gate", LogGate(lambda: now))
    refuse(client, 7)
    assert len([r for r in caplog.records if r.name == LOGGER]) == 2
    now = 101.0
    client.get("/plain/")
    messages = [r.getMessage() for r in caplog.records if r.name == LOGGER]
    assert messages[2] == "5 more refusals were not logged"
    assert len(messages) == 4


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("path", ["/plain/", "/async/", "/drf/", "/nothing/"])
def test_django_writes_no_line_of_its_own_for_a_refusal(
    client: Client, caplog: pytest.LogCaptureFixture, path: str, accept: str
) -> None:
    limit_tier("anonymous", 1)
    client.get("/plain/")
    caplog.set_level(logging.DEBUG)
    assert client.get(path, headers={"Accept": accept}).status_code == 429
    lines = [r for r in caplog.records if getattr(r, "status_code", None) == 429]
    assert lines == []


@pytest.mark.parametrize("path", ["/nothing/", "/plain/404/", "/plain/429/"])
def test_django_still_writes_a_line_for_what_the_site_answers(
    client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    limit_tier("anonymous")
    assert client.get(path).status_code >= 400
    [line] = [r.getMessage() for r in caplog.records if r.name == "django.request"]
    assert line.endswith(f": {path}")


def test_the_signal_tells_request_and_decision(client: Client) -> None:
    received: list[tuple[str, Decision]] = []

    def receive(request: Any, decision: Decision, **_: Any) -> None:
        received.append((request.path, decision))

    request_throttled.connect(receive)
    try:
        [decision_id] = refuse(client)
    finally:
        request_throttled.disconnect(receive)
    [(path, decision)] = received
    assert (path, decision.id) == ("/plain/", decision_id)
    assert not decision.allowed


def test_the_body_of_a_refusal_keeps_its_shape(client: Client) -> None:
    refuse(client)
    body = json.loads(client.get("/plain/").content)
    assert set(body) == {"error", "message", "retry_after"}


def test_an_undisclosed_refusal_tells_nothing_but_the_wait(client: Client) -> None:
    limit_tier("anonymous")
    make_rule("plain", 1, disclose=False)
    client.get("/plain/")
    headers = client.get("/plain/").headers
    assert headers["Retry-After"]
    assert not {name for name in headers if "ratelimit" in name.lower()}


def test_refusals_by_user_are_counted_for_the_user(client: Client) -> None:
    limit_tier("free", 1)
    user = User.objects.create_user("ada")
    client.force_login(user)
    client.get("/plain/")
    assert client.get("/plain/").status_code == 429
    records = configured_store().records
    [key] = records.counts(records.minutes()[-1])
    assert key.subject == f"user:{user.pk}"


def test_what_nobody_notices_is_still_left_out_by_count(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(refusals, "_gate", LogGate(lambda: now))
    announced: list[str] = []
    announce = cashiers.announce_refusal

    def announce_and_note(*told: Any) -> None:
        announced.append(told[1].id)
        announce(*told)

    monkeypatch.setattr(cashiers, "announce_refusal", announce_and_note)
    most = conf.EVENTS["LOG_PER_SECOND"]
    ids = refuse(client, most + 20)
    assert announced == ids[:most]
    now = 101.0
    client.get("/plain/")
    messages = [r.getMessage() for r in caplog.records if r.name == LOGGER]
    assert messages[most] == "20 more refusals were not logged"


def test_a_receiver_hears_of_refusals_that_are_not_logged(client: Client, settings: Any) -> None:
    settings.RATELIMIT_TIERS = {"EVENTS": {"LOG_PER_SECOND": 0}}
    received: list[str] = []

    def receive(decision: Decision, **_: Any) -> None:
        received.append(decision.id)

    request_throttled.connect(receive)
    try:
        ids = refuse(client, 40)
    finally:
        request_throttled.disconnect(receive)
    assert received == ids
