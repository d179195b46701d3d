"""The Lua scripts, and calls of them as a server reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

WORD = b"$%d\r\n%b\r\n"
"""A word of a command, after its length."""

INSERTION = re.compile(rb"^ *-- @(\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; `digest` names it to a server that knows it."""

    text: bytes
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()
        object.__setattr__(self, "digest", digest)

    @classmethod
    def load(cls, *names: str) -> Script:
        """Return the script made of these files of this package, in order.

        A line `-- @name` in one of them gives way to the file of that name.
        """
        return cls(b"\n".join(map(_lua, names)))


class Call(NamedTuple):
    """One invocation of a script; `evalsha` is the command for a server that knows it."""

    script: Script
    evalsha: bytes

    @property
    def eval(self) -> bytes:
        """The command that brings the script along."""
        by_digest, by_text = _by_digest(self.script), written(b"EVAL", self.script.text)
        return self.evalsha.replace(by_digest, by_text, 1)

    @classmethod
    def of(cls, script: Script, keys: Sequence[bytes], *arguments: bytes) -> Call:
        """Return the call with these keys and arguments."""
        words = written(b"%d" % len(keys), *keys, *arguments)
        return cls(script, beginning(script, len(keys) + len(arguments)) + words)


def beginning(script: Script, words: int) -> bytes:
    """Return what a command with so many keys and arguments begins with."""
    return b"*%d\r\n" % (3 + words) + _by_digest(script)


def written(*words: bytes) -> bytes:
    """Return words of a command as the server reads them."""
    return b"".join([WORD % (len(word), word) for word in words])


def _by_digest(script: Script) -> bytes:
    return written(b"EVALSHA", script.digest)


def _lua(name: str) -> bytes:
    text = (files(__package__) / "lua" / f"{name}.lua").read_bytes()
    return INSERTION.sub(lambda found: _lua(found[1].decode()), text)


ACQUIRE = Script.load("counters", "acquire")
REFUND = Script.load("counters", "refund")
RESET = Script.load("counters", "reset")
