"""What the documents tell a new user to do, done to a new site with a real Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import ValkeyProcess
from tests.test_docs import ROOT, snippets

URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response


@api_view()
def search(request):
    return Response()


async def feed(request):
    return HttpResponse()


urlpatterns = [path("admin/", admin.site.urls), path("search/", search), path("feed/", feed)]
"""

REFUSED = """
from django.conf import settings
from django.test import Client
settings.ALLOWED_HOSTS = ["testserver"]
statuses = [Client().get("/search/").status_code for _ in range(16)]
assert statuses == [200] * 15 + [429], statuses
"""

Manage = Callable[..., str]


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "mysite.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["README.md", "docs/install.md"])
def manage(request, tmp_path) -> Iterator[Manage]:
    """`manage.py` of a new site whose settings say what a document says."""
    run(tmp_path, "-m", "django", "startproject", "mysite", ".")
    (tmp_path / "mysite" / "urls.py").write_text(URLS)
    tests = [
        text for text in snippets(ROOT / "docs" / "testing.md", "python") if "TestCase" in text
    ]
    (tmp_path / "tests.py").write_text("\n".join(tests))
    told = snippets(ROOT / request.param, "python")[0]
    told = told.replace("# ...", "*INSTALLED_APPS, 'rest_framework',", 1)
    told = told.replace("# ...", "*MIDDLEWARE,", 1)
    with ValkeyProcess() as valkey, (tmp_path / "mysite" / "settings.py").open("a") as settings:
        settings.write(told.replace("redis://127.0.0.1:6379/0", valkey.url))
        settings.write('RATELIMIT_TIERS = {"STORE_TIMEOUT": 5}\n')
        settings.flush()
        yield lambda *command: run(tmp_path, "manage.py", *command)


def test_a_new_site_is_limited_and_tested_as_documented(manage):
    manage("migrate")
    manage("check")
    assert "Nothing is wrong." in manage("ratelimit_check")
    manage("shell", "-c", REFUSED)
    manage("test")
