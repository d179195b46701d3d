"""Why no limit applies to a request: a service account, a rule or a decorated view."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.http import HttpRequest

from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.core.tallies import ACCOUNT
from django_ratelimit_tiers.policy.accounts import CompiledAccount
from django_ratelimit_tiers.policy.identity import Client, presented_service_keys
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.views import view_marks


def account_of(snapshot: Snapshot, client: Client, request: HttpRequest) -> CompiledAccount | None:
    """Return the service account that asks, by whatever is known of the client at this stage.

    A snapshot's accounts may expire, and none is added. So a client that once had none needs no
    second look as long as the snapshot lasts, unless it presents a key.
    """
    if not snapshot.has_accounts:
        return None
    accounts, now = snapshot.accounts, time.time()
    account = accounts.of_address(client.address, now)
    if account is None and accounts.by_key:
        digests = [*presented_service_keys(request), *client.key_digests]
        account = accounts.of_key(digests, client.address, now)
    if account is None and client.user_subject:
        account = accounts.of_user(client.user_subject, client.address, now)
    return account


def presents_key(request: HttpRequest) -> bool:
    """Return whether a request presents what may be the key of a service account."""
    return any(presented_service_keys(request))


def exempt_account(snapshot: Snapshot, ledger: Ledger, request: HttpRequest) -> None:
    """Exempt a service account."""
    account = account_of(snapshot, ledger.client, request)
    if account is not None:
        ledger.exempt = f"service account {account.name}"
        ledger.account = f"{ACCOUNT}{account.id}"


def exempt_by_view(ledger: Ledger, request: HttpRequest) -> None:
    """Exempt a view that is decorated as exempt, or whose method is."""
    match = request.resolver_match
    if match is not None and view_marks(match.func, ledger.method).is_exempt:
        ledger.exempt = ledger.exempt or "view"


def exempt_by_rule(rules: Iterable[Rule], ledger: Ledger) -> None:
    """Exempt what an exempt rule covers, whatever other rules say."""
    for rule in exempting_rules(rules):
        ledger.exempt = ledger.exempt or f"rule {rule.name}"


def exempting_rules(rules: Iterable[Rule]) -> list[Rule]:
    """Return the exempt rules among these, without those in shadow mode."""
    return [rule for rule in rules if rule.exempt and rule.mode is Mode.ENFORCE]
