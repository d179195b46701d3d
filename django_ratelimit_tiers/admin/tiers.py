"""The pages of tiers."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db.models import QuerySet, TextField
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.limits import LimitedAdmin, TierPolicyInline
from django_ratelimit_tiers.admin.links import RelatedAdmin
from django_ratelimit_tiers.admin.pages import ModeAdmin, log_changes
from django_ratelimit_tiers.admin.words import limits_words
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.models import ThrottleCount, Tier, TierAssignment
from django_ratelimit_tiers.models.words import number_words
from django_ratelimit_tiers.querysets import primary

MOST_NAMED = 100
"""How many assignments the page that refuses to delete a tier names; each costs it a query."""


class TierForm(forms.ModelForm):
    """A tier that becomes the default of clients in place of another."""

    class Meta:
        model = Tier
        fields = "__all__"  # noqa: DJ007 (staff edits every field)

    def _get_validation_exclusions(self) -> Any:
        """Allow a default that another tier is so far: that one gives it up."""
        excluded = super()._get_validation_exclusions()  # type: ignore[misc]  # not in stubs
        return excluded | {"default_for"}


@admin.register(Tier)
class TierAdmin(ModeAdmin, LimitedAdmin, RelatedAdmin):
    """Tiers with their limits."""

    inlines = (TierPolicyInline,)
    list_display = ("name", "slug", "limits", "in_force", "default_for", "rank")
    list_filter = ("default_for", "mode", "unlimited")
    search_fields = ("name", "slug", "description")
    prepopulated_fields = {"slug": ("name",)}
    formfield_overrides: ClassVar[Any] = {TextField: {"widget": AdminTextareaWidget({"rows": 3})}}
    fieldsets = (
        (None, {"fields": ("name", "slug", "description")}),
        (_("Who has it"), {"fields": ("default_for", "rank")}),
        (_("What it allows"), {"fields": ("mode", "unlimited")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("policies")

    def get_form(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Let those who may change tiers make another one the default of clients."""
        if self.has_change_permission(request):
            options["form"] = TierForm
        return super().get_form(request, *args, **options)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the tier; the former default of the same clients is one no longer.

        In one transaction: in between, these clients would have no limits.
        """
        former = primary(Tier).exclude(pk=obj.pk).exclude(default_for="")
        for tier in former.filter(default_for=obj.default_for):
            tier.default_for = ""
            tier.save(update_fields=["default_for"])
            log_changes(request, [tier], "default for")
            message = gettext("“%(tier)s” is no longer the default for %(clients)s.")
            words = {"tier": tier, "clients": obj.get_default_for_display()}
            self.message_user(request, message % words, messages.WARNING)
        super().save_model(request, obj, form, change)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Tell how many are assigned to the tiers where there are many, and name none of them."""
        tiers = list(objs)
        assigned = TierAssignment.objects.filter(tier__in=tiers).count()
        if assigned <= MOST_NAMED:
            return super().get_deleted_objects(tiers, request)
        text = gettext("%(n)s tier assignments") % {"n": number_words(assigned)}
        return [], {}, set(), [text]

    def related_links(self, tier: Tier) -> tuple[str, ...]:
        """Lead from a tier to those who have it, and to what it refused."""
        assigned = {"tier__id__exact": tier.pk}
        return (
            self.list_link(tier, TierAssignment, _("who is assigned to it"), **assigned),
            self.list_link(tier, ThrottleCount, _("throttle counts"), tier=tier.slug),
        )

    @admin.display(description=_("limits"))
    def limits(self, tier: Tier) -> str:
        if tier.unlimited:
            return gettext("unlimited")
        return limits_words(tier.policies.all()) or gettext("no limits yet")

    @admin.display(description=_("in force"), ordering="mode")
    def in_force(self, tier: Tier) -> str | None:
        if tier.unlimited:
            return None  # it has nothing that could be
        return gettext("only recorded") if tier.mode == Mode.SHADOW else gettext("yes")
