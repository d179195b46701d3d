"""Names as header fields can hold them: Strings of structured fields (RFC 9651)."""

from __future__ import annotations

import string
from urllib.parse import quote

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
"""What a String can hold."""


def quoted(name: str) -> str:
    """Return a name as a String of RFC 9651, section 4.1.6."""
    return '"' + encoded(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def encoded(name: str) -> str:
    """Return a name with what a field cannot hold percent-encoded: different names stay so."""
    if name.isascii() and name.isprintable():
        return name
    return quote(name, safe=PRINTABLE, errors="surrogatepass")
