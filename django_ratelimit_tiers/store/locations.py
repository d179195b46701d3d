"""Where servers are, as settings name them."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

WITH_DATABASE = ("redis", "rediss")


def check_database(url: str) -> None:
    """Raise ValueError where the database that a server's URL names is no number.

    The client library would take another one.
    """
    parts = urlsplit(url)
    is_number = re.fullmatch("/?[0-9]*", unquote(parts.path))
    if parts.scheme in WITH_DATABASE and (parts.fragment or not is_number):
        raise ValueError("its database must be a number, as in redis://host:6379/1")
