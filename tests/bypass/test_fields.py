"""Counting by a field of the request: one account is one counter, however its name is sent."""

from __future__ import annotations

import encodings.aliases
import json
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
from django.core.exceptions import TooManyFieldsSent, TooManyFilesSent
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict
from django.http.multipartparser import MultiPartParserError
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.serializers import IntegerField

from django_ratelimit_tiers.digests import key_digest
from django_ratelimit_tiers.policy.fields import (
    MAX_BODY,
    TOO_LONG,
    UNCLEAR,
    field_subject,
    field_values,
    value_subject,
)
from tests.policies import make_rule

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"

PART = '--b\r\nContent-Disposition: form-data; name="username"\r\n\r\nada\r\n'
FILE = '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n'
END = "--b--\r\n"

CHARSETS = st.sampled_from(sorted(set(encodings.aliases.aliases.values())))


def posted(data: Any, content_type: str) -> set[str]:
    return field_values(sent(data, content_type), "username")


def sent(body: Any, content_type: str) -> HttpRequest:
    return RequestFactory().generic("POST", "/", body, content_type=content_type)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"username": "ada"}', JSON),
        ('{"username": "ada"}', "application/json; charset=utf-8"),
        ('{"username": "ada"}', "application/vnd.api+json"),
        ('{"username": "ada"}', "text/plain"),
        ('{"username": "ada"}', FORM),
        ("username=ada", FORM),
        ("username=eve&username=ada", FORM),
        (PART + END, MULTIPART),
        (FILE + PART + END, MULTIPART),
    ],
)
def test_the_field_is_found_however_it_was_sent(body: str, content_type: str) -> None:
    assert posted(body, content_type) == {"ada"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", JSON),
        ("{", JSON),
        ("[" * 100_000, JSON),
        ('["username"]', JSON),
        ('{"username": ["ada"]}', JSON),
        ('{"username": {"a": "b"}}', JSON),
        ('{"username": null}', JSON),
        ('{"username": []}', JSON),
        ('{"username": "  "}', JSON),
        ("username=ada", "text/plain"),
        ("--b", MULTIPART),
        ("username=ada", "multipart/form-data"),
    ],
)
def test_a_body_that_cannot_be_read_has_no_such_field(body: str, content_type: str) -> None:
    assert posted(body, content_type) == set()


@given(
    st.binary(max_size=200),
    st.one_of(
        st.text(max_size=60),
        st.builds("{}; charset={}".format, st.sampled_from([JSON, FORM, MULTIPART]), CHARSETS),
    ),
)
def test_no_body_and_no_content_type_raises(body: bytes, content_type: str) -> None:
    request = RequestFactory().generic("POST", "/", body, content_type="text/plain")
    request.META["CONTENT_TYPE"] = content_type
    request._set_content_type_params(request.META)
    field_subject(request, "username")


@pytest.mark.parametrize("other", ["Ada", " ada ", "ADA", "ａｄａ", "ädä"])
def test_other_ways_to_write_a_name_are_the_same_account(other: str) -> None:
    assert value_subject(other) == value_subject("ada")


def test_a_header_of_a_part_that_some_versions_of_django_cannot_read_is_no_error() -> None:
    part = PART.replace('"username"', '"username"; x*=a; x*0=b')
    assert posted(part + END, MULTIPART) in (set(), {"ada"})


@pytest.mark.parametrize(
    "unseen", ["\u200b", "\u00ad", "\ufeff", "\u202e", "\0", "\x1f", "\ufe0f", "\u034f", "\u20dd"]
)
def test_characters_that_nobody_sees_make_no_other_account(unseen: str) -> None:
    for other in (f"{unseen}ada", f"a{unseen}da", f"ada{unseen}", f"ada {unseen}"):
        assert value_subject(other) == value_subject("ada")


def test_a_name_is_taken_apart_one_character_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """To bring many marks into order takes the square of their number."""
    lengths, normalize = [], unicodedata.normalize

    def counted(form: Any, text: str) -> str:
        lengths.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", counted)
    body = b'{"username": "ad\xcca' + b"\xec" * 32_000 + b"\xf2" * 32_000 + b'"}'  # each is a mark
    subject = field_subject(sent(body, "application/json; charset=cp1258"), "username")
    assert subject == value_subject("ada")
    assert max(lengths, default=0) < 20


def test_white_space_between_words_is_one_space_whatever_it_is() -> None:
    for space in "\t\n\r\x85\u00a0\u3000":
        assert value_subject(f"ada{space} lovelace") == value_subject("ada lovelace")
        assert value_subject(f"ada{space}lovelace") != value_subject("adalovelace")


@pytest.mark.parametrize("other", ["042", "+42", "-42", " 42 ", "42.0", "42.", "4_2", "٤٢", "-0"])
def test_a_number_is_one_however_an_integer_field_lets_it_be_written(other: str) -> None:
    number = IntegerField().to_internal_value(other)
    assert value_subject(other) == value_subject(str(number))


