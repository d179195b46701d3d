"""Endpoint rules as values, independent of the database they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from django_ratelimit_tiers.core.decisions import FailurePolicy
from django_ratelimit_tiers.core.policies import Mode, QuotaPolicy


class IdentifyBy(StrEnum):
    """Whose requests a rule counts together."""

    IP = "ip"
    USER = "user"
    API_KEY = "api_key"
    USER_OR_IP = "user_or_ip"
    EVERYONE = "everyone"
    FIELD = "field"


BEFORE_AUTHENTICATION = frozenset((IdentifyBy.IP, IdentifyBy.EVERYONE, IdentifyBy.FIELD))
"""How a client can be identified before anybody has looked at its credentials."""


class Count(StrEnum):
    """Which requests a rule counts."""

    ALL = "all"
    FAILED = "failed"


class Scope(StrEnum):
    """Whether a rule has one counter, or one for each route that it covers."""

    RULE = "rule"
    ROUTE = "route"


class TierPolicies(StrEnum):
    """Whether the policies of the tier apply beside the rule, or the rule replaces them."""

    ALSO = "also"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled endpoint rule.

    `policies` maps a tier's slug to its policies; the key None holds those of every tier without a
    row of its own. `methods` is empty for all. Exactly one of `path` and `view_name` is set.
    `starts_at` and `ends_at` are epoch seconds.
    """

    id: int
    name: str
    path: str = ""
    view_name: str = ""
    methods: frozenset[str] = frozenset()
    mode: Mode = Mode.ENFORCE
    identify_by: IdentifyBy = IdentifyBy.USER_OR_IP
    request_field: str = ""
    cost: int = 1
    count: Count = Count.ALL
    scope: Scope = Scope.RULE
    tier_policies: TierPolicies = TierPolicies.ALSO
    exempt: bool = False
    on_store_failure: FailurePolicy | None = None
    disclose: bool = True
    starts_at: float | None = None
    ends_at: float | None = None
    policies: Mapping[str | None, tuple[QuotaPolicy, ...]] = field(default_factory=dict)

    @property
    def acts_early(self) -> bool:
        """Whether it can exempt or be charged before the client is known: few rules can."""
        return self.exempt or self.identify_by in BEFORE_AUTHENTICATION

    def is_active(self, now: float) -> bool:
        """Whether a time (epoch seconds) is from `starts_at` until `ends_at`."""
        if self.starts_at is not None and now < self.starts_at:
            return False
        return self.ends_at is None or now < self.ends_at
