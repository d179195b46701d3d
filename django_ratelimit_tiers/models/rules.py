"""Endpoint rules and the limits that belong to them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.core.patterns import parse_pattern
from django_ratelimit_tiers.core.policies import MAX_REQUESTS, Mode
from django_ratelimit_tiers.core.rules import Count, IdentifyBy, Scope, TierPolicies
from django_ratelimit_tiers.models.choices import (
    ALGORITHMS,
    COUNTS,
    FAILURE_POLICIES,
    IDENTIFICATIONS,
    MODES,
    SCOPES,
    TIER_POLICIES,
)
from django_ratelimit_tiers.models.constraints import (
    UniqueKeyConstraint,
    limit_constraints,
    one_of,
    ordered,
    readable,
    unique_key,
)
from django_ratelimit_tiers.models.deletion import delete_too
from django_ratelimit_tiers.models.fields import ExactCharField, MethodsField, validate_year
from django_ratelimit_tiers.models.tiers import Limit, PolicyModel, Tier


class EndpointRule(PolicyModel):
    """Limits for the requests that match a path or a view, or an exemption of them."""

    natural_fields = ("name",)

    name = models.CharField(_("name"), max_length=100, unique=True)
    mode = ExactCharField(
        _("mode"),
        max_length=10,
        choices=MODES,
        default=Mode.ENFORCE.value,
        help_text=_("In shadow mode nobody is refused: throttle counts show who would have been."),
    )
    methods = MethodsField(
        _("methods"),
        max_length=100,
        blank=True,
        help_text=_("Separated by commas, like GET,POST; empty for all. HEAD counts as GET."),
    )
    path = models.CharField(
        _("path"),
        max_length=255,
        blank=True,
        help_text=_("Like /api/users/*/export or /api/**: * is one segment, ** is the rest."),
    )
    view_name = models.CharField(
        _("view name"),
        max_length=255,
        blank=True,
        help_text=_(
            "Instead of a path: the name of a route, like users:detail, or a view's dotted path."
        ),
    )
    identify_by = ExactCharField(
        _("count by"),
        max_length=12,
        choices=IDENTIFICATIONS,
        default=IdentifyBy.USER_OR_IP.value,
        help_text=_(
            "By user: who is not signed in is not limited. By API key or field: requests without "
            "one are counted by address."
        ),
    )
    request_field = models.CharField(
        _("request field"),
        max_length=100,
        blank=True,
        help_text=_("The form or JSON field to count by, like username."),
    )
    cost = models.PositiveIntegerField(
        _("cost"),
        default=1,
        validators=(MinValueValidator(1), MaxValueValidator(MAX_REQUESTS)),
        help_text=_("How much one request takes from each limit."),
    )
    count = ExactCharField(
        _("what is counted"),
        max_length=10,
        choices=COUNTS,
        default=Count.ALL.value,
        help_text=_("Failed: answered with a status of the setting FAILED_STATUSES, like 401."),
    )
    scope = ExactCharField(
        _("scope"),
        max_length=10,
        choices=SCOPES,
        default=Scope.RULE.value,
        help_text=_("Whether all that the rule covers is counted together."),
    )
    tier_policies = ExactCharField(
        _("limits of the tier"),
        max_length=10,
        choices=TIER_POLICIES,
        default=TierPolicies.ALSO.value,
        help_text=_("What becomes of the limits of the client's tier for these requests."),
    )
    exempt = models.BooleanField(
        _("exempt"),
        default=False,
        help_text=_("No limit applies to these requests, whatever other rules say."),
    )
    on_store_failure = ExactCharField(
        _("while the store is unavailable"),
        max_length=10,
        blank=True,
        choices=FAILURE_POLICIES,
        help_text=_("Empty for the setting ON_STORE_FAILURE."),
    )
    disclose = models.BooleanField(
        _("tell clients the numbers"),
        default=True,
        help_text=_("Turn off for logins and the like: clients then only learn when to retry."),
    )
    starts_at = models.DateTimeField(
        _("starts at"),
        null=True,
        blank=True,
        validators=(validate_year,),
        help_text=_("Empty: at once."),
    )
    ends_at = models.DateTimeField(
        _("ends at"),
        null=True,
        blank=True,
        validators=(validate_year,),
        help_text=_("Empty: never."),
    )
    notes = models.TextField(_("notes"), blank=True)

    class Meta(PolicyModel.Meta):
        verbose_name = _("endpoint rule")
        verbose_name_plural = _("endpoint rules")
        ordering = ("name",)
        constraints = (
            one_of("mode", MODES),
            one_of("identify_by", IDENTIFICATIONS),
            one_of("count", COUNTS),
            one_of("scope", SCOPES),
            one_of("tier_policies", TIER_POLICIES),
            one_of("on_store_failure", FAILURE_POLICIES, blank=True),
            models.CheckConstraint(
                condition=(Q(path="") & ~Q(view_name="")) | (~Q(path="") & Q(view_name="")),
                name="rlt_%(class)s_path_xor_view_name",
                violation_error_message=_("Give a path or a view name, and not both."),
            ),
            models.CheckConstraint(
                condition=(Q(identify_by=IdentifyBy.FIELD.value) & ~Q(request_field=""))
                | (~Q(identify_by=IdentifyBy.FIELD.value) & Q(request_field="")),
                name="rlt_%(class)s_request_field_if_used",
                violation_error_message=_(
                    "A request field is given exactly when requests are counted by it."
                ),
            ),
            models.CheckConstraint(
                condition=Q(cost__gte=1, cost__lte=MAX_REQUESTS), name="rlt_%(class)s_cost_in_range"
            ),
            ordered("starts_at", "ends_at"),
            readable("starts_at"),
            readable("ends_at"),
        )

    def __str__(self) -> str:
        return self.name

    def natural_key(self) -> tuple[str]:
        """Return by what other installations know the rule."""
        return (self.name,)

    def clean(self) -> None:
        """Refuse fields that contradict each other, naming the field."""
        super().clean()
        problems: dict[str, Any] = {}
        if bool(self.path) == bool(self.view_name):
            problems["path"] = _("Give a path or a view name, and not both.")
        elif self.path:
            try:
                parse_pattern(self.path)
            except ValueError as error:
                problems["path"] = str(error)
        by_field = self.identify_by == IdentifyBy.FIELD
        if by_field and not self.request_field:
            problems["request_field"] = _("Name the field of the request to count by.")
        elif self.request_field and not by_field:
            problems["request_field"] = _("Leave this empty, or count by a field of the request.")
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            problems["ends_at"] = _("The end must be after the start.")
        if problems:
            raise ValidationError(problems)


class RulePolicy(Limit):
    """A limit of an endpoint rule, for one tier or for every tier without a row of its own."""

    natural_fields = ("rule__name", "tier__slug", "period", "algorithm")

    rule = models.ForeignKey(
        EndpointRule, verbose_name=_("rule"), on_delete=models.CASCADE, related_name="policies"
    )
    tier = models.ForeignKey(
        Tier,
        verbose_name=_("tier"),
        on_delete=delete_too,
        null=True,
        blank=True,
        related_name="rule_policies",
        help_text=_("Empty: every tier without a row of its own."),
    )

    tier_key = unique_key(Coalesce("tier", models.Value(0)), models.BigIntegerField())

    class Meta(Limit.Meta):
        verbose_name = _("limit of a rule")
        verbose_name_plural = _("limits of rules")
        ordering = ("rule", "tier", "period", "algorithm")
        constraints = (
            *limit_constraints(),
            one_of("algorithm", ALGORITHMS),
            UniqueKeyConstraint(
                fields=("rule", "tier_key", "period", "algorithm"),
                name="rlt_%(class)s_one_per_period",
                violation_error_message=_(
                    "This rule already has a limit of this period and algorithm for the tier."
                ),
            ),
        )

    def __str__(self) -> str:
        return f"{self.rule}: {self.words}"

    def natural_key(self) -> tuple[str, str | None, int, str]:
        """Return by what other installations know the limit."""
        tier = None if self.tier is None else self.tier.slug
        return self.rule.name, tier, self.period, self.algorithm
