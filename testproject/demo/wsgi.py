"""The test project with the admin's style sheets, which a real site leaves to its web server."""

from __future__ import annotations

from django.contrib.staticfiles.handlers import StaticFilesHandler

from testproject.wsgi import application as site

application = StaticFilesHandler(site)