def test_a_number_of_json_is_the_one_that_a_query_finds() -> None:
    for written in ("42", "42.0", "42.5", "4.2e1", '"042"'):
        request = sent(f'{{"username": {written}}}', JSON)
        assert field_subject(request, "username") == value_subject("42")


@pytest.mark.parametrize(
    ("written", "name"),
    [("Infinity", "inf"), ("-Infinity", "-inf"), ("NaN", "nan"), ("1e999", "inf")],
)
def test_a_number_of_json_that_no_query_finds_is_a_name(written: str, name: str) -> None:
    request = sent(f'{{"username": {written}}}', JSON)
    assert field_subject(request, "username") == value_subject(name)


def test_digits_of_other_scripts_are_digits_in_names() -> None:
    assert value_subject("ada٤٢") == value_subject("ada42")


@given(st.from_regex(r"[ -~]*[A-Za-z@][ -~]*", fullmatch=True))
def test_names_and_addresses_in_plain_letters_are_only_lowered_and_trimmed(name: str) -> None:
    digest = key_digest(" ".join(name.lower().split()))
    assert value_subject(name) == "field:" + digest.removeprefix("key:")


def test_two_names_are_two_accounts_and_neither_can_be_read() -> None:
    assert value_subject("ada") != value_subject("eve")
    assert "ada" not in value_subject("ada")


@pytest.mark.parametrize("decoy", ["eve", "bob"])
def test_bodies_that_name_another_to_readers_of_forms_are_one_client(decoy: str) -> None:
    request = sent(f'{{"username": "ada", "x": "&username={decoy}&"}}', FORM)
    assert field_subject(request, "username") == UNCLEAR


def test_a_name_that_is_written_in_two_ways_is_clear() -> None:
    request = sent('{"username": "ada", "x": "&username=ADA&"}', FORM)
    assert field_subject(request, "username") == value_subject("ada")


@pytest.mark.parametrize("charset", ["utf-7", "cp037", "utf-16", "iso-8859-1", "cp1251"])
@pytest.mark.parametrize(
    ("body", "content_type"), [('{"username": "ada"}', JSON), ("username=ada", FORM)]
)
def test_a_body_is_read_in_the_character_set_that_it_declares(
    body: str, content_type: str, charset: str
) -> None:
    request = sent(body.encode(charset), f"{content_type}; charset={charset}")
    assert field_subject(request, "username") == value_subject("ada")


def test_a_body_without_a_character_set_is_in_that_of_the_site(settings: Any) -> None:
    settings.DEFAULT_CHARSET = "cp037"
    request = sent('{"username": "ada"}', JSON)
    assert request.body == '{"username": "ada"}'.encode("cp037")
    assert field_values(request, "username") == {"ada"}


def test_bodies_that_name_another_in_their_character_set_are_one_client() -> None:
    request = sent('{"username": "+AGE-da"}', f"{JSON}; charset=utf-7")
    assert field_subject(request, "username") == UNCLEAR


def test_what_is_no_character_set_of_text_is_unclear() -> None:
    for charset in ("zlib", "hex", "rot13", "idna", "punycode", "undefined"):
        request = sent('{"username": "ada"}', f"{JSON}; charset={charset}")
        assert field_subject(request, "username") == UNCLEAR


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("username=ada", "*/*"),
        ("username=ada", "application/*"),
        ("username=ada", "*/x-www-form-urlencoded"),
        (PART + END, "multipart/*; boundary=b"),
    ],
)
def test_a_content_type_that_leaves_the_kind_open_hides_no_name(
    body: str, content_type: str
) -> None:
    parsers = [FormParser(), MultiPartParser()]
    assert Request(sent(body, content_type), parsers=parsers).data["username"] == "ada"
    assert posted(body, content_type) == {"ada"}


def test_the_beginning_of_a_character_at_the_end_hides_no_name() -> None:
    body = b'{"username": "ada"}\xc3'
    parsed = JSONParser().parse(BytesIO(body), parser_context={"encoding": "utf-8"})
    assert posted(body, JSON) == {parsed["username"]} == {"ada"}


def test_what_other_code_has_made_of_a_form_counts_as_well() -> None:
    request = sent("username=ada", FORM)
    request.POST = QueryDict("username=eve")
    assert field_subject(request, "username") == UNCLEAR


