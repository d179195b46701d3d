"""Whatever arrives is answered as Django alone would answer it, and charged once."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.test.client import AsyncClientHandler, ClientHandler, FakePayload
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from django_ratelimit_tiers.core.addresses import address_subject, client_address
from django_ratelimit_tiers.models import EndpointRule
from django_ratelimit_tiers.policy.ledgers import CREDENTIAL, LONGEST_METHOD, open_ledger
from tests.policies import limit_tier, make_rule, used

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

PROXIES = ["10.0.0.0/8", "127.0.0.1/32"]
PLENTY = 1_000_000_000
EXAMPLES = 120

wire_text = st.text(st.characters(max_codepoint=255), max_size=40)
"""What a server hands on of bytes that came over the wire."""

addresses = st.one_of(
    st.sampled_from(["127.0.0.1", "10.1.2.3", "::1", "fe80::1%eth0", "", "unix:", "1.2.3.4:80"]),
    st.ip_addresses().map(str),
    wire_text,
)
methods = st.one_of(
    st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "TRACE", "get", "", "GET ", "PATCH\0"]),
    wire_text,
)
paths = st.builds(
    str.__add__,
    st.sampled_from(["/plain/", "/async/", "/drf/", "/body/", "/awho/", "/", "//", "", "plain"]),
    st.one_of(wire_text, st.sampled_from(["", "../", "200/", "\0", "%2e%2e/", "/" * 999])),
)
NAMES = """X-FORWARDED-FOR FORWARDED X-REAL-IP AUTHORIZATION X-API-KEY COOKIE ACCEPT ORIGIN HOST
ACCESS-CONTROL-REQUEST-METHOD USER-AGENT X-KEY ACCEPT-LANGUAGE"""
headers = st.dictionaries(
    st.sampled_from(NAMES.split()),
    st.one_of(
        wire_text,
        st.sampled_from(
            [
                "rlt_" + "x" * 300,
                "Bearer rlt_\xff",
                "sessionid=\xff; sessionid=" + "a" * 40,
                ",".join(["10.0.0.1"] * 500),
                'for="[::1]:80";for=_x, for=unknown',
                "q=0.5,text/html;q=nan,*/*",
                "a" * 20_000,
            ]
        ),
    ),
    max_size=4,
)
content_types = st.one_of(
    st.sampled_from(
        [
            "application/json",
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=hex",
            "application/x-www-form-urlencoded; charset=utf-16",
            "application/json; charset=idna",
            "multipart/form-data",
            "multipart/form-data; boundary=x",
            "text/plain",
            "",
        ]
    ),
    wire_text,
)
bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b'{"username": "\\ud800"}',
            b'{"username": ' + b"9" * 5000 + b"}",
            b"[" * 20_000,
            b"username=%ff%00&username=x",
            b"&".join([b"a=1"] * 3000),
            b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nanna\r\n--x--\r\n',
            b"--x\r\nContent-Disposition: form-data\r\n\r\n",
            b'{"username": {"a": 1}}',
        ]
    ),
)
lengths = st.one_of(st.none(), st.sampled_from(["", "x", "-1", "0", "99999999999"]))


@st.composite
def requests(draw: st.DrawFn, path: st.SearchStrategy[str] = paths) -> dict[str, Any]:
    """Environments of requests as WSGI servers make them."""
    body = draw(bodies)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": draw(methods),
        "SCRIPT_NAME": "",
        "PATH_INFO": draw(path),
        "QUERY_STRING": draw(st.text(st.characters(max_codepoint=127), max_size=20)),
        "REMOTE_ADDR": draw(addresses),
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "testserver",
        "CONTENT_TYPE": draw(content_types),
        "CONTENT_LENGTH": draw(lengths),
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.input": body,
    }
    if environ["CONTENT_LENGTH"] is None:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in draw(headers).items():
        environ[f"HTTP_{name.replace('-', '_')}"] = value
    return environ


def answer(environ: dict[str, Any]) -> HttpResponse:
    handler = ClientHandler(enforce_csrf_checks=False)
    return handler({**environ, "wsgi.input": BytesIO(environ["wsgi.input"])})


@async_to_sync
async def aanswer(environ: dict[str, Any]) -> HttpResponse:
    lines = {name[5:].replace("_", "-"): v for name, v in environ.items() if name[:5] == "HTTP_"}
    lines |= {"CONTENT-TYPE": environ["CONTENT_TYPE"], "CONTENT-LENGTH": environ["CONTENT_LENGTH"]}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": "http",
        "path": environ["PATH_INFO"],
        "query_string": environ["QUERY_STRING"].encode("latin-1"),
        "client": [environ["REMOTE_ADDR"], 0],
        "server": ("testserver", 80),
        "headers": [
            (name.lower().encode(), value.encode("latin-1")) for name, value in lines.items()
        ],
        "_body_file": FakePayload(environ["wsgi.input"]),
    }
    return await AsyncClientHandler(enforce_csrf_checks=False)(scope)


ANSWERS = {"sync": answer, "async": aanswer}


def limits(**values: Any) -> Any:
    return override_settings(RATELIMIT_TIERS={"TRUSTED_PROXIES": PROXIES, **values})


@pytest.fixture(autouse=True)
def _rules() -> None:
    limit_tier("anonymous", PLENTY)
    make_rule("bodies", PLENTY, path="/body/**", identify_by="field", request_field="username")
    make_rule("everything", PLENTY, path="/**", scope="route", identify_by="everyone")
    make_rule("refused", 1, path="/refused/**", cost=2)


def is_readable(environ: dict[str, Any]) -> bool:
    """Return whether Django can make a request of this at all."""
    try:
        WSGIRequest({**environ, "wsgi.input": BytesIO(environ["wsgi.input"])})
    except Exception:
        return False
    return True


def is_preflight(environ: dict[str, Any]) -> bool:
    asks = {"HTTP_ORIGIN", "HTTP_ACCESS_CONTROL_REQUEST_METHOD"}
    is_asked = environ["REQUEST_METHOD"].upper() == "OPTIONS" and asks <= environ.keys()
    return is_asked and not any(v for name, v in environ.items() if CREDENTIAL.match(name))


UNUSUAL = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("colour", ANSWERS)
@given(environ=requests())
@UNUSUAL
def test_a_hostile_request_is_answered_as_without_limits_and_charged_once(
    valkey_client: redis.Redis, colour: str, environ: dict[str, Any]
) -> None:
    assume(is_readable(environ))
    ask = ANSWERS[colour]
    with limits(ENABLED=False):
        expected = ask(environ).status_code
    valkey_client.flushall()
    with limits():
        assert ask(environ).status_code == expected
        charged = used(valkey_client)
    if not is_preflight(environ):
        told = {name[5:].replace("_", "-"): v for name, v in environ.items() if name[:5] == "HTTP_"}
        address = client_address(environ["REMOTE_ADDR"], told, trusted_proxies=PROXIES)
        assert charged.get(address_subject(address), [])[:1] == [1]


@pytest.mark.parametrize("colour", ANSWERS)
@given(environ=requests(st.builds(str.__add__, st.just("/refused/"), wire_text)))
@UNUSUAL
def test_no_form_of_a_request_escapes_its_refusal(colour: str, environ: dict[str, Any]) -> None:
    assume(is_readable(environ) and not is_preflight(environ))
    with limits():
        response = ANSWERS[colour](environ)
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1


def test_a_request_that_code_has_made_need_not_have_a_method() -> None:
    assert open_ledger(HttpRequest()).method == ""


def test_long_methods_are_cut_before_they_are_remembered(rf: RequestFactory) -> None:
    ledgers = [open_ledger(rf.generic("M" * 60_000 + end, "/plain/")) for end in "ab"]
    assert [ledger.method for ledger in ledgers] == ["M" * LONGEST_METHOD] * 2
    assert EndpointRule._meta.get_field("methods").max_length < LONGEST_METHOD
