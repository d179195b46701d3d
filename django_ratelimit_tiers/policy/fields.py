"""Fields of a request's body by which a rule may count, such as the username of a login."""

from __future__ import annotations

import json
import unicodedata
from io import BytesIO
from typing import Any

from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, QueryDict, RawPostDataException
from django.http.multipartparser import MultiPartParser, MultiPartParserError

from django_ratelimit_tiers.digests import key_digest

MAX_BODY = 65_536
"""The longest body, in bytes, that is read."""

TOO_LONG = "field:too-long"
"""The one subject of all longer bodies: padding a body must not make a client of its own."""

UNCLEAR = "field:unclear"
"""The one subject of all bodies that name several: a decoy must not make one, either."""

UNREADABLE = (
    ValueError,
    LookupError,  # a character set that Python knows, but not for text
    RecursionError,
    OSError,
    BadRequest,
    SuspiciousOperation,
    MultiPartParserError,
    RawPostDataException,  # other code has read it as a stream
)
"""What reading a malformed body raises."""


def field_subject(request: HttpRequest, name: str) -> str | None:
    """Return whom a request names in a field of its body, None when it names nobody.

    Bodies over 64 KiB are not read, and count together. So do those that name one to a reader of
    forms and another to a reader of JSON.
    """
    if _is_too_long(request):
        return TOO_LONG
    subjects = {value_subject(value) for value in field_values(request, name)}
    if len(subjects) > 1:
        return UNCLEAR
    return subjects.pop() if subjects else None


def value_subject(value: str) -> str:
    """Return the subject of a field's value: a keyed digest, equal for all ways to write it.

    Case, accents, width and white space make no difference, as they make none to some databases
    and to Django's own login form: otherwise each would be a new name for the same account.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", value).casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return "field:" + key_digest(" ".join(plain.split())).removeprefix("key:")


def field_values(request: HttpRequest, name: str) -> set[str]:
    """Return what a field of the body is to a view, as text: several if it depends on the view.

    The body stays readable for the view, which parses forms itself: with its own upload handlers,
    and with Django's answers to malformed ones. A body is read as JSON whatever it is called and
    as a form whatever the method, because views may do so, too.
    """
    values = [request.POST.get(name)] if hasattr(request, "_post") else []
    try:
        body = request.body
    except UNREADABLE:
        pass
    else:
        values += [_form_value(request, body, name), _member(body, name)]
    return {str(value) for value in values if isinstance(value, str | int) and str(value).strip()}


def _form_value(request: HttpRequest, body: bytes, name: str) -> Any:
    """Parse a form apart from the request, and none of its files."""
    try:
        if request.content_type == "application/x-www-form-urlencoded":
            return QueryDict(body, encoding="utf-8").get(name)
        if request.content_type == "multipart/form-data":
            meta = {**request.META, "CONTENT_LENGTH": len(body)}
            return MultiPartParser(meta, BytesIO(body), [], request.encoding).parse()[0].get(name)
    except UNREADABLE:
        pass
    return None


def _is_too_long(request: HttpRequest) -> bool:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BODY
    except ValueError:
        return False


def _member(body: bytes, name: str) -> Any:
    try:
        members = json.loads(body)
    except UNREADABLE:
        return None
    return members.get(name) if isinstance(members, dict) else None
