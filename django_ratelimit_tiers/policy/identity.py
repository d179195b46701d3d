"""Who is asking: address, presented keys, user and verified API key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import Model
from django.http import HttpRequest
from django.utils.functional import LazyObject, SimpleLazyObject, empty

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.addresses import address_subject, client_address
from django_ratelimit_tiers.core.rules import IdentifyBy, Rule
from django_ratelimit_tiers.digests import key_digest, key_digests
from django_ratelimit_tiers.policy.fields import field_subject
from django_ratelimit_tiers.policy.flows import Step

SERVICE_KEY_PREFIX = "rlt_"
"""How the keys of service accounts begin; nothing else is looked up."""

LONGEST_REMEMBERED = 200
"""Longer headers of proxies are not remembered: a client can make them long."""

UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""What no subject may have in it: the separator of `core.refusals`, and halves of a character."""

AUTHENTICATION_MODULE = "django.contrib.auth.middleware"


@dataclass(frozen=True, slots=True)
class Client:
    """Who is asking, as subjects; None where nobody was identified.

    `subject` is whom the client's tier counts: the user, else the verified key, else the address.
    """

    address: str
    address_subject: str
    user_subject: str | None = None
    key_digests: tuple[str, ...] = ()
    subject: str = field(init=False)

    def __post_init__(self) -> None:
        subject = self.user_subject or self.key_subject or self.address_subject
        object.__setattr__(self, "subject", subject)

    @property
    def key_subject(self) -> str | None:
        """The verified API key."""
        return self.key_digests[0] if self.key_digests else None

    @property
    def is_anonymous(self) -> bool:
        """Whether neither a user nor a verified key is known."""
        return self.user_subject is None and not self.key_digests


def address_client(request: HttpRequest) -> Client:
    """Return the client as known before authentication."""
    meta, proxies, prefix = request.META, conf.TRUSTED_PROXIES, conf.IPV6_PREFIX
    peer = meta.get("REMOTE_ADDR") or ""
    if not proxies:
        return _address_client(peer, "", "", (), prefix)
    header = conf.CLIENT_IP_HEADER
    # `request.headers` would look at every field of the request.
    value = meta.get("HTTP_" + header.upper().replace("-", "_"), "")
    find = _address_client if len(value) <= LONGEST_REMEMBERED else _address_client.__wrapped__
    return find(peer, value, header, proxies, prefix)


@lru_cache(maxsize=8192)
def _address_client(
    peer: str, value: str, header: str, proxies: int | Sequence[str], ipv6_prefix: int
) -> Client:
    address = client_address(peer, {header: value}, trusted_proxies=proxies, header=header)
    return Client(address, address_subject(address, ipv6_prefix))


def identified_client(door: Client, user: Any, keys: tuple[str, ...]) -> Client:
    """Return the client as known after authentication; `keys` are the digests of its API key.

    A row of another model than that of users is named by its model, too: it must not be taken for
    the user of the same number.
    """
    subject, number = None, user_number(user)
    if number is not None:
        model = _other_model(user.__class__)  # that of what a lazy one stands for
        subject = f"user:{model}-{number}" if model else f"user:{number}"
    return Client(door.address, door.address_subject, subject, keys)


def user_number(user: Any) -> Any:
    """Return the primary key of an authenticated user, None for anybody else.

    A user without one, such as one that only a token describes, is nobody that could be told from
    others: the API key or the address counts. What no store and no row can hold, and a list or
    dict, as a token may say, has a digest in its place.
    """
    number = getattr(user, "pk", None) if getattr(user, "is_authenticated", False) else None
    if number.__class__ is str and UNWRITABLE.search(number):
        return key_digest(number)
    try:
        hash(number)
    except TypeError:
        return key_digest(str(number))
    return number


@lru_cache(maxsize=1024)
def _other_model(kind: type) -> str:
    """Return the name of a model that is not that of users, empty for any other type."""
    is_other = issubclass(kind, Model) and not issubclass(kind, get_user_model())
    return kind._meta.label_lower if is_other else ""  # type: ignore[attr-defined]


def verified_key(key_id: object) -> tuple[str, ...]:
    """Return the digests of the id of a verified API key, nothing if there is none.

    Raises TypeError for True and False, which would make all keys of the site one client.
    """
    if isinstance(key_id, bool):
        raise TypeError(
            f"API_KEY_RESOLVER ({conf.API_KEY_RESOLVER}) must return the id of a verified key, "
            f"such as 7 or 'k7', or None, not {key_id!r}"
        )
    return () if key_id is None or key_id == "" else tuple(key_digests(str(key_id)))


