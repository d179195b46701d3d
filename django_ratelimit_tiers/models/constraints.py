"""Database constraints that say what forms say, for those who write without a form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import (
    CheckConstraint,
    Expression,
    F,
    Field,
    GeneratedField,
    Model,
    Q,
    UniqueConstraint,
)
from django.db.models.lookups import LessThanOrEqual

from django_ratelimit_tiers.core.policies import (
    MAX_LOG_REQUESTS,
    MAX_PERIOD,
    MAX_REQUESTS,
    Algorithm,
)
from django_ratelimit_tiers.models.fields import FIRST_YEAR, LAST_YEAR

Choices = Sequence[tuple[str, object]]


class UniqueKeyConstraint(UniqueConstraint):
    """A unique constraint over columns that the database makes of others, with `unique_key`.

    MariaDB knows no other way: neither conditions nor expressions.
    """

    def validate(
        self,
        model: type[Model],
        instance: Model,
        exclude: set[str] | None = None,
        using: str = DEFAULT_DB_ALIAS,
    ) -> None:
        """Look for a row with the same key; forms exclude whatever nobody can type."""
        generated = {field.name for field in model._meta.fields if field.generated}
        super().validate(model, instance, (exclude or set()) - generated, using)


def unique_key(expression: Expression, column: Field[Any, Any]) -> GeneratedField:
    """Return the column that holds an expression over others; NULL is like no other value."""
    return GeneratedField(
        expression=expression, output_field=column, db_persist=True, serialize=False
    )


def one_of(field: str, choices: Choices, *, blank: bool = False) -> CheckConstraint:
    """Return the constraint that a field holds one of its choices."""
    values = [value for value, _label in choices] + ([""] if blank else [])
    return CheckConstraint(
        condition=Q(**{f"{field}__in": values}),
        name=f"rlt_%(class)s_{field}_known",
    )


def filled(field: str) -> CheckConstraint:
    """Return the constraint that a text is not empty."""
    return CheckConstraint(condition=~Q(**{field: ""}), name=f"rlt_%(class)s_{field}_filled")


def ordered(earlier: str, later: str) -> CheckConstraint:
    """Return the constraint that one moment is before the other, when both are set."""
    unset = Q(**{f"{earlier}__isnull": True}) | Q(**{f"{later}__isnull": True})
    return CheckConstraint(
        condition=unset | Q(**{f"{earlier}__lt": F(later)}),
        name=f"rlt_%(class)s_{earlier}_before_{later}",
    )


def readable(field: str) -> CheckConstraint:
    """Return the constraint that a moment, when set, is one that every process can read.

    PostgreSQL keeps more years than Python knows: one such row would make its table unreadable.
    """
    # A year more at either end: forms may have another time zone than the database.
    years = {f"{field}__year__gte": FIRST_YEAR - 1, f"{field}__year__lte": LAST_YEAR + 1}
    return CheckConstraint(
        condition=Q(**{f"{field}__isnull": True}) | Q(**years),
        name=f"rlt_%(class)s_{field}_readable",
    )


def limit_constraints() -> list[CheckConstraint]:
    """Return the rules of `core.policies.policy_problems` as constraints."""
    log = Q(algorithm=Algorithm.SLIDING_WINDOW_LOG.value)
    bucket = Q(algorithm=Algorithm.TOKEN_BUCKET.value)
    return [
        CheckConstraint(
            condition=Q(requests__gte=1, requests__lte=MAX_REQUESTS)
            & (~log | Q(requests__lte=MAX_LOG_REQUESTS)),
            name="rlt_%(class)s_requests_countable",
        ),
        CheckConstraint(
            condition=Q(period__gte=1, period__lte=MAX_PERIOD),
            name="rlt_%(class)s_period_in_range",
        ),
        CheckConstraint(
            condition=Q(burst__isnull=True) | bucket,
            name="rlt_%(class)s_burst_only_for_bucket",
        ),
        CheckConstraint(
            condition=Q(burst__isnull=True) | Q(burst__gte=1, burst__lte=MAX_REQUESTS),
            name="rlt_%(class)s_burst_in_range",
        ),
        CheckConstraint(
            condition=Q(burst__isnull=True)
            | Q(LessThanOrEqual(F("burst") * F("period"), F("requests") * MAX_PERIOD)),
            name="rlt_%(class)s_burst_refills",
        ),
    ]


def exactly_one(*fields: str) -> Q:
    """Return the condition that exactly one of the nullable fields is set."""
    condition = Q()
    for chosen in fields:
        condition |= Q(**{f"{field}__isnull": field != chosen for field in fields})
    return condition
