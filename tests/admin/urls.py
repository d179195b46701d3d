"""Routes for the tests of the admin."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def answer(_request: HttpRequest, **_: object) -> HttpResponse:
    return HttpResponse()


notes = ([path("", answer, name="list"), path("<int:pk>/", answer)], "notes")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/search/", answer, name="search"),
    path("api/notes/", include(notes)),
]
