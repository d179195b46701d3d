"""Tiers and the limits that belong to them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.db.models.functions import NullIf
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.core.policies import Algorithm, Mode, policy_problems
from django_ratelimit_tiers.models.choices import ALGORITHMS, TIER_MODES, DefaultFor
from django_ratelimit_tiers.models.constraints import (
    UniqueKeyConstraint,
    limit_constraints,
    one_of,
    unique_key,
)
from django_ratelimit_tiers.models.fields import ExactCharField, ExactSlugField
from django_ratelimit_tiers.models.words import limit_words
from django_ratelimit_tiers.querysets import PolicyQuerySet


class PolicyModel(models.Model):
    """A model that the compiled policy is made of: what writes it raises the revision."""

    quiet_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that are no part of the policy: writing only these raises nothing."""

    objects = models.Manager.from_queryset(PolicyQuerySet)()

    class Meta:
        abstract = True
        base_manager_name = "objects"

    def save(self, **options: Any) -> None:
        """Save in a transaction, which the new revision joins."""
        using = options.get("using") or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using, savepoint=False):
            super().save(**options)


class Limit(PolicyModel):
    """So many requests in a period, as in `core.policies.QuotaPolicy`."""

    requests = models.PositiveBigIntegerField(_("requests"))
    period = models.PositiveBigIntegerField(
        _("period"), help_text=_("In seconds: 60 is a minute, 3600 an hour, 86400 a day.")
    )
    algorithm = ExactCharField(
        _("algorithm"),
        max_length=32,
        choices=ALGORITHMS,
        default=Algorithm.SLIDING_WINDOW_COUNTER.value,
    )
    burst = models.PositiveBigIntegerField(
        _("burst"),
        null=True,
        blank=True,
        help_text=_("Only for the token bucket: how many requests may come at once."),
    )

    class Meta(PolicyModel.Meta):
        abstract = True

    @property
    def capacity(self) -> int:
        """The most that one request can cost under this limit."""
        return self.burst or self.requests

    @property
    def words(self) -> str:
        """The limit as a phrase: "60 per minute, burst 100"; "new limit" before it has numbers."""
        if not all(isinstance(number, int) for number in (self.requests, self.period)):
            return gettext("new limit")
        return limit_words(self.requests, self.period, self.burst)

    def get_constraints(self) -> Any:
        """Return the constraints that validation asks the database about: those between rows.

        `clean` says in words what the others would, without a query for each of them and each row
        of a form.
        """
        return [
            (model, [one for one in found if not isinstance(one, models.CheckConstraint)])
            for model, found in super().get_constraints()
        ]

    def clean(self) -> None:
        """Refuse numbers that no counter can hold, naming the field."""
        super().clean()
        if self.algorithm not in dict(ALGORITHMS):
            return  # the field itself has been refused already
        # What could not be read was refused at its field: 1 stands in, so that the others are told.
        numbers: tuple[Any, ...] = (self.requests, self.period, self.burst)
        requests, period, burst = (n if isinstance(n, int) else None for n in numbers)
        algorithm = Algorithm(self.algorithm)
        problems = policy_problems(
            1 if requests is None else requests, 1 if period is None else period, algorithm, burst
        )
        if problems:
            raise ValidationError({p.field: p.message.capitalize() + "." for p in problems})


class Tier(PolicyModel):
    """A named plan that owns limits."""

    natural_fields = ("slug",)

    slug = ExactSlugField(
        _("slug"),
        max_length=50,
        unique=True,
        help_text=_("Clients see it in the names of the limits, like pro-minute."),
    )
    name = models.CharField(_("name"), max_length=100)
    description = models.TextField(_("description"), blank=True)
    rank = models.PositiveSmallIntegerField(
        _("rank"),
        default=0,
        help_text=_("Who is in several groups gets the tier with the highest rank."),
    )
    mode = ExactCharField(
        _("mode"),
        max_length=10,
        default=Mode.ENFORCE.value,
        choices=TIER_MODES,
        help_text=_("In shadow mode nobody is refused: throttle counts show who would have been."),
    )
    unlimited = models.BooleanField(
        _("unlimited"), default=False, help_text=_("No limits of the tier apply, only rules do.")
    )
    default_for = ExactCharField(
        _("default for"),
        max_length=20,
        blank=True,
        choices=DefaultFor.choices,
        help_text=_("Who has this tier without being assigned one; one tier for each."),
    )

    default_key = unique_key(
        NullIf("default_for", models.Value("")), ExactCharField(max_length=20, null=True)
    )

    class Meta(PolicyModel.Meta):
        verbose_name = _("tier")
        verbose_name_plural = _("tiers")
        ordering = ("rank", "slug")
        constraints = (
            one_of("default_for", DefaultFor.choices, blank=True),
            one_of("mode", TIER_MODES),
            UniqueKeyConstraint(
                fields=("default_key",),
                name="rlt_%(class)s_one_per_default",
                violation_error_message=_("Another tier is the default for these clients."),
            ),
        )

    def __str__(self) -> str:
        return self.name

    def natural_key(self) -> tuple[str]:
        """Return by what other installations know the tier."""
        return (self.slug,)


class TierPolicy(Limit):
    """A limit of a tier."""

    natural_fields = ("tier__slug", "period", "algorithm")

    tier = models.ForeignKey(
        Tier, verbose_name=_("tier"), on_delete=models.CASCADE, related_name="policies"
    )

    class Meta(Limit.Meta):
        verbose_name = _("limit of a tier")
        verbose_name_plural = _("limits of tiers")
        ordering = ("tier", "period", "algorithm")
        constraints = (
            *limit_constraints(),
            one_of("algorithm", ALGORITHMS),
            models.UniqueConstraint(
                fields=("tier", "period", "algorithm"), name="rlt_%(class)s_one_per_period"
            ),
        )

    def __str__(self) -> str:
        return f"{self.tier}: {self.words}"

    def natural_key(self) -> tuple[str, int, str]:
        """Return by what other installations know the limit."""
        return self.tier.slug, self.period, self.algorithm
