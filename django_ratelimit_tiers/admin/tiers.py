"""The pages of tiers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.limits import TierPolicyInline
from django_ratelimit_tiers.admin.pages import PolicyAdmin
from django_ratelimit_tiers.admin.words import limits_words
from django_ratelimit_tiers.models import Tier


@admin.register(Tier)
class TierAdmin(PolicyAdmin):
    """Tiers with their limits."""

    inlines = (TierPolicyInline,)
    list_display = ("name", "slug", "limits", "default_for", "rank")
    list_filter = ("default_for", "unlimited")
    search_fields = ("name", "slug", "description")
    prepopulated_fields = {"slug": ("name",)}
    fieldsets = (
        (None, {"fields": ("name", "slug", "description")}),
        (_("Who has it"), {"fields": ("default_for", "rank")}),
        (_("What it allows"), {"fields": ("unlimited",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("policies")

    @admin.display(description=_("limits"))
    def limits(self, tier: Tier) -> str:
        if tier.unlimited:
            return gettext("unlimited")
        return limits_words(tier.policies.all()) or gettext("no limits yet")
