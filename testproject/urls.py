"""Routes of the test project, among them every spelling that a limit has to see through."""

from __future__ import annotations

from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.urls import include, path, re_path
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.routers import DefaultRouter

from django_ratelimit_tiers.decorators import ratelimit
from testproject import api, views

router = DefaultRouter()
router.register("notes", api.NoteViewSet, basename="note")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("health/", views.health, name="health"),
    path("plain/", views.plain, name="plain"),
    path("async/", views.asynchronous, name="async"),
    path("api/login/", views.login_view, name="login"),
    path("api/token/", obtain_auth_token, name="token"),
    path("api/search/", api.Search.as_view(), name="search"),
    path("api/find/", api.Search.as_view(), name="find"),
    path("api/export/", ratelimit(cost=5)(api.Export.as_view()), name="export"),
    path("api/files/<path:rest>", views.file, name="file"),
    path("api/items/<int:number>/", views.item, name="item"),
    re_path(r"^api/orders/(?P<number>\d+)/$", views.item, name="order"),
    # Django's reverse() takes a flag only within a named group.
    re_path(r"^api/(?P<section>(?i:reports))/(?P<name>[a-z-]+)/?$", views.report, name="report"),
    path("api/", include(router.urls)),
    *i18n_patterns(path("about/", views.about, name="about")),
]
