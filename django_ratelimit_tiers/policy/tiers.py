"""Which tier a client has."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.policy.compilation import CompiledTier
from django_ratelimit_tiers.policy.flows import Flow, in_thread
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot


def find_tier(
    snapshot: Snapshot, ledger: Ledger, request: HttpRequest, revisions: dict[str, str]
) -> Flow[CompiledTier | None]:
    """Return the client's tier by resolver, assignment or default; None when it has no limits.

    The client and its user are the ledger's. `revisions` holds the subjects' tokens known to be
    current; those that were used are added.
    """
    resolved = None
    if conf.TIER_RESOLVER is not None:
        resolved = yield from called(conf.TIER_RESOLVER, request)
    slugs = (yield from _assigned(snapshot, ledger, revisions)) if resolved is None else [resolved]
    for slug in slugs:
        if slug is not None and slug in snapshot.tiers:
            return snapshot.tiers[slug]
    return snapshot.default_tier((yield from _default_for(snapshot, ledger)))


def called(path: str, *arguments: object) -> Flow[str | None]:
    """Return what a callable says that is named in the settings."""
    function = import_string(path)
    answer: str | None = yield in_thread(lambda: function(*arguments))
    return answer


def _assigned(
    snapshot: Snapshot, ledger: Ledger, revisions: dict[str, str]
) -> Flow[list[str | None]]:
    """Return the assigned tiers, the strongest first: user, key, group."""
    direct = of_key = through_group = None
    assignments, client = snapshot.assignments, ledger.client
    if user := client.user_subject:
        known = assignments.get(user)
        if known is None:
            token = revisions.get(user, "")
            known = yield in_thread(lambda: assignments.look_up_user(user, ledger.user, token))
        revisions[user] = known.revision
        direct, through_group = known.direct, known.through_group
    if key := client.key_subject:
        known = assignments.get(key)
        if known is None:
            token = revisions.get(key, "")
            known = yield in_thread(lambda: assignments.look_up_key(key, client.key_digests, token))
        revisions[key] = known.revision
        of_key = known.direct
    return [direct, of_key, through_group]


def _default_for(snapshot: Snapshot, ledger: Ledger) -> Flow[str]:
    if ledger.client.is_anonymous:
        return "anonymous"
    is_user = ledger.client.user_subject is not None
    if is_user and conf.VERIFIED_TEST and snapshot.default_tier("unverified"):
        is_verified = import_string(conf.VERIFIED_TEST)
        if not (yield in_thread(lambda: is_verified(ledger.user))):
            return "unverified"
    return "authenticated"
