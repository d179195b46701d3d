"""The pages on which staff edits the policy and looks at its history."""

from django_ratelimit_tiers.admin import accounts, alerts, history, rules, tiers

__all__ = ["accounts", "alerts", "history", "rules", "tiers"]
