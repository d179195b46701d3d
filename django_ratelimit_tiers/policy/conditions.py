"""In what condition the limiter of this process, its store and its policy are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError

from django_ratelimit_tiers.conf import conf, own_middleware
from django_ratelimit_tiers.core.rules import Rule
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import EndpointRule
from django_ratelimit_tiers.policy.assignments import AssignmentCache
from django_ratelimit_tiers.policy.limiter import limiter
from django_ratelimit_tiers.policy.routes import route_map
from django_ratelimit_tiers.policy.snapshots import build_snapshot, database_edition
from django_ratelimit_tiers.store.configured import configured_store
from django_ratelimit_tiers.store.findings import Finding

LATE_SECONDS = 600
"""How long refusals may wait to be written: with the tasks running it is two minutes at most."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether this process limits as it should: the store answers, and the policy is current."""

    store_answers: bool
    breaker_is_closed: bool
    policy_is_current: bool

    @property
    def is_good(self) -> bool:
        """Whether nothing is degraded."""
        return self.store_answers and self.breaker_is_closed and self.policy_is_current


def present_condition() -> Condition:
    """Return the condition of this process; asks the store once and the database once."""
    breaker = limiter().breaker
    return Condition(_store_answers(), not breaker.is_open, _policy_is_current())


def findings() -> Iterator[Finding]:
    """Yield everything that is worth knowing before traffic finds it out."""
    yield from coverage_findings()
    yield from configured_store().examine()
    yield from _backlog_findings()
    yield from _policy_findings()


def coverage_findings() -> Iterator[Finding]:
    """Yield what keeps limits off the site, or off most of its views."""
    if not conf.ENABLED:
        advice = "Set RATELIMIT_TIERS['ENABLED'] to True, or leave it out."
        yield Finding("Nothing is limited: ENABLED is False.", True, advice)
    elif not own_middleware():
        yield Finding(
            "The middleware is not installed: only views with TierThrottle or a decorator "
            "are limited."
        )


def _backlog_findings() -> Iterator[Finding]:
    store = configured_store()
    if not store.shared:
        return
    try:
        late = store.records.now() - LATE_SECONDS
        waiting = sum(minute < late for minute in store.records.minutes())
    except StoreUnavailable:  # which was found already
        return
    if waiting:
        advice = "Run a Celery worker with beat, or `manage.py ratelimit_worker`."
        minutes = "a minute waits" if waiting == 1 else f"{waiting} minutes wait"
        yield Finding(f"What was refused in {minutes} to be written.", True, advice)


def _store_answers() -> bool:
    try:
        configured_store().ping()
    except StoreUnavailable:
        return False
    return True


def _policy_is_current() -> bool:
    snapshot = limiter()._snapshots.current
    try:
        edition = database_edition()
    except (DatabaseError, InterfaceError):
        return False
    return snapshot is None or snapshot.edition == edition


def _policy_findings() -> Iterator[Finding]:
    try:
        snapshot = build_snapshot("", AssignmentCache())
        compiled = {rule.id for rule in snapshot.rules.rules}
        rows = EndpointRule.objects.exclude(mode="off").values_list("pk", "name")
        left_out = [name for pk, name in rows if pk not in compiled]
    except (DatabaseError, InterfaceError) as error:
        advice = "Look at DATABASES, and run `manage.py migrate`."
        yield Finding(f"The policy cannot be read: {error}", True, advice)
        return
    tiers, rules = len(snapshot.tiers), len(snapshot.rules.rules)
    yield Finding(
        f"The policy has {tiers} tiers and {rules} rules, at revision {snapshot.edition.number}."
    )
    for name in left_out:
        advice = "Open it in the admin and save it: the form says what is wrong."
        yield Finding(f"The endpoint rule {name!r} is not in force.", True, advice)
    yield from _idle_rules(snapshot.rules.rules)
    yield from _closed_rules(snapshot.rules.rules)
    if "anonymous" not in snapshot.defaults:
        advice = "Choose one in the admin: default for anonymous clients."
        yield Finding(
            "No tier is the default of anonymous clients: they have no limit.", True, advice
        )


def _idle_rules(rules: Iterable[Rule]) -> Iterator[Finding]:
    """Yield the rules that neither limit nor exempt anything."""
    for rule in rules:
        idle = f"The endpoint rule {rule.name!r} does nothing"
        if rule.view_name and not route_map().has_view(rule.view_name):
            advice = "Correct its view name in the admin, which lists those that there are."
            yield Finding(f"{idle}: no view is called {rule.view_name!r}.", True, advice)
        elif not rule.policies and not rule.exempt:
            advice = "Give it a limit in the admin, make it exempt, or turn it off."
            yield Finding(f"{idle}: it has no limit and is not exempt.", True, advice)


def _closed_rules(rules: Iterable[Rule]) -> Iterator[Finding]:
    """Yield the rules that no request can pass; forms refuse them, other writers do not."""
    for rule in rules:
        policies = [policy for row in rule.policies.values() for policy in row]
        least = min((policy.capacity for policy in policies), default=rule.cost)
        if least < rule.cost and not rule.exempt:
            problem = f"its cost is {rule.cost:,}, and a limit of it holds {least:,}"
            advice = "Lower its cost or raise its limit in the admin."
            yield Finding(
                f"The endpoint rule {rule.name!r} cannot be passed: {problem}.", True, advice
            )
