"""The first part of the demo: real clients, and what the limits make of them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from testproject.demo.clients import Arguments, Limit, Tally, Visit, pay
from testproject.demo.screens import Screen
from testproject.demo.stages import Stage

SHOWN = ("ratelimit", "ratelimit-policy", "retry-after", "cache-control", "content-type")


def show_traffic(stage: Stage) -> None:
    """Send the traffic of every client and compare it with the limits in force."""
    screen = stage.screen
    screen.title("Traffic")
    tallies = [pay(stage.url, visit, screen) for visit in visits(stage.samples)]
    spent: dict[str, Counter[str]] = defaultdict(Counter)
    rows, wrong = [], []
    for tally in tallies:
        visit = tally.visit
        least, most = tally.expected(spent[visit.client])
        for limit in visit.limits:
            spent[visit.client][limit.owner] += tally.admitted * limit.cost
        expected = str(least) if least == most else f"{least} to {most}"
        numbers = tally.sent, tally.admitted, tally.refused
        rows.append((visit.client, visit.what, *numbers, expected, tally.refused_by))
        if (
            not least <= tally.admitted <= most
            or tally.strange
            or bool(visit.limits) != bool(tally.refused)
        ):
            found = f"{tally.admitted} admitted, {tally.refused} refused {tally.strange[:3]}"
            wrong.append(f"{visit.client}, {visit.what}: {found}; expected {expected}")
    screen.line()
    head = ("client", "request", "sent", "admitted", "refused", "expected", "refused by")
    screen.table(head, rows)
    screen.line()
    screen.promise("every client was admitted as its limits say", not wrong, "; ".join(wrong))
    show_refusal(tallies, screen)


def show_refusal(tallies: list[Tally], screen: Screen) -> None:
    """Write one 429 as the client got it, and check what it tells."""
    screen.title("One refusal")
    refusals = [tally.refusal for tally in tallies if tally.refusal is not None]
    response = refusals[0] if refusals else httpx.Response(200)
    screen.line(f"  HTTP/1.1 {response.status_code} {response.reason_phrase}")
    for name, value in response.headers.items():
        if name.startswith("x-ratelimit") or name in SHOWN:
            screen.line(f"  {name.title().replace('Ratelimit', 'RateLimit')}: {value}")
    screen.line(f"\n  {response.text}\n")
    headers = response.headers
    wait = headers.get("Retry-After", "")
    told = wait.isdecimal() and int(wait) >= 1 and headers.get("X-RateLimit-Remaining") == "0"
    screen.promise("a 429 tells when to come back", told, str(dict(headers)))
    hidden = [response for response in refusals if response.request.url.path == "/api/login/"]
    silent = hidden and not any("RateLimit" in response.headers for response in hidden)
    screen.promise("a login guesser learns no numbers", bool(silent))


def visits(samples: dict[str, Any]) -> list[Visit]:
    """Return who sends what, each from an address of their own."""

    def limits(*owners: str, cost: int = 1) -> tuple[Limit, ...]:
        return tuple(
            Limit(owner, **numbers, cost=cost)
            for owner in owners
            for numbers in samples["limits"][owner]
        )

    users, login = samples["users"], "/api/login/"
    free, pro = users["free"]["token"], users["pro"]["token"]
    key = {"Authorization": f"Bearer {samples['service_key']}"}
    guesses = limits("anonymous", "Login by address")
    return [
        Visit(
            "anonymous",
            "search",
            get("/api/search/?q=a", "192.0.2.1"),
            limits("anonymous", "Search"),
        ),
        Visit("anonymous", "health (exempt)", get("/health/", "192.0.2.1"), most=40),
        Visit("free user", "notes", get("/api/notes/", "192.0.2.2", token=free), limits("free")),
        Visit(
            "pro user",
            "search",
            get("/api/search/?q=a", "192.0.2.3", token=pro),
            limits("pro", "Search (pro)"),
        ),
        Visit(
            "pro user",
            "export (costs 10)",
            get("/api/export/", "192.0.2.3", token=pro),
            (*limits("pro"), *limits("Export", cost=10)),
        ),
        Visit("pro user", "orders (shadow rule)", get("/api/orders/7/", "192.0.2.3"), most=12),
        Visit("login guesser", "many names, one address", guess("192.0.2.4", "name{n}"), guesses),
        Visit(
            "login guesser",
            "one name, many addresses",
            guess("198.51.100.{n}", "admin"),
            limits("Login by name"),
            most=200,
        ),
        Visit(
            "user who logs in",
            "the right password",
            always(
                method="POST",
                url=login,
                headers=sent_by("192.0.2.5"),
                json={"username": "free", "password": users["free"]["password"]},
            ),
            most=12,
        ),
        Visit(
            "service account",
            "search from its office",
            get("/api/search/?q=a", "203.0.113.5", **key),
            most=300,
        ),
        Visit(
            "its key, stolen",
            "search from elsewhere",
            get("/api/search/?q=a", "192.0.2.6", **key),
            limits("anonymous", "Search"),
        ),
    ]


def get(
    url: str, address: str, *, token: str = "", **headers: str
) -> Callable[[], Iterator[Arguments]]:
    """Return what sends the same GET for ever, from one address."""
    if token:
        headers["Authorization"] = f"Token {token}"
    return always(method="GET", url=url, headers={**sent_by(address), **headers})


def guess(address: str, username: str) -> Callable[[], Iterator[Arguments]]:
    """Return what sends wrong passwords; `{n}` in the address or name is another one each time."""

    def requests() -> Iterator[Arguments]:
        for n in itertools.count(1):
            credentials = {"username": username.format(n=n), "password": f"guess {n}"}
            headers = sent_by(address.format(n=n))
            yield {"method": "POST", "url": "/api/login/", "headers": headers, "json": credentials}

    return requests


def always(**arguments: Any) -> Callable[[], Iterator[Arguments]]:
    """Return what sends the same request for ever."""
    return lambda: itertools.repeat(arguments)


def sent_by(address: str) -> dict[str, str]:
    """Return the header by which a proxy tells whom it speaks for."""
    return {"X-Forwarded-For": address}
