from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import messages
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.forms import BaseForm
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

Page = Callable[..., str]


def page(name: str, *args: Any) -> str:
    """The address of an admin page of this package: `page("tier_change", 1)`."""
    return reverse(f"admin:django_ratelimit_tiers_{name}", args=args)


def fields(form: BaseForm) -> dict[str, Any]:
    """What a browser would send back of a form."""
    sent: dict[str, Any] = {}
    for bound in form:
        sent.update(split(bound, bound.value()))
    return {name: value for name, value in sent.items() if value not in (None, False)}


def split(bound: Any, value: Any) -> list[tuple[str, Any]]:
    widgets = getattr(bound.field.widget, "widgets", None)
    if widgets is None:
        return [(bound.html_name, value)]
    parts = bound.field.widget.decompress(value)
    return [(f"{bound.html_name}_{n}", part) for n, part in enumerate(parts)]


def sent_form(response: HttpResponse) -> dict[str, Any]:
    """What a browser would send back of an admin page, as it was shown."""
    sent = fields(response.context["adminform"].form)
    for inline in response.context["inline_admin_formsets"]:
        sent |= fields(inline.formset.management_form)
        for form in inline.formset.forms:
            sent |= fields(form)
    return sent


def warnings(response: HttpResponse) -> list[str]:
    """What the page that follows a saved form will warn of."""
    told = get_messages(response.wsgi_request)
    return [str(message) for message in told if message.level == messages.WARNING]


def row(number: int, prefix: str = "policies", **values: Any) -> dict[str, Any]:
    """The fields of one inline row, with what they are when nobody touches them."""
    given = {"algorithm": "sliding_window_counter"} | values
    return {f"{prefix}-{number}-{name}": value for name, value in given.items()}


def rows(*limits: dict[str, Any], prefix: str = "policies") -> dict[str, Any]:
    """New inline rows, as a browser sends them."""
    sent: dict[str, Any] = {f"{prefix}-TOTAL_FORMS": len(limits), f"{prefix}-INITIAL_FORMS": 0}
    for number, limit in enumerate(limits):
        sent |= row(number, prefix, **limit)
    return sent


def errors(response: HttpResponse) -> dict[str, list[str]]:
    """What the page says is wrong, by field; rows by their number."""
    assert response.status_code == 200, "the form was accepted"
    found = dict(response.context["adminform"].form.errors)
    for inline in response.context["inline_admin_formsets"]:
        if inline.formset.non_form_errors():
            found["rows"] = inline.formset.non_form_errors()
        for number, form in enumerate(inline.formset.forms):
            found |= {f"{number}-{name}": messages for name, messages in form.errors.items()}
    return found


@pytest.fixture(autouse=True)
def _own_site(settings: Any) -> None:
    """These tests are about pages, not about how often they may be asked for."""
    settings.ROOT_URLCONF = "tests.admin.urls"
    settings.MIDDLEWARE = [
        name for name in settings.MIDDLEWARE if not name.startswith("django_ratelimit_tiers.")
    ]


@pytest.fixture
def staff(admin_client: Client) -> Client:
    """A browser of somebody who may do everything."""
    return admin_client


def allowed(browser: Client, *permissions: str) -> Client:
    """A browser of somebody who may do this much in this package: `"add_tier"`."""
    found = Permission.objects.filter(
        codename__in=permissions, content_type__app_label="django_ratelimit_tiers"
    )
    assert len(found) == len(permissions), "no such permission"
    user = User.objects.create_user("somebody", is_staff=True)
    user.user_permissions.set(found)
    browser.force_login(user)
    return browser


@pytest.fixture
def viewer(client: Client) -> Client:
    """A browser of somebody who may look at everything and change nothing."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return client
