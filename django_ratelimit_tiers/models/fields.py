"""Fields that bring their value into one form before it reaches the database."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.lookups import IContains, IEndsWith, IExact, IStartsWith
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.core.webhooks import parse_webhook
from django_ratelimit_tiers.digests import DIGEST, key_digest

MAX_RAW_KEY = 255
"""The longest key that staff can type; its digest is always 36 characters."""

FIRST_YEAR, LAST_YEAR = 1970, 9000
"""What staff can type; in every time zone a moment of these years is one that Python can read."""

_SEPARATOR = re.compile(r"[\s,]+")
_METHOD = re.compile(r"[A-Za-z][A-Za-z-]*\Z")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def validate_year(moment: datetime) -> None:
    """Refuse a moment that some time zone has no date for, as “9999-12-31 23:59:59” is."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        years = {"first": FIRST_YEAR, "last": LAST_YEAR}
        raise ValidationError(_("The year must be from %(first)s to %(last)s."), "year", years)


def validate_webhook(url: str) -> None:
    """Refuse a URL that no notice could be sent to."""
    try:
        parse_webhook(url)
    except ValueError as error:
        raise ValidationError(str(error), "webhook") from error


class ExactCharField(models.CharField):  # type: ignore[type-arg]
    """A text that equals another in the database only if every character is the same.

    Most databases always do. MySQL and MariaDB by default make no difference between upper and
    lower case, letters with accents and without, or spaces at the end and none.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the type of the column, with a collation where the default one is not exact."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = _exact_collation(connection)
        return parameters


class ExactSlugField(ExactCharField, models.SlugField):  # type: ignore[type-arg]
    """A slug that differs from another by the case of a letter, too."""


class _CanonicalField(models.Field):  # type: ignore[type-arg]
    """A field whose `to_python` also decides what is stored, whoever stores it."""

    def get_prep_value(self, value: Any) -> Any:
        """Return the one form of what is stored or looked up."""
        return self.to_python(value)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Leave the one form on the instance too."""
        value = self.to_python(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value


class KeyDigestField(_CanonicalField, models.CharField):  # type: ignore[type-arg]
    """A key of which only the keyed digest is stored; raw keys can be assigned and looked up."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"max_length": 36, "null": True, "unique": True} | options)

    def to_python(self, value: Any) -> str | None:
        """Return the digest of a raw key, a digest as it is and None for nothing."""
        if value is None or value == "":
            return None
        return value if DIGEST.match(str(value)) else key_digest(str(value))

    def formfield(self, **options: Any) -> Any:
        """Return a form field that is long enough for a raw key."""
        return super().formfield(**{"max_length": MAX_RAW_KEY} | options)


def _items(value: Any) -> list[str]:
    """Return the items of a text, or of a list that code assigns."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    return [item for item in _SEPARATOR.split(text) if item]


class _ListField(_CanonicalField, models.TextField):  # type: ignore[type-arg]
    """A text of items, separated by white space or commas, each checked and written one way.

    Lists can be assigned, too, and are stored as such a text.
    """

    def item(self, text: str) -> str:
        """Return an item in its one form; raises ValidationError when it is not one."""
        raise NotImplementedError

    def to_python(self, value: Any) -> Any:
        """Return the items on a line each, without repetition."""
        return "\n".join(dict.fromkeys(self.item(item) for item in _items(value)))


class NetworksField(_ListField):
    """Networks in CIDR notation; the value reads back as one network on each line."""

    def item(self, text: str) -> str:
        """Return a network in its canonical form."""
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            message = _("“%(text)s” is not a network: write one like 192.0.2.0/24.")
            raise ValidationError(message, "network", {"text": text[:64]}) from None
        network = _unmapped(interface.network)
        if interface.ip != interface.network.network_address:
            message = _("“%(text)s” has host bits set: did you mean %(network)s?")
            raise ValidationError(message, "host_bits", {"text": text[:64], "network": network})
        if network.prefixlen == 0:
            message = _("“%(text)s” covers every address: name the networks that are meant.")
            raise ValidationError(message, "everywhere", {"text": text[:64]})
        return str(network)


class EmailsField(_ListField):
    """E-mail addresses; the value reads back as one address on each line."""

    def item(self, text: str) -> str:
        """Return a valid address as it is."""
        try:
            validate_email(text)
        except ValidationError:
            message = _("“%(text)s” is not an e-mail address: write them like ops@example.com.")
            raise ValidationError(message, "email", {"text": text[:64]}) from None
        return text


class MethodsField(_CanonicalField, models.CharField):  # type: ignore[type-arg]
    """HTTP methods, comma-separated and in capitals; blank for all."""

    def to_python(self, value: Any) -> Any:
        """Return the methods in capitals, sorted, without repetition."""
        methods = _items(value)
        for method in methods:
            if not _METHOD.match(method):
                message = _("“%(method)s” is not an HTTP method: write them like GET,POST.")
                raise ValidationError(message, "method", {"method": method[:64]})
        return ",".join(sorted({method.upper() for method in methods}))


class _AnyCase:
    """A lookup for which case does not matter, on MySQL by a collation instead of the column's."""

    def process_lhs(self, compiler: Any, connection: Any, lhs: Any = None) -> tuple[str, Any]:
        sql, parameters = super().process_lhs(compiler, connection, lhs)  # type: ignore[misc]
        if connection.vendor == "mysql":
            sql = f"{sql} COLLATE utf8mb4_general_ci"
        return sql, parameters


for _lookup in (IContains, IEndsWith, IExact, IStartsWith):
    ExactCharField.register_lookup(type(_lookup.__name__, (_AnyCase, _lookup), {}))


def _exact_collation(connection: Any) -> str:
    return "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"


def _unmapped(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the IPv4 network behind an IPv4-mapped one: clients are known by that."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        address = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((address, network.prefixlen - 96))
    return network
