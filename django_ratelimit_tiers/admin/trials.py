"""Pages on which staff sees what limits do before they refuse anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_ratelimit_tiers.admin.pages import PolicyAdmin, may_view
from django_ratelimit_tiers.core.accesslogs import READ_ERRORS, LogReader, log_lines
from django_ratelimit_tiers.core.policies import Mode
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.models import EndpointRule, ServiceAccount, Tier
from django_ratelimit_tiers.policy.identity import address_client
from django_ratelimit_tiers.policy.previews import Enquiry, preview
from django_ratelimit_tiers.policy.replays import Comparison, ReplayFailed
from django_ratelimit_tiers.policy.reports import report
from django_ratelimit_tiers.policy.trials import Trial, TriedLimit

MOST_SECONDS = 15
"""How long one page replays a log: servers give up on requests after some 30 seconds."""

FOR_ALL = "manage.py ratelimit_replay reads all of a long log."

METHODS = "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"


class EnquiryForm(forms.Form):
    """A request that is asked about."""

    method = forms.ChoiceField(label=_("Method"), choices=[(name, name) for name in METHODS])
    path = forms.CharField(
        label=_("Path"),
        max_length=2000,
        widget=AdminTextInputWidget({"spellcheck": "false"}),
        help_text=_("As a client asks for it: /api/search/?q=a"),
    )
    address = forms.GenericIPAddressField(label=_("Address"))
    user = forms.CharField(
        label=_("User"),
        required=False,
        max_length=254,
        help_text=_("User name or primary key; empty for a client that is not logged in."),
    )
    api_key = forms.CharField(
        label=_("API key"),
        required=False,
        max_length=200,
        help_text=_("The id of a verified key, as API_KEY_RESOLVER returns it; never the secret."),
    )

    def clean_path(self) -> str:
        """Refuse what is no path."""
        asked: str = self.cleaned_data["path"]
        if not asked.startswith("/"):
            raise ValidationError(_("A path begins with a slash."))
        return asked


class TrialForm(forms.Form):
    """A log, and what is tried on it."""

    log = forms.FileField(
        label=_("Access log"),
        help_text=_("Common or combined format, or JSON lines; also with .gz."),
    )
    enforce = forms.ModelMultipleChoiceField(
        label=_("Enforce rules"),
        queryset=EndpointRule.objects.none(),
        required=False,
        help_text=_("Rules in shadow mode or off, to try as if they were enforced."),
    )
    tiers = forms.ModelMultipleChoiceField(
        label=_("Enforce tiers"),
        queryset=Tier.objects.none(),
        required=False,
        help_text=_("Tiers in shadow mode, to try as if they were enforced."),
    )
    limits = forms.CharField(
        label=_("Other numbers"),
        required=False,
        widget=AdminTextareaWidget({"rows": 3, "spellcheck": "false"}),
        help_text=_(
            "One limit a line, named as clients see it, a burst after a comma: free-minute=20,30"
        ),
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._offer("enforce", EndpointRule.objects.exclude(mode=Mode.ENFORCE).order_by("name"))
        self._offer("tiers", Tier.objects.exclude(mode=Mode.ENFORCE))

    def _offer(self, name: str, rows: QuerySet[Any]) -> None:
        """Let rows be chosen in a field, which is left out when there are none."""
        if rows.exists():
            field: Any = self.fields[name]
            field.queryset = rows
        else:
            del self.fields[name]

    def clean_limits(self) -> dict[str, TriedLimit]:
        """Return the limits by name."""
        lines = filter(None, map(str.strip, self.cleaned_data["limits"].splitlines()))
        try:
            return dict(map(TriedLimit.parse, lines))
        except ValueError as error:
            raise ValidationError(str(error)) from error

    @property
    def trial(self) -> Trial:
        """What is tried."""
        chosen = self.cleaned_data
        rules = frozenset(rule.pk for rule in chosen.get("enforce", ()))
        tiers = frozenset(tier.slug for tier in chosen.get("tiers", ()))
        return Trial(rules, tiers, limits=chosen["limits"])


class TrialAdmin(PolicyAdmin):
    """An admin with a page that asks about a request, and one that replays a log."""

    change_list_template = "admin/django_ratelimit_tiers/endpointrule/change_list.html"

    def get_urls(self) -> list[URLPattern]:
        """Put both pages before those of rows."""
        wrap, name = self.admin_site.admin_view, f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path("preview/", wrap(self.preview_view), name=f"{name}_preview"),
            path("replay/", wrap(self.replay_view), name=f"{name}_replay"),
        ]
        return own + super().get_urls()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the page that replays a log whoever may see it."""
        shown = {**(extra_context or {}), "may_replay": self._may_replay(request)}
        response: HttpResponse = super().changelist_view(request, shown)
        return response

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Tell what a request would be charged; nothing is."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        address = address_client(request).address
        form = EnquiryForm(request.GET or None, initial={"path": "/", "address": address})
        if not may_view(request, get_user_model()):
            del form.fields["user"]
        lines: list[str] = []
        if form.is_valid():
            try:
                names_accounts = may_view(request, ServiceAccount)
                lines = preview(Enquiry(**form.cleaned_data), names_accounts=names_accounts)
            except StoreUnavailable:
                form.add_error(None, gettext("The store does not answer."))
            except Exception as error:  # from the site's own functions
                form.add_error(None, gettext("It cannot be decided: %r") % error)
        return self._page(request, gettext("Try a request"), form, lines)

    def replay_view(self, request: HttpRequest) -> HttpResponse:
        """Tell whom the policy would have refused, by a log that is uploaded and not kept."""
        if not self._may_replay(request):
            raise PermissionDenied
        is_sent = request.method == "POST"
        form = TrialForm(request.POST if is_sent else None, request.FILES if is_sent else None)
        lines: list[str] = []
        if form.is_valid():
            try:
                lines = list(_replay(form.cleaned_data["log"], form.trial))
            except READ_ERRORS as error:
                form.add_error("log", gettext("It cannot be read: %s") % error)
            except (ValueError, ReplayFailed) as error:
                form.add_error(None, str(error))
        return self._page(request, gettext("Replay a log"), form, lines)

    def _may_replay(self, request: HttpRequest) -> bool:
        """Return whether a staff member may replay logs: the report tells which users there are."""
        return bool(self.has_change_permission(request)) and may_view(request, get_user_model())

    def _page(
        self, request: HttpRequest, title: str, form: forms.Form, lines: list[str]
    ) -> HttpResponse:
        name, method = "endpointrule/trial", "post" if form.is_multipart() else "get"
        return self.own_page(request, name, title, form=form, method=method, lines=lines)


def _replay(upload: UploadedFile, trial: Trial) -> Iterator[str]:
    """Yield the report on a log; raises ValueError for one that tells of no request."""
    comparison, reader, name = Comparison(trial), LogReader(), upload.name or ""
    lines, deadline = log_lines(upload, name), time.monotonic() + MOST_SECONDS
    in_time = takewhile(lambda _: time.monotonic() < deadline, lines)
    comparison.decide(reader.read(in_time, name))
    is_cut = time.monotonic() >= deadline
    if not comparison.today.clients:
        raise ValueError(f"The log tells of no request. {reader.unread_words}")
    yield from report(comparison)
    if reader.unread:
        yield from ("", reader.unread_words)
    if is_cut:
        yield from ("", f"This is what {MOST_SECONDS} seconds were enough for; {FOR_ALL}")
