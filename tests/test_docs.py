"""The documents against the code, and against each other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.core.management import call_command
from django.test import Client, RequestFactory

from django_ratelimit_tiers.middleware import RateLimitMiddleware
from django_ratelimit_tiers.models import EndpointRule, TierPolicy
from django_ratelimit_tiers.shapes import EVENT_SHAPES, SHAPES
from django_ratelimit_tiers.store.configured import configured_store
from tests.policies import limit_tier, make_rule
from tests.servers import SiteProcess

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
MOVING = ROOT / "docs" / "moving.md"
OPERATIONS = ROOT / "docs" / "operations.md"

LINK = re.compile(r"\]\(([^)\s]+)\)")
SNIPPET = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^\| `([A-Z0-9_]+)` \| `([^`]*)` \|", re.MULTILINE)

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    texts = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.replace(" ", "-") for text in texts}


def snippets(document: Path, language: str) -> list[str]:
    found = SNIPPET.findall(document.read_text())
    return [dedent(text) for _, name, text in found if name == language]


@documents
def test_every_relative_link_leads_somewhere(document):
    broken = []
    for link in LINK.findall(document.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@documents
def test_every_python_snippet_compiles(document):
    for snippet in snippets(document, "python"):
        compile(snippet, document.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def defaults() -> dict[str, object]:
    """The defaults as a project gets them: those of this process are patient for tests."""
    code = "from django_ratelimit_tiers.conf import DEFAULTS; print(DEFAULTS)"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return ast.literal_eval(printed)


def settings_in(text: str) -> dict[str, object]:
    return {key: ast.literal_eval(value) for key, value in SETTING.findall(text)}


def test_the_settings_are_documented_with_their_defaults():
    site, events = (ROOT / "docs" / "settings.md").read_text().split('`RATELIMIT_TIERS["EVENTS"]`:')
    assert settings_in(site) | {"EVENTS": settings_in(events)} == defaults()


@pytest.mark.parametrize(
    "key", ["IPV6_PREFIX", "SAMPLE", "CARDINALITY", "COUNT_TTL", "RETENTION_DAYS", "LOG_PER_SECOND"]
)
def test_the_settings_are_documented_with_their_ranges(key):
    page = (ROOT / "docs" / "settings.md").read_text()
    found = re.search(rf"^\| `{key}` .* ([\d,]+) to ([\d,]+):", page, re.MULTILINE)
    assert found is not None
    least, most = (int(number.replace(",", "")) for number in found.groups())
    is_right, _ = (SHAPES | EVENT_SHAPES)[key]
    allowed = [is_right(value) for value in (least - 1, least, most, most + 1)]
    assert allowed == [False, True, True, False]


def test_the_readme_shows_the_two_commands():
    shown = snippets(ROOT / "README.md", "sh")
    assert "make demo\n" in shown
    assert "make test\n" in shown


def test_every_document_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in LINK.findall((ROOT / "README.md").read_text())}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_every_system_check_is_documented():
    code = (ROOT / "django_ratelimit_tiers" / "checks.py").read_text()
    known = set(re.findall(r'id="ratelimit_tiers\.(\w+)"', code))
    table = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^\| `([EW]\d{3})` \|", table, re.MULTILINE)) == known


def test_every_layer_is_documented():
    contract = (ROOT / "setup.cfg").read_text().partition("layers =")[2].partition("exhaustive")[0]
    page = (ROOT / "docs" / "architecture.md").read_text()
    layers, diagram = (re.findall(r"\w+", text) for text in (contract, page.split("```")[1]))
    assert set(layers) - {"layers", "apps"} <= set(diagram)


def test_every_command_and_logger_is_documented():
    package = ROOT / "django_ratelimit_tiers"
    text = "".join(path.read_text() for path in DOCUMENTS)
    commands = {path.stem for path in (package / "management" / "commands").glob("ratelimit_*.py")}
    code = "".join(path.read_text() for path in package.rglob("*.py"))
    loggers = set(re.findall(r'getLogger\("([\w.]+)"\)', code))
    assert {
        name for name in commands | loggers if f"`{name}" not in text and f"py {name}" not in text
    } == set()


@pytest.mark.django_db
def test_the_refusal_in_the_readme_is_the_one_that_the_demo_gets(client: Client) -> None:
    call_command("load_samples", stdout=StringIO())
    *_, refused = (client.get("/api/search/") for _ in range(16))
    [shown] = snippets(ROOT / "README.md", "http")
    lines = shown.splitlines()
    got = [f"{name}: {value}" for name, value in refused.headers.items()]
    assert {*map(shape, lines[1:-2])} <= {*map(shape, got)}
    assert json.loads(lines[-1]).keys() == json.loads(refused.content).keys()


def shape(line: str) -> str:
    """Return a header field without what is another at another time."""
    return re.sub(r";r=\d+;t=\d+|(?<=Reset: )\d+|(?<=After: )\d+|(?<=Decision: )\w+", "", line)


@pytest.mark.django_db
def test_the_page_for_customers_shows_what_they_have_left(rf: RequestFactory) -> None:
    limit_tier("anonymous", 5)
    make_rule("hidden", 9, path="/usage/", disclose=False)
    [snippet] = [text for text in snippets(ROOT / "docs/headers.md", "python") if "usage" in text]
    names = names_of(snippet)
    request = rf.get("/usage/")
    assert RateLimitMiddleware(names["usage"]).process_view(request, names["usage"], (), {}) is None
    shown = json.loads(names["usage"](request).content)
    assert shown.keys() == {"anonymous-31622400s"}
    assert shown["anonymous-31622400s"]["of"] == 5
    assert shown["anonymous-31622400s"]["left"] == 4


@pytest.mark.parametrize(
    ("rate", "requests", "period"),
    [
        ("100/day", 100, 86_400),
        ("5/m", 5, 60),
        ("100/5m", 100, 300),
        ("10 per 2 hours", 10, 7_200),
        ("4/minute", 4, 60),
        ("1 per second", 1, 1),
        ("20/hr", 20, 3_600),
    ],
)
def test_rates_of_other_limiters_become_rows(rate, requests, period):
    limit = names_of(snippets(MOVING, "python")[0])["limit"]
    assert limit(rate) == {"requests": requests, "period": period}


@pytest.mark.parametrize("rate", ["1/month", "2 per year", "five/m", "5/", ""])
def test_what_is_no_rate_of_another_limiter_is_refused(rate):
    with pytest.raises(ValueError, match="no rate"):
        names_of(snippets(MOVING, "python")[0])["limit"](rate)


@pytest.mark.django_db
def test_a_migration_writes_the_limits_of_another_limiter_as_often_as_it_runs():
    add_limits = names_of(snippets(MOVING, "python")[1])["add_limits"]
    for _ in range(2):
        add_limits(apps, None)
    limits = TierPolicy.objects.filter(tier__slug="anonymous").values_list("requests", "period")
    assert list(limits) == [(100, 86_400)]
    rule = EndpointRule.objects.get(name="uploads")
    assert (rule.view_name, rule.mode) == ("shop.views.Upload", "shadow")
    assert rule.policies.get().words == "20 per minute"


def names_of(snippet: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102 - it is our own
    return names


class DocumentedUvicorn(SiteProcess):
    """The test project in uvicorn, started as docs/operations.md says."""

    def _command(self) -> list[str]:
        program = self.directory / "program.py"
        (text,) = (one for one in snippets(OPERATIONS, "python") if "uvicorn" in one)
        text = text.replace("mysite", "testproject").replace("8000", str(self.port))
        program.write_text(
            text.replace("uvicorn.run(", f"sys.path.append({str(ROOT)!r})\n    uvicorn.run(")
        )
        return [sys.executable, str(program)]


def test_uvicorn_started_as_documented_tells_all_refusals_when_it_is_stopped(
    redis_url: str, database_url: str
) -> None:
    env = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
    with DocumentedUvicorn(env=env) as site, httpx.Client(base_url=site.url) as browser:
        limit_tier("anonymous", 1)
        end = time.monotonic() + 3
        refused = 0
        while time.monotonic() < end:
            refused += browser.get("/plain/").status_code == 429
        site.stop()
    records = configured_store().records
    told = sum(sum(records.counts(minute).values()) for minute in records.minutes())
    assert told == refused > 100