def presented_service_keys(request: HttpRequest) -> Iterator[str]:
    """Yield the digests of what the request presents as the key of a service account."""
    for value in (
        request.META.get("HTTP_X_API_KEY", ""),
        request.META.get("HTTP_AUTHORIZATION", "").partition(" ")[2].strip(),
    ):
        if value.startswith(SERVICE_KEY_PREFIX) and len(value) <= 200:
            yield from key_digests(value)


def rule_subject(rule: Rule, client: Client, request: HttpRequest) -> str:
    """Return whom a rule counts for this request; one by user must not be asked without any."""
    match rule.identify_by:
        case IdentifyBy.USER_OR_IP | IdentifyBy.USER:
            return client.user_subject or client.address_subject
        case IdentifyBy.IP:
            return client.address_subject
        case IdentifyBy.EVERYONE:
            return "all"
        case IdentifyBy.API_KEY:
            return client.key_subject or client.address_subject
        case IdentifyBy.FIELD:
            return field_subject(request, rule.request_field) or client.address_subject


def request_user(request: HttpRequest) -> Any:
    """Return the user that sessions or other code have given a request, None when nobody has.

    Where that takes reading a session, the step that does it is returned. In a session without a
    key Django's own middleware could only find nobody; a user that other code has put there counts.
    """
    user = getattr(request, "user", None)
    if not isinstance(user, LazyObject):
        return user
    awake = _lazy_state(user)["_wrapped"]
    if awake is not empty:
        return awake
    if _is_of_session(user) and _session_key(request) is None:
        return None
    return Step(lambda: session_user(request), lambda: asession_user(request))


def session_user(request: HttpRequest) -> Any:
    """Return the user without leaving a trace: the view's own look still varies on the cookie."""
    before = _unread_session(request)
    user = _awake(request.user)
    if before is not None:
        _hide_access(request, user, before)
    return user


async def asession_user(request: HttpRequest) -> Any:
    """Return what `session_user` returns, on an event loop."""
    if not _is_unread(request.user):
        return _awake(request.user)
    if not _is_of_session(request.user):
        # What other code has put there may ask the database as soon as it is looked at.
        user = await sync_to_async(session_user)(request)
        return user  # noqa: RET504 - what comes out of a thread has no type
    before = _unread_session(request)
    user = await request.auser()
    if before is not None:
        _hide_access(request, user, before)
    return user


def _unread_session(request: HttpRequest) -> dict[str, Any] | None:
    """Return the state of a session that nobody has read yet, None if there is none.

    A site may put something else in its place, such as a dictionary.
    """
    session = getattr(request, "session", None)
    is_read = not isinstance(session, SessionBase) or session.accessed
    return None if is_read else dict(vars(session))


def _hide_access(request: HttpRequest, user: Any, unread: dict[str, Any]) -> None:
    """Put back a lazy user, and mark the session as accessed once somebody else reads it.

    A session that was changed by being read stays as it is: the change has to be saved. One that
    was found to be gone is unread again until then, or its cookie would be deleted for no view's
    sake.
    """
    session, read = request.session, None
    if not session.accessed or session.modified:
        return
    if session.is_empty():
        read = dict(vars(session))
        _restore(session, unread)
    session.accessed = False

    def reveal() -> Any:
        if read is not None and not session.accessed:
            _restore(session, read)
        request.session.accessed = True
        return user

    async def areveal() -> Any:
        return reveal()

    request.user = SimpleLazyObject(reveal)  # type: ignore[assignment]
    request.auser = areveal


def _restore(session: Any, state: dict[str, Any]) -> None:
    vars(session).clear()
    vars(session).update(state)


def _awake(user: Any) -> Any:
    """Return what a lazy object stands for."""
    if not isinstance(user, LazyObject):
        return user
    if _is_unread(user):
        bool(user)  # wakes it
    return _lazy_state(user)["_wrapped"]


def _is_unread(user: Any) -> bool:
    return isinstance(user, LazyObject) and _lazy_state(user)["_wrapped"] is empty


def _is_of_session(user: Any) -> bool:
    """Return whether an unread user is the one of Django's own middleware."""
    if type(user) is not SimpleLazyObject:
        return False
    return bool(_lazy_state(user)["_setupfunc"].__module__ == AUTHENTICATION_MODULE)


def _session_key(request: HttpRequest) -> Any:
    """Return the key of a session, None without one; to ask for it reads no session."""
    return getattr(getattr(request, "session", None), "session_key", None)


def _lazy_state(user: Any) -> dict[str, Any]:
    """Return what a lazy object holds, without waking it."""
    state: dict[str, Any] = object.__getattribute__(user, "__dict__")
    return state
