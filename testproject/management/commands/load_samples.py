"""Sample users, tiers and rules, and as JSON what a client needs to know of them."""

from __future__ import annotations

import json
from secrets import token_urlsafe
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.management.base import BaseCommand
from django.urls import reverse
from rest_framework.authtoken.models import Token

from django_ratelimit_tiers.core.policies import Algorithm, Mode
from django_ratelimit_tiers.core.rules import Count, IdentifyBy
from django_ratelimit_tiers.models import (
    EndpointRule,
    RulePolicy,
    ServiceAccount,
    Tier,
    TierAssignment,
)

MINUTE, HOUR = 60, 3600

OFFICE = "203.0.113.0/24"


class Command(BaseCommand):
    """Load the samples; what is there already is brought up to date."""

    help = "Load sample users, tiers and rules, and print what a client needs as JSON."

    def handle(self, *args: Any, **options: Any) -> None:
        pro = Tier.objects.get(slug="pro")
        load_rules(pro)
        samples = {
            "users": {
                "free": load_user("free"),
                "pro": load_user("pro"),
                "admin": load_user("admin", is_staff=True, is_superuser=True),
            },
            "service_key": load_service_account(),
            "free_tier_page": reverse(
                "admin:django_ratelimit_tiers_tier_change",
                args=[Tier.objects.get(slug="free").pk],
            ),
        }
        assign_tiers(pro)
        self.stdout.write(json.dumps(samples | {"limits": limits()}))


def load_user(username: str, **rights: bool) -> dict[str, str]:
    """Make a user with a new password and a token, and return all three."""
    user, _ = User.objects.update_or_create(username=username, defaults=rights)
    password = token_urlsafe(9)
    user.set_password(password)
    user.save()
    token, _ = Token.objects.get_or_create(user=user)
    return {"username": username, "password": password, "token": token.key}


def assign_tiers(pro: Tier) -> None:
    """Give the pro user a tier of their own, and staff one through their group."""
    staff, _ = Group.objects.get_or_create(name="Operations")
    User.objects.get(username="admin").groups.add(staff)
    TierAssignment.objects.update_or_create(
        user=User.objects.get(username="pro"), defaults={"tier": pro, "note": "Pays for it."}
    )
    TierAssignment.objects.update_or_create(
        group=staff,
        defaults={"tier": Tier.objects.get(slug="internal"), "note": "Must never lock itself out."},
    )


def load_service_account() -> str:
    """Make a service account that is exempt from its office only, and return its key."""
    account = ServiceAccount.objects.filter(name="Nightly import").first()
    account = account or ServiceAccount(name="Nightly import")
    account.owner, account.reason = "Data team", "Reads the whole catalogue every night."
    account.networks = OFFICE
    key = account.new_key()
    account.save()
    return key


def load_rules(pro: Tier) -> None:
    """Make the rules that the demo shows at work."""
    failed_login = {"path": "/api/login/", "methods": "POST", "count": Count.FAILED}
    load_rule(
        "Login by address",
        [(None, 10, 5 * MINUTE)],
        **failed_login,
        identify_by=IdentifyBy.IP,
        disclose=False,
        notes="Stops one address that tries many names.",
    )
    load_rule(
        "Login by name",
        [(None, 5, 15 * MINUTE)],
        **failed_login,
        identify_by=IdentifyBy.FIELD,
        request_field="username",
        disclose=False,
        notes="Stops many addresses that try one name.",
    )
    load_rule("Search", [(None, 60, MINUTE), (pro, 200, MINUTE)], path="/api/search/")
    load_rule(
        "Export",
        [(None, 50, HOUR)],
        view_name="export",
        cost=10,
        notes="One export is as much work as ten other requests.",
    )
    load_rule("Health", [], path="/health/", exempt=True)
    load_rule(
        "Orders, on trial",
        [(None, 5, MINUTE)],
        path="/api/orders/*/",
        mode=Mode.SHADOW,
        notes="Only recorded, until we know whom it would hit.",
    )


def load_rule(name: str, limits: list[tuple[Tier | None, int, int]], **fields: Any) -> None:
    """Make a rule with exactly these limits: tier, requests, period."""
    rule, _ = EndpointRule.objects.update_or_create(name=name, defaults=fields)
    rule.policies.all().delete()
    for tier, requests, period in limits:
        RulePolicy.objects.create(
            rule=rule,
            tier=tier,
            requests=requests,
            period=period,
            algorithm=Algorithm.SLIDING_WINDOW_COUNTER,
        )


def limits() -> dict[str, list[dict[str, int]]]:
    """Return the limits in force, by tier and by rule; those of a rule for a tier by both."""
    found: dict[str, list[dict[str, int]]] = {}
    for tier in Tier.objects.prefetch_related("policies"):
        for limit in tier.policies.all():
            found.setdefault(tier.slug, []).append(_numbers(limit))
    for limit in RulePolicy.objects.select_related("rule", "tier"):
        owner = f"{limit.rule.name} ({limit.tier.slug})" if limit.tier else limit.rule.name
        found.setdefault(owner, []).append(_numbers(limit))
    return found


def _numbers(limit: Any) -> dict[str, int]:
    return {"requests": limit.requests, "period": limit.period, "capacity": limit.capacity}
