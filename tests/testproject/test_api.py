"""The test project is a real API: it logs in, verifies keys and keeps notes apart."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import translation
from rest_framework.authtoken.models import Token

from testproject.api_keys import issue_key
from testproject.models import ApiKey, Note

pytestmark = pytest.mark.django_db


@pytest.fixture
def anna() -> User:
    return User.objects.create_user("anna", password="right")


@pytest.mark.parametrize("options", [{"content_type": "application/json"}, {}])
def test_a_user_logs_in_by_json_and_by_form(
    client: Client, anna: User, options: dict[str, str]
) -> None:
    response = client.post("/api/login/", {"username": "anna", "password": "right"}, **options)
    assert response.json() == {"user": "anna"}
    assert client.get("/async/").json()["user"] == "anna"


def test_a_wrong_password_is_refused(client: Client, anna: User) -> None:
    response = client.post("/api/login/", {"username": "anna", "password": "wrong"})
    assert response.status_code == 401


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"username": 1, "password": null}', "[" * 100_000]
)
def test_malformed_credentials_are_told_so(client: Client, body: str) -> None:
    response = client.post("/api/login/", body, content_type="application/json")
    assert response.status_code == 400


def test_notes_are_their_owners_only(client: Client, anna: User) -> None:
    Note.objects.create(owner=User.objects.create_user("bert"), text="Bert's")
    client.force_login(anna)
    client.post("/api/notes/", {"text": "Anna's"})
    assert [note["text"] for note in client.get("/api/notes/").json()] == ["Anna's"]


def test_a_token_authenticates(client: Client, anna: User) -> None:
    token = Token.objects.create(user=anna)
    headers = {"Authorization": f"Token {token.key}"}
    assert client.get("/api/export/", headers=headers).json() == {"notes": []}


def test_an_issued_key_authenticates_and_only_its_digest_is_kept(
    client: Client, anna: User
) -> None:
    key = issue_key(anna)
    assert client.get("/api/export/", headers={"X-API-Key": key}).status_code == 200
    assert key.partition(".")[2] not in str(ApiKey.objects.values().get())


def test_a_revoked_key_is_refused(client: Client, anna: User) -> None:
    key = issue_key(anna)
    ApiKey.objects.update(revoked=True)
    assert client.get("/api/export/", headers={"X-API-Key": key}).status_code == 401


@pytest.mark.parametrize("key", ["", ".", "x.y", "a" * 5_000, "\x00.\x00", "ключ.ключ", "\ud800."])
def test_a_key_that_nobody_issued_is_refused(client: Client, key: str) -> None:
    assert client.get("/api/export/", headers={"X-API-Key": key}).status_code == 401


@pytest.mark.parametrize(
    ("path", "view"),
    [
        ("/api/files/../search/", "file"),
        ("/api/REPORTS/monthly", "report"),
        ("/api/items/007/", "item"),
        ("/api/orders/٧/", "item"),
        ("/plain/", "plain"),
    ],
)
def test_one_view_has_many_spellings(client: Client, path: str, view: str) -> None:
    assert client.get(path).json()["view"] == view


def test_a_language_prefix_reaches_the_same_view(client: Client) -> None:
    with translation.override(None):
        assert [client.get(f"/{code}/about/").text for code in ("en", "de")] == ["Yes", "Ja"]


def test_every_route_can_be_reversed() -> None:
    arguments = {"section": "reports", "name": "monthly"}
    assert reverse("report", kwargs=arguments).rstrip("/") == "/api/reports/monthly"
    assert reverse("note-list") == "/api/notes/"