@pytest.mark.django_db
class TestLogin:
    @pytest.fixture(autouse=True)
    def rules(self) -> None:
        names = {"view_name": "login", "count": "failed", "disclose": False}
        make_rule("login-address", 4, **names)
        make_rule("login-name", 2, identify_by="field", request_field="username", **names)

    def guess(self, client: Client, username: str, address: str) -> int:
        body = json.dumps({"username": username, "password": "wrong"})
        return client.post("/api/login/", body, content_type=JSON, REMOTE_ADDR=address).status_code

    def test_one_address_that_tries_many_users_is_stopped(self, client: Client) -> None:
        statuses = [self.guess(client, f"user{n}", "192.0.2.1") for n in range(6)]
        assert statuses == [401] * 4 + [429] * 2

    def test_many_addresses_that_try_one_user_are_stopped(self, client: Client) -> None:
        statuses = [self.guess(client, "ada", f"192.0.2.{n}") for n in range(4)]
        assert statuses == [401] * 2 + [429] * 2

    def test_bodies_padded_beyond_reading_are_one_client(self, client: Client) -> None:
        padding = "x" * MAX_BODY
        statuses = []
        for n in range(4):
            fields = {"username": "ada", "password": "wrong", "padding": padding}
            address = f"192.0.2.{n}"
            statuses.append(client.post("/api/login/", fields, REMOTE_ADDR=address).status_code)
        assert statuses == [401] * 2 + [429] * 2

    def test_who_names_nobody_is_counted_by_address(self, client: Client) -> None:
        assert [self.guess(client, "", "192.0.2.1") for _ in range(3)] == [401, 401, 429]
        assert self.guess(client, "", "192.0.2.2") == 401

    def test_a_refused_guess_takes_nothing_from_its_address(self, client: Client) -> None:
        for _ in range(10):
            self.guess(client, "ada", "192.0.2.1")
        assert [self.guess(client, f"u{n}", "192.0.2.1") for n in range(3)] == [401, 401, 429]

    def test_neither_field_nor_number_of_a_hidden_rule_is_told(self, client: Client) -> None:
        for _ in range(3):
            response = client.post("/api/login/", {"username": "ada", "password": "wrong"})
        assert response.status_code == 429
        assert "Retry-After" in response.headers
        assert not [name for name in response.headers if "ratelimit" in name.lower()]
        assert "retry_after" not in response.json()


@pytest.mark.parametrize("content_type", [JSON, FORM])
def test_a_body_that_other_code_has_read_as_a_stream_is_left_alone(content_type: str) -> None:
    request = RequestFactory().post("/", '{"username": "ada"}', content_type=content_type)
    request.read()
    assert field_values(request, "username") == set()


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("body", "content_type"), [("username=ada", FORM), (PART + END, MULTIPART)]
)
def test_a_form_names_somebody_whatever_the_method(
    method: str, body: str, content_type: str
) -> None:
    request = RequestFactory().generic(method, "/", body, content_type=content_type)
    assert field_values(request, "username") == {"ada"}


@pytest.mark.parametrize(
    ("body", "content_type"), [("username=ada", FORM), (PART + END, MULTIPART)]
)
def test_a_form_that_other_code_has_parsed_names_somebody(body: str, content_type: str) -> None:
    request = sent(body, content_type)
    assert request.POST
    assert field_values(request, "username") == {"ada"}


def test_the_view_may_still_choose_how_to_store_files() -> None:
    request = sent(PART + FILE + END, MULTIPART)
    field_values(request, "username")
    request.upload_handlers = [MemoryFileUploadHandler(request)]
    assert request.POST["username"] == "ada"
    assert request.FILES["file"].read() == b"x"


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (PART + END, "multipart/form-data", MultiPartParserError),
        (FILE * 101 + END, MULTIPART, TooManyFilesSent),
        ("&a=" * 1001, FORM, TooManyFieldsSent),
    ],
)
def test_a_malformed_form_is_still_one_to_the_view(
    body: str, content_type: str, error: type[Exception]
) -> None:
    request = sent(body, content_type)
    field_values(request, "username")
    with pytest.raises(error):
        request.POST  # noqa: B018 (parses)


@contextmanager
def in_chunks(body: bytes) -> Iterator[HttpRequest]:
    """Yield what Django makes of a request without a length, which an ASGI server has received."""
    with SpooledTemporaryFile() as received:
        received.write(body)
        received.seek(0)
        yield ASGIRequest({"type": "http", "method": "POST", "path": "/"}, received)


@pytest.mark.parametrize("limit", [None, 2_621_440, 10])
def test_a_long_body_in_chunks_is_left_to_the_view_unread(limit: int | None, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = limit
    with in_chunks(b"x" * 3_000_000) as request:
        assert field_subject(request, "username") == TOO_LONG
        assert not hasattr(request, "_body")
        assert len(request.read()) == 3_000_000


@pytest.mark.parametrize("more", [0, 1])
def test_a_body_is_read_up_to_the_longest(more: int) -> None:
    body = '{"username": "ada"}'.ljust(MAX_BODY + more)
    expected = TOO_LONG if more else value_subject("ada")
    assert field_subject(sent(body, JSON), "username") == expected
    with in_chunks(body.encode()) as request:
        assert field_subject(request, "username") == expected


def test_a_body_over_the_limit_of_django_is_too_long(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    with in_chunks(b'{"username": "ada"}') as request:
        assert field_subject(request, "username") == TOO_LONG
        assert request.read() == b'{"username": "ada"}'


def test_a_short_body_in_chunks_names_somebody() -> None:
    with in_chunks(b'{"username": "ada"}') as request:
        assert field_subject(request, "username") == value_subject("ada")


def test_measuring_a_body_keeps_the_place_of_who_reads_it() -> None:
    with in_chunks(b'{"username": "ada"}') as request:
        request.read(5)
        assert field_subject(request, "username") is None
        assert request.read() == b'rname": "ada"}'
