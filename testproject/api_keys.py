"""API keys: issued once, verified on every request that carries one in X-API-Key."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex, token_urlsafe

from django.contrib.auth.models import AbstractBaseUser, User
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from testproject.models import ApiKey

HEADER = "X-API-Key"
LONGEST_KEY = 200


def issue_key(owner: User) -> str:
    """Make a new key for a user and return it: it cannot be shown again."""
    key_id, secret = token_hex(8), token_urlsafe(32)
    ApiKey.objects.create(key_id=key_id, secret_digest=_digest(secret), owner=owner)
    return f"{key_id}.{secret}"


def verified_key(request: HttpRequest) -> ApiKey | None:
    """Return the key that the request proves to hold."""
    key = request.headers.get(HEADER, "")
    key_id, dot, secret = key.partition(".")
    if not dot or len(key) > LONGEST_KEY or not (key.isascii() and key.isprintable()):
        return None
    found = ApiKey.objects.select_related("owner").filter(key_id=key_id, revoked=False).first()
    if found and constant_time_compare(found.secret_digest, _digest(secret)):
        return found
    return None


def verified_key_id(request: HttpRequest) -> str | None:
    """Return the id of the key that the request proves to hold: the API_KEY_RESOLVER."""
    key = verified_key(request)
    return key.key_id if key else None


class ApiKeyAuthentication(BaseAuthentication):
    """Logs the owner of a verified key in for one request."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, ApiKey] | None:
        if HEADER not in request.headers:
            return None
        key = verified_key(request)
        if key is None or not key.owner.is_active:
            raise AuthenticationFailed("The API key is not valid.")
        return key.owner, key

    def authenticate_header(self, request: Request) -> str:
        return HEADER


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
