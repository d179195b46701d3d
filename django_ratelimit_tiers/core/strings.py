"""Names as header fields can hold them: Strings of structured fields (RFC 9651)."""

from __future__ import annotations

import string
from urllib.parse import quote

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " "
"""What a String can hold."""


def quoted(name: str) -> str:
    """Write a String of RFC 9651, section 4.1.6."""
    return '"' + printable(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def printable(name: str) -> str:
    """Percent-encode what a field cannot hold, so that different names stay different."""
    if name.isascii() and name.isprintable():
        return name
    return quote(name, safe=PRINTABLE, errors="surrogatepass")
