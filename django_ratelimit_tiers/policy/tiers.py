"""Which tier a client has."""

from __future__ import annotations

from collections.abc import Mapping

from django.http import HttpRequest
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.policy.assignments import UNASSIGNED, Assignment
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.flows import Flow, call, in_thread
from django_ratelimit_tiers.policy.identity import Client
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot


def find_tier(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, revisions: dict[str, str]
) -> Flow[CompiledTier | None]:
    """Return the client's tier by resolver, assignment or default; None when it has no limits.

    The client and its user are the ledger's. `revisions` holds the subjects' tokens known to be
    current; those that were used are added.
    """
    yield from ask_resolver(ledger, request)
    assignments = {}
    if ledger.resolved_tier is None:
        assignments = yield from _look_up(snapshot, ledger, revisions)
    tier = chosen_tier(snapshot, ledger.client, ledger.resolved_tier, assignments)
    if tier is None:
        yield from ask_test(snapshot, ledger)
        tier = usual_tier(snapshot, ledger.client, ledger.is_verified)
    return tier


def ask_resolver(ledger: Ledger, request: HttpRequest) -> Flow[None]:
    """Ask the site's own function for the slug of the client's tier, once for each request.

    Raises TypeError when it returns anything but a text or None.
    """
    if conf.TIER_RESOLVER is not None and not ledger.has_asked:
        slug = yield call(import_string(conf.TIER_RESOLVER), request)
        if not isinstance(slug, str | None):
            raise TypeError(
                f"TIER_RESOLVER ({conf.TIER_RESOLVER}) must return the slug of a tier, such as "
                f"'pro', or None, not {slug!r}"
            )
        ledger.resolved_tier, ledger.has_asked = slug, True


def ask_test(snapshot: Snapshot, ledger: Ledger) -> Flow[None]:
    """Ask the site's own function, once, whether a user without another tier is verified."""
    if ledger.is_verified is None and depends_on_verification(snapshot, ledger.client):
        is_verified = import_string(conf.VERIFIED_TEST or "")
        ledger.is_verified = bool((yield call(is_verified, ledger.user)))


def known_assignments(snapshot: Snapshot, client: Client) -> dict[str, Assignment] | None:
    """Return what a client's subjects were assigned, None if that must be looked up first."""
    known = {}
    for subject in (client.user_subject, client.key_subject):
        if subject is not None:
            assignment = snapshot.assignments.get(subject)
            if assignment is None:
                return None
            known[subject] = assignment
    return known


def chosen_tier(
    snapshot: Snapshot,
    client: Client,
    resolved: str | None,
    assignments: Mapping[str, Assignment],
) -> CompiledTier | None:
    """Return the tier that was chosen for a client, None if that is none that exists.

    The resolver's word counts, else the strongest assignment: the user's, the key's, a group's.
    """
    slugs = [resolved]
    if resolved is None:
        of_user = assignments.get(client.user_subject or "", UNASSIGNED)
        of_key = assignments.get(client.key_subject or "", UNASSIGNED)
        slugs = [of_user.direct, of_key.direct, of_user.through_group]
    for slug in slugs:
        if slug is not None and slug in snapshot.tiers:
            return snapshot.tiers[slug]
    return None


def depends_on_verification(snapshot: Snapshot, client: Client) -> bool:
    """Return whether it takes the site's own test to tell the tier of a client without another."""
    if conf.VERIFIED_TEST is None or client.user_subject is None:
        return False
    return snapshot.default_tier("unverified") is not None


def usual_tier(snapshot: Snapshot, client: Client, is_verified: bool | None) -> CompiledTier | None:
    """Return the tier of a client for whom none was chosen; `is_verified` is None if unasked."""
    if client.is_anonymous:
        return snapshot.default_tier("anonymous")
    unverified = snapshot.default_tier("unverified") if is_verified is False else None
    return unverified or snapshot.default_tier("authenticated")


def _look_up(
    snapshot: Snapshot, ledger: Ledger, revisions: dict[str, str]
) -> Flow[dict[str, Assignment]]:
    """Return what the client's subjects were assigned, and add their tokens."""
    found: dict[str, Assignment] = {}
    assignments, client = snapshot.assignments, ledger.client
    if user := client.user_subject:
        known = assignments.get(user)
        if known is None:
            token = revisions.get(user, "")
            known = yield in_thread(lambda: assignments.look_up_user(user, ledger.user, token))
        found[user] = known
    if key := client.key_subject:
        known = assignments.get(key)
        if known is None:
            token = revisions.get(key, "")
            known = yield in_thread(lambda: assignments.look_up_key(key, client.key_digests, token))
        found[key] = known
    revisions.update({subject: known.revision for subject, known in found.items()})
    return found
