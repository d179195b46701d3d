"""The third part of the demo: staff raises a limit, and every worker obeys at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx

from testproject.demo.forms import Fields, errors, form_fields
from testproject.demo.stages import Stage
from testproject.demo.traffic import sent_by

MOST_CONNECTIONS = 200
"""How many connections are opened, at most, until every worker has accepted one."""

MOST_REQUESTS = 1000
"""How many requests are sent, at most, until one is refused."""

MINUTE = "60"


class FormRefused(Exception):
    """A form of the admin was not taken; the message is what the page said."""


@dataclass(frozen=True, slots=True)
class Line:
    """One connection, which stays with the worker that accepted it."""

    client: httpx.Client
    process: int

    def ask(self, token: str) -> httpx.Response:
        """Send the request of a free user."""
        headers = {"Authorization": f"Token {token}", **sent_by("192.0.2.2")}
        return self.client.get("/api/notes/", headers=headers)

    def ask_until_refused(self, token: str) -> httpx.Response:
        """Send the request until it is refused, and return the refusal."""
        answer = self.ask(token)
        for _ in range(MOST_REQUESTS):
            if answer.status_code == 429:
                break
            answer = self.ask(token)
        return answer


def show_edit(stage: Stage) -> None:
    """Raise the free tier's limit in the admin and ask every worker once."""
    screen, token = stage.screen, stage.samples["users"]["free"]["token"]
    screen.title("An edit in the admin")
    with ExitStack() as connections:
        lines = list(lines_to_workers(stage, connections))
        screen.line(f"  workers: {', '.join(str(line.process) for line in lines)}")
        before = [line.ask_until_refused(token) for line in lines]
        edit = raise_limit(stage)
        screen.line(f"  free tier, saved in the admin's form: {edit}")
        after = [line.ask(token) for line in lines]
        stayed = [port(old) == port(new) for old, new in zip(before, after, strict=True)]
    screen.line()
    rows = [
        (line.process, *told(old), *told(new))
        for line, old, new in zip(lines, before, after, strict=True)
    ]
    screen.table(("worker", "before", "limit", "remaining", "after", "limit", "remaining"), rows)
    screen.line()
    limits = [response.headers.get("X-RateLimit-Limit") for response in (*before, *after)]
    wanted = [str(edit.old_burst)] * len(lines) + [str(edit.new_burst)] * len(lines)
    refused = all(response.status_code == 429 for response in before)
    admitted = refused and all(response.status_code == 200 for response in after)
    every = len(lines) == stage.workers and all(stayed)
    screen.promise("every worker was asked, on a connection of its own", every, str(stayed))
    screen.promise("the very next request in every worker obeyed", limits == wanted, str(limits))
    screen.promise("the free user who was refused before is admitted again", admitted)


@dataclass(frozen=True, slots=True)
class Edit:
    """What was written into the form."""

    old_requests: int
    old_burst: int

    @property
    def new_requests(self) -> int:
        """The limit per minute from now on."""
        return 2 * self.old_requests

    @property
    def new_burst(self) -> int:
        """The burst from now on."""
        return 2 * self.old_burst

    def __str__(self) -> str:
        old = f"{self.old_requests} per minute, burst {self.old_burst}"
        return f"{old} -> {self.new_requests} per minute, burst {self.new_burst}"


def raise_limit(stage: Stage) -> Edit:
    """Double the free tier's limit per minute, as staff does with a browser."""
    page = stage.samples["free_tier_page"]
    with httpx.Client(base_url=stage.url, timeout=60, headers=sent_by("192.0.2.9")) as browser:
        log_in(browser, page, stage.samples["users"]["admin"])
        fields = form_fields(browser.get(page).raise_for_status().text)
        row = minute_row(fields)
        requests, burst = f"{row}-requests", f"{row}-burst"
        edit = Edit(int(fields[requests][0]), int(fields[burst][0]))
        fields[requests], fields[burst] = [str(edit.new_requests)], [str(edit.new_burst)]
        send(browser, page, {**fields, "_save": ["Save"]})
    return edit


def log_in(browser: httpx.Client, page: str, staff: dict[str, str]) -> None:
    """Log into the admin, on the way to a page."""
    response = browser.get(page, follow_redirects=True).raise_for_status()
    fields = form_fields(response.text)
    fields |= {"username": [staff["username"]], "password": [staff["password"]]}
    send(browser, str(response.url), fields)


def send(browser: httpx.Client, page: str, fields: Fields) -> None:
    """Post a form; raises FormRefused when it comes back."""
    headers = {"Referer": str(browser.base_url.join(page))}
    response = browser.post(page, data=fields, headers=headers)
    if response.status_code != 302:
        said = "; ".join(errors(response.text)) or response.text[:500]
        raise FormRefused(f"{page} answered {response.status_code}: {said}")


def minute_row(fields: Fields) -> str:
    """Return the prefix of the row that holds the limit per minute."""
    for name, values in fields.items():
        if re.fullmatch(r"policies-\d+-period", name) and values == [MINUTE]:
            return name.removesuffix("-period")
    raise FormRefused(f"the free tier has no limit per minute: {', '.join(fields)}")


def lines_to_workers(stage: Stage, connections: ExitStack) -> Iterator[Line]:
    """Open connections until each worker has accepted one, and yield that one."""
    seen: set[int] = set()
    for _ in range(MOST_CONNECTIONS):
        client = httpx.Client(base_url=stage.url, timeout=60)
        connections.enter_context(client)
        process = client.get("/health/").raise_for_status().json()["process"]
        if process not in seen:
            seen.add(process)
            yield Line(client, process)
        if len(seen) == stage.workers:
            return


def told(response: httpx.Response) -> tuple[Any, ...]:
    """Return status, limit and remaining as the client was told."""
    headers = response.headers
    limit = headers.get("X-RateLimit-Limit", "-")
    return response.status_code, limit, headers.get("X-RateLimit-Remaining", "-")


def port(response: httpx.Response) -> object:
    """Return the client's port: equal for what went over one connection."""
    return response.extensions["network_stream"].get_extra_info("client_addr")
