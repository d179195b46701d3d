"""What would be different in the policy, to see what that would do before it is in force."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from django_ratelimit_tiers.core.policies import Mode, QuotaPolicy
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.policy.compilation import CompiledTier

_TRIED = re.compile(r"(?P<name>.+)=(?P<requests>\d{1,10})(?:,(?P<burst>\d{1,10}))?", re.ASCII)


class TriedLimit(NamedTuple):
    """The numbers that a policy is tried with; without a burst it keeps its own."""

    requests: int
    burst: int | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[str, TriedLimit]:
        """Return the name of a policy and its numbers: `free-minute=30`, `pro-minute=60,90`.

        Raises ValueError for any other text.
        """
        match = _TRIED.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no limit such as free-minute=30 or pro-minute=60,90")
        burst = match["burst"]
        return match["name"], cls(int(match["requests"]), None if burst is None else int(burst))


@dataclass(frozen=True, slots=True)
class Trial:
    """Changes of the policy that are tried out.

    `enforced` are ids of rules in shadow mode or off that are tried as enforced, whatever their
    dates, `tiers` are slugs of tiers in shadow mode that are, and `without` are ids of rules that
    are left out; `limits` are by the name of the policy.
    """

    enforced: Collection[int] = frozenset()
    tiers: Collection[str] = frozenset()
    without: Collection[int] = frozenset()
    limits: Mapping[str, TriedLimit] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.enforced or self.tiers or self.without or self.limits)

    def tier(self, tier: CompiledTier) -> CompiledTier:
        """Return a tier as it is tried; raises ValueError for numbers no counter can hold."""
        mode = Mode.ENFORCE if tier.slug in self.tiers else None
        return replace(tier, policies=self._policies(tier.policies, mode))

    def rule(self, rule: Rule) -> Rule:
        """Return a rule as it is tried; raises ValueError for numbers no counter can hold."""
        if rule.id in self.enforced:
            rule = replace(rule, mode=Mode.ENFORCE, starts_at=None, ends_at=None)
        mode = rule.mode
        policies = {slug: self._policies(own, mode) for slug, own in rule.policies.items()}
        return replace(rule, policies=policies)

    def rules(self, rules: Iterable[Rule]) -> Iterable[Rule]:
        """Return rules as they are tried, without those that are left out."""
        if not self:  # rules may be many
            return rules
        return [self.rule(rule) for rule in rules if rule.id not in self.without]

    def _policies(
        self, policies: Iterable[QuotaPolicy], mode: Mode | None
    ) -> tuple[QuotaPolicy, ...]:
        tried = []
        for policy in policies:
            numbers = TriedLimit(policy.requests, policy.burst)
            if policy.name in self.limits:
                requests, burst = self.limits[policy.name]
                numbers = TriedLimit(requests, policy.burst if burst is None else burst)
            tried.append(replace(policy, mode=mode or policy.mode, **numbers._asdict()))
        return tuple(tried)


AS_IT_IS = Trial()
"""The policy in the database."""
