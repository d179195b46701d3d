"""The rows of limits within a tier or a rule, checked against each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.core.exceptions import ValidationError
from django.db import router, transaction
from django.db.models import QuerySet
from django.forms import BaseInlineFormSet, model_to_dict
from django.forms.formsets import DELETION_FIELD_NAME
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.periods import LimitForm
from django_ratelimit_tiers.core.envelopes import never_reached
from django_ratelimit_tiers.core.policies import QuotaPolicy
from django_ratelimit_tiers.models import EndpointRule, RulePolicy, TierPolicy
from django_ratelimit_tiers.models.tiers import Limit
from django_ratelimit_tiers.models.words import limit_words, number_words
from django_ratelimit_tiers.policy.compilation import compile_limits


class LimitFormSet(BaseInlineFormSet):
    """Limits that hold together: none repeated, none that another one makes pointless."""

    def clean(self) -> None:
        """Refuse limits that contradict each other, naming the field of the row at fault."""
        super().clean()
        if any(form.instance.pk is None for form in self.remaining() if form in self.initial_forms):
            message = gettext("Somebody else has deleted one of these limits: load the page again.")
            raise ValidationError(message, "gone")
        self.compare_with_unseen()
        for forms in self.by_tier().values():
            ordered = sorted(forms, key=lambda form: form.instance.period)
            for shorter, longer in combinations(ordered, 2):
                self.compare(shorter, longer)

    def compare(self, shorter: Any, longer: Any) -> None:
        """Refuse the second limit when it repeats the first one or undercuts it."""
        first, second = shorter.instance, longer.instance
        if first.period == second.period:
            if first.algorithm == second.algorithm:
                message = gettext("There is another limit of this period and algorithm.")
                longer.add_error("period", ValidationError(message, "duplicate"))
        elif second.requests < first.requests:
            message = gettext("A longer period may not allow fewer requests than %(limit)s.")
            words = {"limit": limit_words(first.requests, first.period)}
            longer.add_error("requests", ValidationError(message, "undercut", words))

    def compare_with_unseen(self) -> None:
        """Refuse a limit that somebody else has added, too, since the page was shown."""
        shown = {form.instance.pk for form in self.initial_forms}
        unseen = [row for row in self.get_queryset() if row.pk not in shown]
        taken = {self.place(model_to_dict(row)) for row in unseen}
        message = gettext("Somebody else has added a limit of this period and algorithm.")
        for form in self.remaining() if taken else ():
            if form.is_valid() and self.place(model_to_dict(form.instance)) in taken:
                form.add_error("period", ValidationError(message, "duplicate"))

    def save_existing_objects(self, commit: bool = True) -> list[Any]:
        """Save and delete rows; one whose place another takes is first deleted, to come again.

        The database compares every row with those that are not yet saved: two limits could not
        swap their periods, and none could follow a deleted one.
        """
        if commit:
            limits: Any = self.model
            limits.objects.filter(pk__in=self.displaced()).delete()
        return super().save_existing_objects(commit)

    def displaced(self) -> list[int]:
        """Return the ids of the rows whose present tier, period and algorithm another will have."""
        forms = [form for form in self.initial_forms if form.instance.pk]  # others have gone
        present = {self.place(form.initial): form.instance.pk for form in forms}
        future = {
            self.place(model_to_dict(form.instance)): form.instance.pk
            for form in forms
            if form not in self.deleted_forms
        }
        return [pk for place, pk in present.items() if future.get(place, pk) != pk]

    @staticmethod
    def place(values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what only one of the rows of a tier or a rule can have."""
        return values.get("tier"), values["period"], values["algorithm"]

    def by_tier(self) -> dict[int | None, list[Any]]:
        """Return the rows that will be saved and are right in themselves, by their tier."""
        forms = defaultdict(list)
        for form in self.remaining():
            if form.is_valid():
                forms[getattr(form.instance, "tier_id", None)].append(form)
        return forms

    def remaining(self) -> list[Any]:
        """Return the forms of the rows that there will be."""
        return [
            form
            for form in self.forms
            if (form.instance.pk or form.has_changed())
            and not getattr(form, "cleaned_data", {}).get(DELETION_FIELD_NAME)
        ]


