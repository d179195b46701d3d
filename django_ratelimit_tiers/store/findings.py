"""What was found out about a store or the policy, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and what to do when it is wrong."""

    text: str
    is_wrong: bool = False
    advice: str = ""
