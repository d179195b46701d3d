"""The pages of service accounts and tier assignments."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.pages import (
    ExpiryFilter,
    PolicyAdmin,
    log_changes,
    where_written,
)
from django_ratelimit_tiers.digests import DIGEST, key_digests
from django_ratelimit_tiers.models import ServiceAccount, TierAssignment
from django_ratelimit_tiers.querysets import primary

USERNAME = f"user__{get_user_model().USERNAME_FIELD}"


class ServiceAccountForm(forms.ModelForm):
    """A service account, and whether it gets a new key."""

    issue_key = forms.BooleanField(
        label=_("Issue a new key"),
        required=False,
        help_text=_("It is shown once, after saving. An earlier key stops working at once."),
    )

    class Meta:
        model = ServiceAccount
        fields = "__all__"  # noqa: DJ007 (staff edits every field that is editable)
        widgets = {"reason": forms.Textarea({"rows": 3}), "networks": forms.Textarea({"rows": 3})}

    def clean(self) -> dict[str, Any]:
        """Refuse an account that nothing identifies."""
        cleaned = super().clean() or self.cleaned_data
        found = [cleaned.get(name) for name in ("user", "networks", "issue_key")]
        if not any(found) and not self.instance.key_digest and "networks" not in self.errors:
            raise ValidationError(_("Name a user or networks, or issue a key."), "identified")
        return cleaned


@admin.register(ServiceAccount)
class ServiceAccountAdmin(PolicyAdmin):
    """Service accounts; a key is shown on the page that answers the request for it, only there."""

    form = ServiceAccountForm
    list_display = ("name", "owner", "identified_by", "in_force", "expires_at", "last_used_at")
    list_filter = ("is_active", ExpiryFilter)
    search_fields = ("name", "owner", "reason", "networks", USERNAME)
    raw_id_fields = ("user",)
    readonly_fields = ("has_key", "last_used_at")
    actions = ("issue_new_keys",)
    list_select_related = ("user",)
    fieldsets = (
        (None, {"fields": ("name", "owner", "reason")}),
        (_("What identifies it"), {"fields": ("user", "networks", "has_key", "issue_key")}),
        (_("How long it holds"), {"fields": ("is_active", "expires_at", "last_used_at")}),
    )

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Refuse to filter by the digest of the key: staff is only told that there is a key."""
        digest = lookup.startswith("key_digest")
        return not digest and super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("has a key"), boolean=True)
    def has_key(self, account: ServiceAccount) -> bool:
        return bool(account.key_digest)

    @admin.display(description=_("in force"), boolean=True)
    def in_force(self, account: ServiceAccount) -> bool:
        return account.is_active and account.expires_at > timezone.now()

    @admin.display(description=_("identified by"))
    def identified_by(self, account: ServiceAccount) -> str:
        parts = [str(account.user)] if account.user else []
        if account.key_digest:
            parts.append(gettext("key"))
        named = gettext(" or ").join(parts)
        networks = ", ".join(account.networks.split())
        if named and networks:
            return gettext("%(named)s, from %(networks)s") % {"named": named, "networks": networks}
        return named or networks

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the account, with a new key when one was asked for."""
        obj.issued_key = obj.new_key() if form.cleaned_data.get("issue_key") else None
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, *args: Any, **options: Any) -> Any:
        response = super().response_add(request, obj, *args, **options)
        return self.keys_page(request, [obj]) if obj.issued_key else response

    def response_change(self, request: HttpRequest, obj: Any) -> Any:
        response = super().response_change(request, obj)
        return self.keys_page(request, [obj]) if obj.issued_key else response

    @admin.action(description=_("Issue new keys to selected accounts"), permissions=["change"])
    def issue_new_keys(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        """Replace the keys of the accounts; the answer is the only page that shows them."""
        queryset = where_written(queryset)
        with transaction.atomic(using=queryset.db):
            accounts = list(queryset)
            for account in accounts:
                account.issued_key = account.new_key()
                account.save(update_fields=["key_digest"])
            log_changes(request, accounts, "key")
        return self.keys_page(request, accounts)

    def keys_page(self, request: HttpRequest, accounts: list[Any]) -> HttpResponse:
        """Return the page that shows new keys: they are stored nowhere, in no message either."""
        # The site lets no cache keep its pages.
        name, title = "serviceaccount/new_keys", gettext("New keys")
        return self.own_page(request, name, title, accounts=accounts)


def _digests(key: str) -> list[str]:
    return list(key_digests(key))


class TierAssignmentForm(forms.ModelForm):
    """An assignment; a key is known again under each of the site's secrets."""

    class Meta:
        model = TierAssignment
        fields = "__all__"  # noqa: DJ007 (staff edits every field that is editable)

    def _post_clean(self) -> None:
        """Refuse a key that was assigned a tier while the site had another secret.

        As late as this, the model does not miss the key.
        """
        key = self.cleaned_data.get("api_key")
        super()._post_clean()  # type: ignore[misc]
        if not key or DIGEST.match(key) or "api_key" in self.errors:
            return
        others = primary(TierAssignment).exclude(pk=self.instance.pk)
        if others.filter(api_key__in=_digests(key)).exists():
            self.add_error("api_key", _("This key has a tier already: edit its assignment."))


@admin.register(TierAssignment)
class TierAssignmentAdmin(PolicyAdmin):
    """Who has which tier."""

    form = TierAssignmentForm
    list_display = ("who", "tier", "expires_at", "note")
    list_filter = ("tier", ExpiryFilter)
    search_fields = (USERNAME, "group__name", "=api_key", "note")
    raw_id_fields = ("user", "group")
    list_select_related = ("user", "group", "tier")
    fieldsets = (
        (
            _("Who"),
            {
                "fields": ("user", "group", "api_key"),
                "description": _(
                    "One of them. A user's own tier beats a key's, a key's a group's."
                ),
            },
        ),
        (_("What"), {"fields": ("tier", "expires_at", "note")}),
    )

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """Find a key by itself, too, under each of the site's secrets."""
        found, has_repetitions = super().get_search_results(request, queryset, search_term)
        if search_term:
            found = found | queryset.filter(api_key__in=_digests(search_term))
        return found, has_repetitions

    @admin.display(description=_("who"))
    def who(self, assignment: TierAssignment) -> str:
        if assignment.group is not None:
            return gettext("group %(name)s") % {"name": assignment.group}
        return str(assignment.user or assignment.api_key)
