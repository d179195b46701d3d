"""Fields of a request's body by which a rule may count, such as the username of a login."""

from __future__ import annotations

import codecs
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from io import SEEK_END, BytesIO

from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, QueryDict, RawPostDataException
from django.http.multipartparser import MultiPartParser, MultiPartParserError

from django_ratelimit_tiers.digests import key_digest

MAX_BODY = 65_536
"""The longest body, in bytes, that is read; less if Django's own limit is lower."""

TOO_LONG = "field:too-long"
"""The one subject of all longer bodies: padding a body must not make a client of its own."""

UNCLEAR = "field:unclear"
"""The one subject of all bodies that name several: no decoy must make a client of its own."""

HOST_NAMES = ("idna", "punycode")
"""Encodings of host names: to Python they are encodings of text, to HTTP they are not."""

UNSEEN = frozenset(("Cc", "Cf", "Me", "Mn"))
"""Control and format characters, and marks: many databases compare text without them."""

LINE_BREAKS = frozenset("\t\n\v\f\r\x85")
"""The control characters that they compare as white space."""

FORMS = ("x-www-form-urlencoded", "*")
"""How content types of forms end: DRF also takes one that leaves it open, such as "*/*"."""

NO_FRACTION = re.compile(r"\.0*\Z")

UNREADABLE = (
    ValueError,
    TypeError,  # by Python's reader of mail headers, which Django asks for those of parts
    LookupError,
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

    Bodies over 64 KiB, or over DATA_UPLOAD_MAX_MEMORY_SIZE, are not read, and count together. So
    do those that name one to some views and another to others: as a form and as JSON, or in the
    character set that they declare.
    """
    if _is_too_long(request):
        return TOO_LONG
    if not _is_charset(_charset(request)):
        return UNCLEAR
    subjects = {value_subject(value) for value in field_values(request, name)}
    if len(subjects) > 1:
        return UNCLEAR
    return subjects.pop() if subjects else None


def value_subject(value: str) -> str:
    """Return the subject of a field's value: a keyed digest, equal for all ways to write it.

    Case, accents, width and white space make no difference, as they make none to some databases
    and to Django's own login form: otherwise each would be a new name for the same account. Nor do
    the digits of other scripts, and zeros and signs of whole numbers, which are often read as such,
    nor characters that nobody sees.
    """
    plain = "".join(map(_plain, value))
    return "field:" + key_digest(_number(" ".join(plain.split()))).removeprefix("key:")


@lru_cache(maxsize=4096)
def _plain(letter: str) -> str:
    """Return what is left of one character.

    Each is taken apart by itself: only the order of marks depends on what stands beside, and marks
    are left out. To bring those of a long text into order may take seconds.
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letter).casefold())
    return "".join(map(_seen, letters))


def _seen(letter: str) -> str:
    if letter in LINE_BREAKS:
        return " "
    if unicodedata.category(letter) in UNSEEN or unicodedata.combining(letter):
        return ""
    return str(unicodedata.decimal(letter, letter))


def _number(text: str) -> str:
    """Write whole numbers in one way, as integer fields read them; other text is left as it is."""
    try:
        return str(int(NO_FRACTION.sub("", text)))
    except ValueError:
        return text


def field_values(request: HttpRequest, name: str) -> set[str]:
    """Return what a field of the body is to a view, as text: several if it depends on the view."""
    values = set()
    for read in _readers(request):
        with suppress(*UNREADABLE):
            fields = read()
            values.add(_text(fields.get(name)) if isinstance(fields, dict) else "")
    return values - {""}


def _text(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)  # as queries do: 42.5 finds what 42 finds
    return str(value).strip() if isinstance(value, str | int | float) else ""


def note_parsed(request: HttpRequest, fields: object) -> None:
    """Note what other code has made of a body, since that may have read it as a stream."""
    if isinstance(fields, dict):
        request._ratelimit_fields = fields  # type: ignore[attr-defined]


def _readers(request: HttpRequest) -> Iterator[Callable[[], object]]:
    """Yield all ways in which views may read the fields of a body.

    The body stays readable for the view, which parses forms itself: with its own upload handlers,
    and with Django's answers to malformed ones. A body is read as JSON whatever it is called and
    as a form whatever the method, because views may do so, too.
    """
    if hasattr(request, "_ratelimit_fields"):
        yield lambda: request._ratelimit_fields
    if hasattr(request, "_post"):
        yield lambda: request.POST
    try:
        body = request.body
    except UNREADABLE:
        return
    charset = _charset(request)
    for each in {json.detect_encoding(body), charset}:
        yield partial(_json, body, each)
    kind, _, form = (request.content_type or "").partition("/")
    if kind == "multipart":
        yield partial(_multipart, request, body, charset)
    elif form in FORMS:
        for each in {"utf-8", charset}:  # Django's own reader, and that of DRF
            yield partial(QueryDict, body, encoding=each)


def _json(body: bytes, charset: str) -> object:
    """Read as a stream is read, as DRF does: what is missing of a last character is no error."""
    return json.loads(codecs.getreader(charset)(BytesIO(body), "surrogatepass").read())


def _multipart(request: HttpRequest, body: bytes, charset: str) -> object:
    """Parse the fields of a form, and none of its files."""
    meta = {**request.META, "CONTENT_LENGTH": len(body)}
    return MultiPartParser(meta, BytesIO(body), [], charset).parse()[0]


def _charset(request: HttpRequest) -> str:
    return codecs.lookup(request.encoding or settings.DEFAULT_CHARSET).name


def _is_charset(encoding: str) -> bool:
    """Return whether an encoding is one of text; Python's others compress or write host names.

    Those may be slow to decode, or decode to much more than was sent.
    """
    try:
        "".encode(encoding)
    except (LookupError, UnicodeError):
        return False
    return encoding not in HOST_NAMES


def _is_too_long(request: HttpRequest) -> bool:
    """Return whether a body is longer than may be read, as its length says or has turned out."""
    most = min(settings.DATA_UPLOAD_MAX_MEMORY_SIZE or MAX_BODY, MAX_BODY)
    return max(_length_told(request), _length_received(request)) > most


def _length_told(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _length_received(request: HttpRequest) -> int:
    """Measure what ASGI has received and not read, since bodies in chunks tell no length."""
    try:
        stream = request._stream
        place = stream.tell()
        length: int = stream.seek(0, SEEK_END)
        stream.seek(place)
    except (AttributeError, OSError, ValueError):  # there is none, or it has no places
        return 0
    return length
