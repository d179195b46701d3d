"""What a client is told: the form by Accept, header fields by setting, nothing undisclosed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest, PermissionDenied, TooManyFieldsSent
from django.core.handlers.exception import response_for_exception
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.test import AsyncClient, Client, RequestFactory, override_settings

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision, Outcome
from django_ratelimit_tiers.core.headers import header_fields
from django_ratelimit_tiers.core.policies import Charge, QuotaPolicy
from django_ratelimit_tiers.policy.flows import drive
from django_ratelimit_tiers.policy.statuses import error_status
from django_ratelimit_tiers.responses import (
    MOST_ANSWERS,
    _answer,
    _answer_alike,
    add_fields,
    refusal,
)
from django_ratelimit_tiers.signals import request_throttled
from tests.policies import limit_tier, make_rule

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

MESSAGE = re.compile(r"Too many requests\. Try again in \d+ seconds?\.")
X_FIELDS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
PAGE = "django_ratelimit_tiers/refusal.html"
DRAFT_FIELDS = {"RateLimit", "RateLimit-Policy"}


def refused(client: Client, path: str = "/plain/", **headers: str) -> HttpResponse:
    """Return the refusal of the second request."""
    limit_tier("anonymous", 1)
    client.get(path)
    response = client.get(path, headers=headers)
    assert response.status_code == 429
    return response


@pytest.mark.parametrize(
    "error",
    [
        Http404(),
        PermissionDenied(),
        BadRequest(),
        MultiPartParserError(),
        TooManyFieldsSent(),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_status_of_an_error_is_that_of_the_response_which_django_makes(
    error: Exception,
) -> None:
    response = response_for_exception(RequestFactory().get("/"), error)
    assert error_status(error) == response.status_code


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
        ("image/png", "application/json"),
        ("application/problem+json", "application/problem+json"),
        ("application/problem+json, application/json;q=0.5", "application/problem+json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("text/plain", "text/plain"),
        ("text/plain;q=0.1, text/html;q=0.9", "text/html"),
        ("nonsense;;;q=x,,/", "application/json"),
        ("a" * 20_000, "application/json"),
        ("\xff\x00", "application/json"),
    ],
)
def test_the_body_has_the_form_that_accept_prefers(
    client: Client, accept: str, content_type: str
) -> None:
    response = refused(client, Accept=accept)
    assert response.headers["Content-Type"].partition(";")[0] == content_type


@pytest.mark.parametrize("accept", ["text/html;x*=a;x*0=b", "text/html;x*=none''%41"])
def test_an_accept_that_some_versions_of_django_cannot_read_is_refused_all_the_same(
    client: Client, accept: str
) -> None:
    content_type = refused(client, Accept=accept).headers["Content-Type"].partition(";")[0]
    assert content_type in ("application/json", "text/html")


@pytest.mark.parametrize("accept", ["a/a," * 2000, "text/html" + ";" * 8000])
def test_an_accept_that_takes_long_to_read_is_not_read(
    monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    monkeypatch.setattr(HttpRequest, "get_preferred_type", lambda *_: "text/html")
    response = answered(decision_of(), accept)
    assert response.headers["Content-Type"] == "application/json"


def test_a_json_refusal_has_exactly_these_members(client: Client) -> None:
    response = refused(client)
    wait = int(response.headers["Retry-After"])
    assert response.json() == {
        "error": "rate_limit_exceeded",
        "message": f"Too many requests. Try again in {wait} seconds.",
        "retry_after": wait,
    }


def test_a_problem_names_the_policies_as_the_header_fields_do(client: Client) -> None:
    response = refused(client, Accept="application/problem+json")
    problem = response.json()
    assert problem["type"].endswith("#quota-exceeded")
    assert problem["status"] == 429
    assert problem["violated-policies"] == ["anonymous-31622400s"]
    assert '"anonymous-31622400s"' in response.headers["RateLimit"]


@pytest.mark.parametrize("name", ["_csp_nonce", "csp_nonce"])
def test_the_style_of_the_page_has_the_nonce_of_the_request(name):
    request = RequestFactory().get("/", headers={"Accept": "text/html"})
    assert "<style>" in drive(refusal(request, decision_of())).text
    setattr(request, name, "r4nd0m")  # as the middleware of Django 6.0 does, or that of django-csp
    assert '<style nonce="r4nd0m">' in drive(refusal(request, decision_of())).text


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_a_page_tells_people_when_to_come_back(client: Client, accept: str) -> None:
    assert MESSAGE.search(refused(client, Accept=accept).text)


def test_a_page_blames_nobody_while_the_store_is_away(client: Client) -> None:
    away = {
        "STORE": "django_ratelimit_tiers.store.redis.RedisStore",
        "STORE_OPTIONS": {"url": "redis://127.0.0.1:1"},
        "ON_STORE_FAILURE": "closed",
    }
    with override_settings(RATELIMIT_TIERS=away):
        response = client.get("/plain/", headers={"Accept": "text/html"})
    assert response.status_code == 503
    assert "<h1>Temporarily unavailable</h1>" in response.text
    assert "Too many requests" not in response.text


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_page_of_a_site_may_ask_the_database(kind: type[Client] | type[AsyncClient]) -> None:
    limit_tier("anonymous", 1)
    loaders = [("django.template.loaders.locmem.Loader", {PAGE: "{% count_users %} users"})]
    engine = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": loaders, "builtins": ["tests.site"]},
    }
    get = async_to_sync(kind().get) if kind is AsyncClient else kind().get
    with override_settings(TEMPLATES=[engine]):
        get("/plain/")
        response = get("/plain/", headers={"Accept": "text/html"})
    assert (response.status_code, response.text) == (429, "0 users")


@pytest.mark.parametrize("apps", [None, False])
def test_a_site_without_our_templates_refuses_in_plain_text(
    client: Client, apps: bool | None
) -> None:
    engine = {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": apps}
    with override_settings(TEMPLATES=[] if apps is None else [engine]):
        response = refused(client, Accept="text/html")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert MESSAGE.search(response.text)


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/nothing/", "/marked/"])
def test_a_refusal_is_not_to_be_stored(client: Client, path: str) -> None:
    assert refused(client, path).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("styles", "fields"),
    [
        ([], set()),
        (["x-ratelimit"], X_FIELDS),
        (["ratelimit-draft-11"], DRAFT_FIELDS),
        (["ratelimit-draft-11", "x-ratelimit"], X_FIELDS | DRAFT_FIELDS),
    ],
)
@pytest.mark.parametrize("path", ["/plain/", "/drf/"])
def test_the_setting_headers_chooses_the_styles(
    client: Client, styles: list[str], fields: set[str], path: str
) -> None:
    with override_settings(RATELIMIT_TIERS={"HEADERS": styles}):
        response = refused(client, path)
    assert set(response.headers) & (X_FIELDS | DRAFT_FIELDS) == fields
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["/plain/", "/async/", "/nothing/", "/marked/"])
def test_the_setting_response_makes_the_refusal_and_keeps_its_status(
    client: Client, path: str
) -> None:
    limit_tier("anonymous", 1)
    with override_settings(RATELIMIT_TIERS={"RESPONSE": "tests.site.teapot"}):
        client.get(path)
        response = client.get(path)
    assert (response.status_code, response.text) == (418, "no, 1")
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("make", ["census", "acensus"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_setting_response_may_ask_the_database(
    kind: type[Client] | type[AsyncClient], make: str
) -> None:
    limit_tier("anonymous", 1)
    get = async_to_sync(kind().get) if kind is AsyncClient else kind().get
    with override_settings(RATELIMIT_TIERS={"RESPONSE": f"tests.site.{make}"}):
        get("/plain/")
        response = get("/plain/")
    assert (response.status_code, response.text) == (429, "0 users")


@pytest.mark.parametrize("path", ["/plain/", "/nothing/", "/marked/", "/at-the-door/"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_setting_response_may_make_a_page_that_is_yet_to_be_rendered(
    kind: type[Client] | type[AsyncClient], path: str
) -> None:
    limit_tier("anonymous", 1)
    make_rule("at-the-door", 1)
    get = async_to_sync(kind().get) if kind is AsyncClient else kind().get
    with override_settings(RATELIMIT_TIERS={"RESPONSE": "tests.site.busy"}):
        get(path)
        response = get(path)
    assert (response.status_code, response.text) == (429, "0 users")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_receiver_of_the_signal_may_ask_the_database(
    kind: type[Client] | type[AsyncClient],
) -> None:
    counted = []

    def receive(**_: object) -> None:
        counted.append(User.objects.count())

    limit_tier("anonymous", 1)
    get = async_to_sync(kind().get) if kind is AsyncClient else kind().get
    request_throttled.connect(receive)
    try:
        assert [get("/plain/").status_code for _ in range(2)] == [200, 429]
    finally:
        request_throttled.disconnect(receive)
    assert counted == [0]


@pytest.mark.parametrize(
    "accept", ["application/json", "application/problem+json", "text/html", "text/plain"]
)
def test_a_rule_that_is_not_disclosed_tells_only_when_to_retry(client: Client, accept: str) -> None:
    limit_tier("anonymous", 100)
    make_rule("plain", 1, disclose=False)
    allowed = client.get("/plain/")
    response = client.get("/plain/", headers={"Accept": accept})
    assert response.status_code == 429
    assert "plain-31622400s" not in str(allowed.headers) + str(response.headers) + response.text
    assert not set(response.headers) & (X_FIELDS | DRAFT_FIELDS)
    body = re.sub(r"<head>.*?</head>|<[^>]*>|429", "", response.text, flags=re.DOTALL)
    assert not re.search(r"\d", body)
    assert int(response.headers["Retry-After"]) >= 1


def test_the_refusing_policy_with_the_longest_wait_is_the_one_told(client: Client) -> None:
    limit_tier("anonymous", {"requests": 1, "period": 3600}, {"requests": 1, "period": 86_400 * 30})
    client.get("/plain/")
    response = client.get("/plain/")
    names = re.findall(r'"([^"]+)";r=0;t=(\d+)', response.headers["RateLimit"])
    waits = {name: int(wait) for name, wait in names}
    assert set(waits) == {"anonymous-hour", "anonymous-2592000s"}
    assert int(response.headers["Retry-After"]) == max(waits.values())


def test_the_allowed_policy_with_the_fewest_requests_left_is_the_one_told(client: Client) -> None:
    limit_tier("anonymous", {"requests": 50, "period": 3600}, {"requests": 20, "period": 86_400})
    make_rule("plain", {"requests": 5, "period": 7200})
    response = client.get("/plain/")
    assert response.headers["X-RateLimit-Limit"] == "5"
    assert response.headers["X-RateLimit-Remaining"] == "4"
    assert len(re.findall(r";r=", response.headers["RateLimit"])) == 3


def test_the_limit_told_of_a_token_bucket_is_its_capacity(client: Client) -> None:
    bucket = {"requests": 10, "burst": 15, "period": 3600, "algorithm": "token_bucket"}
    limit_tier("anonymous", bucket)
    response = client.get("/plain/")
    assert response.headers["X-RateLimit-Limit"] == "15"
    assert response.headers["X-RateLimit-Remaining"] == "14"
    assert "drt-burst=15" in response.headers["RateLimit-Policy"]


def test_only_a_refusal_carries_its_decision_as_caches_keep_other_responses(client: Client) -> None:
    limit_tier("anonymous", 1)
    allowed, refused = client.get("/plain/"), client.get("/plain/")
    assert (allowed.status_code, refused.status_code) == (200, 429)
    assert not hasattr(allowed, "ratelimit_decision")
    assert refused.ratelimit_decision.refusing


def test_fields_are_where_django_itself_would_put_them() -> None:
    policy = QuotaPolicy('a "quoted" name, é', 5, 60)
    decision = Decision((Outcome(Charge("user:1", policy), False, 0, 60_000_000, 60_000_000),), 1)
    ours, theirs = HttpResponse(), HttpResponse()
    for response in (ours, theirs):
        response["x-ratelimit-LIMIT"] = "set by the view"
    add_fields(ours, decision)
    for name, value in header_fields(decision, conf.HEADERS).values():
        theirs[name] = value
    theirs["Cache-Control"] = "no-store"
    assert ours.serialize_headers() == theirs.serialize_headers()
    assert ours["X-RateLimit-Limit"] == "5"


POLICY = QuotaPolicy("free-minute", 60, 60)
SECRET = QuotaPolicy("secret", 60, 60, disclose=False)
SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


def decision_of(
    policy: QuotaPolicy = POLICY,
    *,
    subject: str = "user:1",
    now: int = NOW,
    wait: int = 30 * SECOND,
    id: str = "one",  # noqa: A002 - as in `Decision`
    others: tuple[Outcome, ...] = (),
) -> Decision:
    refused = Outcome(Charge(subject, policy), False, 0, wait + 7, wait)
    return Decision((refused, *others), now, id=id)


def answered(decision: Decision, accept: str | None = None) -> HttpResponse:
    headers = {} if accept is None else {"Accept": accept}
    return drive(refusal(RequestFactory().get("/", headers=headers), decision))


def apart(decision: Decision, accept: str | None) -> HttpResponse:
    """Return the answer that is made for this decision alone, as a page always is."""
    if accept == "text/html":
        return answered(decision, accept)
    body, content_type, status, fields = _answer(accept or FORMS[0], tuple(conf.HEADERS), decision)
    response = HttpResponse(body, content_type=content_type, status=status)
    for name, value in fields.values():
        response.headers[name] = value
    return response


FORMS = ["application/json", "application/problem+json", "text/html", "text/plain"]


@pytest.mark.parametrize("accept", [None, *FORMS])
@pytest.mark.parametrize("policy", [POLICY, SECRET])
@pytest.mark.parametrize("wait", [1, 999_999, SECOND, SECOND + 1, 30 * SECOND])
@pytest.mark.parametrize("styles", [[], ["x-ratelimit"], ["ratelimit-draft-11", "x-ratelimit"]])
def test_an_answer_that_is_used_again_is_the_one_made_for_the_decision(
    accept: str | None, policy: QuotaPolicy, wait: int, styles: list[str]
) -> None:
    with override_settings(RATELIMIT_TIERS={"HEADERS": styles}):
        for now in (NOW, NOW + 1, NOW + 999_999, NOW + 999_993):
            decision = decision_of(policy, now=now, wait=wait)
            expected, answers = apart(decision, accept), [answered(decision, accept)] * 2
            for answer in answers:
                assert answer.content == expected.content
                assert list(answer.headers.items()) == list(expected.headers.items())
                assert answer.status_code == expected.status_code == 429
                assert answer.ratelimit_decision is decision


@pytest.mark.parametrize("accept", FORMS)
def test_no_answer_outlives_its_second(accept: str) -> None:
    told = {}
    for passed in range(0, 3 * SECOND, SECOND // 4):
        answer = answered(decision_of(now=NOW + passed, wait=3 * SECOND - passed), accept)
        told[passed] = int(answer.headers["Retry-After"])
        assert f"t={told[passed]}" in answer.headers["RateLimit"]
        assert int(answer.headers["X-RateLimit-Reset"]) == NOW // SECOND + 4
        assert f"in {told[passed]} second" in answer.text
    assert list(told.values()) == [3] * 4 + [2] * 4 + [1] * 4


@pytest.mark.parametrize("accept", FORMS)
def test_clients_that_are_told_the_same_see_only_their_own_decision(accept: str) -> None:
    answers = [answered(decision_of(subject=f"user:{n}", id=f"id-{n}"), accept) for n in range(3)]
    ids = [answer.headers["X-RateLimit-Decision"] for answer in answers]
    assert ids == ["id-0", "id-1", "id-2"]


def test_what_is_done_to_one_answer_is_not_seen_in_the_next() -> None:
    first = answered(decision_of())
    first.headers["X-Other"] = "1"
    del first.headers["Retry-After"]
    first.write(b"more")
    first.set_cookie("a", "b")
    second = answered(decision_of())
    assert second.headers["Retry-After"] == "30"
    assert "X-Other" not in second.headers
    assert b"more" not in second.content
    assert not second.cookies


def test_a_refusal_without_an_id_names_no_decision() -> None:
    assert answered(decision_of()).headers["X-RateLimit-Decision"] == "one"
    assert "X-RateLimit-Decision" not in answered(decision_of(id="")).headers


def test_an_edited_policy_is_told_at_once() -> None:
    edited = replace(POLICY, requests=61)
    assert answered(decision_of()).headers["X-RateLimit-Limit"] == "60"
    assert answered(decision_of(edited)).headers["X-RateLimit-Limit"] == "61"


def test_several_policies_are_all_told() -> None:
    other = Outcome(Charge("user:1", QuotaPolicy("day", 9, 86_400)), True, 5, SECOND, None)
    assert '"day"' in answered(decision_of(others=(other,))).headers["RateLimit"]


def test_answers_that_are_remembered_are_bounded() -> None:
    for second in range(1, MOST_ANSWERS + 100):
        answered(decision_of(wait=second * SECOND))
    assert _answer_alike.cache_info().currsize == MOST_ANSWERS


@pytest.mark.parametrize(
    "accept", ["nonsense;;;q=x,,/", "a" * 20_000, "text/html;q=nan", "*/*;q=0", ",", "\xff\x00"]
)
def test_a_hostile_accept_is_answered_with_the_usual_body(accept: str) -> None:
    usual, hostile = answered(decision_of()), answered(decision_of(), accept)
    assert hostile.status_code == usual.status_code
    assert hostile.headers["Content-Type"] in {"application/json", "text/html; charset=utf-8"}


def test_a_page_is_made_for_each_decision_as_a_site_may_name_it() -> None:
    page = "{{ decision.id }}"
    loaders = [("django.template.loaders.locmem.Loader", {PAGE: page})]
    engine = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": loaders},
    }
    with override_settings(TEMPLATES=[engine]):
        texts = [answered(decision_of(id=name), "text/html").text for name in ("a", "b")]
    assert texts == ["a", "b"]
