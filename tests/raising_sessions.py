"""A session engine for requests that must not load any session."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.base import SessionBase


class SessionStore(SessionBase):
    """A session that cannot be loaded."""

    def load(self) -> dict[str, Any]:
        raise AssertionError("the session was loaded")

    async def aload(self) -> dict[str, Any]:
        raise AssertionError("the session was loaded")
