"""The test project's own models in the admin."""

from __future__ import annotations

from django.contrib import admin

from testproject.models import ApiKey, Note

admin.site.register([ApiKey, Note])