class RuleLimitFormSet(LimitFormSet):
    """Limits of a rule: also large enough for what one request costs."""

    instance: EndpointRule

    def clean(self) -> None:
        super().clean()
        remaining = self.remaining()
        for form in remaining:
            if form.is_valid():
                self.check_cost(form)
        if not remaining and not self.instance.exempt:
            raise ValidationError(gettext("Add at least one limit, or make the rule exempt."))

    def check_cost(self, form: Any) -> None:
        """Refuse a limit that could never admit a single request."""
        limit: Limit = form.instance
        if self.instance.cost > limit.capacity:
            message = gettext("One request costs %(cost)s: no request could ever pass this limit.")
            field = "requests" if limit.burst is None else "burst"
            words = {"cost": number_words(self.instance.cost)}
            form.add_error(field, ValidationError(message, "cost", words))


class LimitedAdmin(admin.ModelAdmin):
    """An admin of rows with limits, which warns of limits that are never reached."""

    def get_object(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Let a form that is sent wait for another of the same row, to see what that one adds."""
        row: Any = super().get_object(request, *args, **options)
        using = router.db_for_write(self.model)
        is_saving = request.method == "POST" and transaction.get_connection(using).in_atomic_block
        if row is not None and is_saving:
            self.model._base_manager.using(using).select_for_update().filter(pk=row.pk).first()
        return row

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        message = gettext("“%(limit)s” is never reached: “%(other)s” refuses first.")
        for formset in formsets:
            groups = formset.by_tier().values() if isinstance(formset, LimitFormSet) else ()
            for rows in groups:
                policies = compile_limits([row.instance for row in rows], "", "")
                for limit, other in never_reached(policies):
                    words = {"limit": _words(limit), "other": _words(other)}
                    self.message_user(request, message % words, messages.WARNING)


def _words(policy: QuotaPolicy) -> str:
    return limit_words(policy.requests, policy.period, policy.burst)


class LimitInline(admin.TabularInline):
    """Limits as a part of their tier or rule: who may edit that may edit them.

    Without them on its page nothing would compare a rule's cost with its limits.
    """

    form = LimitForm
    verbose_name = _("limit")
    verbose_name_plural = _("limits")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read the rows together with what each of them is named by."""
        owners = (field.name for field in self.model._meta.fields if field.many_to_one)
        return super().get_queryset(request).select_related(*owners)

    def get_extra(self, request: HttpRequest, obj: Any = None, **options: Any) -> int:
        """Offer an empty row on the page of a new tier or rule only."""
        return 0 if obj else 1

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.parent.has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is None:
            return self.parent.has_add_permission(request)
        return self.parent.has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    @property
    def parent(self) -> admin.ModelAdmin[Any]:
        return self.admin_site.get_model_admin(self.parent_model)


class TierPolicyInline(LimitInline):
    """The limits of a tier."""

    model = TierPolicy
    formset = LimitFormSet
    fields = ("requests", "period", "algorithm", "burst")


class RulePolicyInline(LimitInline):
    """The limits of a rule."""

    model = RulePolicy
    formset = RuleLimitFormSet
    fields = ("tier", "requests", "period", "algorithm", "burst")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Say what a row without a tier is for, and ask for the tiers once for all rows."""
        options.setdefault("empty_label", gettext("every other tier"))
        field: Any = super().formfield_for_foreignkey(db_field, request, **options)
        field.choices = list(field.choices)
        return field

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Offer tiers to choose from, without buttons in each row that edit or delete them."""
        field = super().formfield_for_dbfield(db_field, request, **options)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        return field
