"""Routes for the tests of the admin."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_ratelimit_tiers.models import EndpointRule, ServiceAccount, ThrottleEvent, Tier


def answer(_request: HttpRequest, **_: object) -> HttpResponse:
    return HttpResponse()


ops = admin.AdminSite("ops")
"""A site with a few of the pages, beside the one with all of them."""

for model in (Tier, EndpointRule, ServiceAccount, ThrottleEvent):
    ops.register(model, type(admin.site.get_model_admin(model)))


notes = ([path("", answer, name="list"), path("<int:pk>/", answer)], "notes")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("ops/", ops.urls),
    path("api/search/", answer, name="search"),
    path("api/notes/", include(notes)),
]
