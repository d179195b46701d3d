"""The short way for requests like others before: all is remembered about them but who asks.

Nearly every request comes from a client that was here a moment ago, to a view that others came to.
The plain way (`limiter`, `stages`, `tiers`) finds out in some forty calls of functions that nothing
special applies to it, which takes as long as asking the store; here are a few. Whatever is special
is left to the plain way. Both charge the same, which the tests compare.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.policy import stages
from django_ratelimit_tiers.policy.identity import identified_client
from django_ratelimit_tiers.policy.ledgers import Ledger
from django_ratelimit_tiers.policy.snapshots import Snapshot
from django_ratelimit_tiers.policy.tariffs import Bill


def usual_bill(
    snapshot: Snapshot,
    ledger: Ledger,
    request: HttpRequest,
    user: Any,
    cost: int,
    revisions: dict[str, str],
) -> Bill | None:
    """Return what the plain way would charge who has no API key, None for it to find out.

    The ledger then knows the client, and `revisions` holds the token of its tier.
    """
    passage = stages.passage(snapshot, ledger, request)
    if (
        not passage.is_usual
        or snapshot.has_accounts
        or ledger.exempt
        or ledger.preflight
        or ledger.charged_rules
        or conf.TIER_RESOLVER is not None
        or conf.VERIFIED_TEST is not None
    ):
        return None
    client = identified_client(ledger.client, user, None)
    subject = client.user_subject
    if subject is None:
        tier = snapshot.default_tier("anonymous")
    else:
        known = snapshot.assignments.get(subject)
        if known is None:
            return None
        revisions[subject] = known.revision
        tiers = snapshot.tiers
        assigned = tiers.get(known.direct or "") or tiers.get(known.through_group or "")
        tier = assigned or snapshot.default_tier("authenticated")
    tariff = passage.tariffs.get((tier and tier.slug, subject is None, passage.cost or cost))
    if tariff is None:
        return None
    ledger.client = client
    return stages.bill(tariff, client, request)
