"""Why a request was refused, in words for staff: what decided, who wrote it, how it stands now."""

from __future__ import annotations

import time
from collections.abc import Iterator

from django_ratelimit_tiers.core.policies import Charge, Mode, QuotaPolicy, whole_seconds
from django_ratelimit_tiers.core.refusals import printable
from django_ratelimit_tiers.core.rules import Scope
from django_ratelimit_tiers.core.words import universal
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import PolicyRevision, ThrottleEvent
from django_ratelimit_tiers.models.words import model_words, policy_words
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.snapshots import Snapshot, build_snapshot
from django_ratelimit_tiers.store.configured import configured_store


def explain(event: ThrottleEvent, *, names_authors: bool = True) -> list[str]:
    """Return what is known of one sampled refusal, a sentence each.

    `names_authors` tells whether the reader may know who made the edit that decided. Asks the
    database for the policy as it is now, and the store for the counter, without spending.
    """
    owner = f"the rule “{event.rule}”" if event.rule else f"the tier “{event.tier}”"
    verb = "refused" if event.mode == Mode.ENFORCE else "would have refused"
    lines = [f"{event.policy} of {owner} {verb} {event.subject} at {event.endpoint}."]
    if event.rule and event.tier:
        lines.append(f"The client had the tier “{event.tier}”.")
    if event.retry_after is not None:
        later = f"{event.retry_after} s later"  # limits that were not asked may refuse it then
        lines.append(f"That limit would have let the same request on {later}.")
    return [*lines, *_authorship(event, names_authors), *_standing(event)]


def _authorship(event: ThrottleEvent, names_authors: bool) -> Iterator[str]:
    if event.revision is None:
        return
    edit = PolicyRevision.objects.filter(pk=event.revision).select_related("author").first()
    if edit is None:
        yield f"It was decided by revision {event.revision}, which is not known any more."
        return
    author = edit.author.get_username() if edit.author else "nobody known"
    by = f", by {author}" if names_authors else ""
    yield (
        f"It was decided by revision {edit.pk} of the policy: "
        f"{model_words(edit.model)} {edit.reason}, {universal(edit.created_at)}{by}."
    )
    later = PolicyRevision.objects.filter(pk__gt=edit.pk, subjects=[]).count()
    if later:
        times = "once more" if later == 1 else f"{later} more times"
        yield f"The policy was edited {times} since."


def _standing(event: ThrottleEvent) -> Iterator[str]:
    policy = _policy(build_snapshot("", AssignmentCache()), event)
    if policy is None:
        yield "That policy is not in force any more, or counts each route by itself."
        return
    limit = policy_words(policy)
    mode = "" if policy.is_enforced else " It is in shadow mode and refuses nobody."
    yield f"Now it allows {limit}, {policy.algorithm.replace('_', ' ')}.{mode}"
    try:
        [outcome] = configured_store().peek([Charge(event.subject, policy)])
    except StoreUnavailable:
        yield "The store does not answer, so how much is used now is not known."
        return
    used = policy.capacity - outcome.remaining
    reset = whole_seconds(outcome.reset_after)
    yield f"It has used {used} of {policy.capacity} now, and all of it is back in {reset} s."


def _policy(snapshot: Snapshot, event: ThrottleEvent) -> QuotaPolicy | None:
    """Return the policy of this name, if it is in force and has one counter for a subject."""
    if event.rule:
        # Events have names as they can be shown. The limits of several tiers have one name: those
        # of the client's tier count.
        named = [rule for rule in snapshot.rules.rules if printable(rule.name) == event.rule]
        rules = [rule for rule in named if rule.is_active(time.time()) and not rule.exempt]
        of_rules = [rule.policies for rule in rules if rule.scope is Scope.RULE]
        policies = [p for limits in of_rules for p in limits.get(event.tier, limits.get(None, ()))]
    else:
        tier = snapshot.tiers.get(event.tier)
        policies = list(tier.policies) if tier else []
    return next((policy for policy in policies if policy.name == event.policy), None)
