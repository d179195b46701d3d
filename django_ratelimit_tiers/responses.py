"""What a client gets: header fields on every charged response, and the refusal itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template import TemplateDoesNotExist, loader
from django.template.response import SimpleTemplateResponse
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.headers import (
    DECISION_FIELD,
    DECISION_KEY,
    Fields,
    Likeness,
    header_fields,
    likeness,
    problem_body,
    refusal_body,
    refusal_message,
    refusal_status,
)
from django_ratelimit_tiers.policy.flows import AnyFlow, Done, Flow, call, in_thread

ANYTHING = "*/*"
JSON, PROBLEM = "application/json", "application/problem+json"
HTML, TEXT = "text/html", "text/plain"
FORMS = JSON, PROBLEM, HTML, TEXT
"""What a refusal can be told in; the first of those that a client likes equally is chosen."""

LONGEST_ACCEPT = 1000
"""Characters of an `Accept` that are read. Browsers send some 200; to read thousands takes many
times as long as to refuse."""

MOST_ANSWERS = 512
"""Answers that are remembered, of some two kilobytes each."""

CACHE_CONTROL: Fields = {"cache-control": ("Cache-Control", "no-store")}
"""The header field of every refusal: nobody else is to get it."""


def add_fields(response: HttpResponseBase, decision: Decision) -> None:
    """Set the header fields of a decision on a response; a refusal has had its own already."""
    if getattr(response, "ratelimit_decision", None) is decision:
        return
    # Django checks and encodes each name and value anew, which takes longer than making them. Ours
    # are printable ASCII (core.headers), so they are put where Django would.
    store = response.headers._store
    store.update(header_fields(decision, conf.HEADERS))
    if not decision.allowed:
        store.update(CACHE_CONTROL)
        _leave_unlogged(response)


def discard(response: HttpResponseBase) -> None:
    """Free what a response holds that is never sent, such as an open file.

    Its `close` would tell that the request is over, which the response in its place tells.
    """
    for close in response._resource_closers:  # type: ignore[attr-defined]
        with suppress(Exception):  # as Django does
            close()
    response._resource_closers.clear()  # type: ignore[attr-defined]


def refusal(request: HttpRequest, decision: Decision) -> AnyFlow[HttpResponse]:
    """Return the response to a refused request, in the form that its `Accept` prefers.

    The setting `RESPONSE` may name a function that makes it instead, asynchronous or not.
    """
    if conf.RESPONSE is not None:
        return _site_refusal(conf.RESPONSE, request, decision)
    form = _preferred_form(request)
    if form == HTML:
        return _page_refusal(request, decision)
    return Done(_short_refusal(form, decision))


def _leave_unlogged(response: HttpResponseBase) -> None:
    """Keep Django from logging a refusal, with its path, for each time that a client asks.

    `events.refusals` has logged it, as often as `LOG_PER_SECOND` lets it.
    """
    response._has_been_logged = True  # type: ignore[attr-defined]


class Answer(NamedTuple):
    """What a refusal is answered; the header fields are as Django keeps them, too."""

    body: bytes
    content_type: str
    status: int
    fields: Fields


def _preferred_form(request: HttpRequest) -> str:
    accept = request.META.get("HTTP_ACCEPT", ANYTHING)
    if accept == ANYTHING or len(accept) > LONGEST_ACCEPT:  # the first as most programs ask
        return JSON
    try:
        return request.get_preferred_type(FORMS) or JSON
    except Exception:  # Python's reader of mail headers, which Django asks, raises TypeError, too
        return JSON


def _site_refusal(path: str, request: HttpRequest, decision: Decision) -> Flow[HttpResponse]:
    """Return the response that a function of the site's own makes."""
    response: HttpResponse = yield call(import_string(path), request, decision)
    if isinstance(response, SimpleTemplateResponse):  # Django renders only those of views
        response = yield in_thread(response.render)
    return _marked(response, decision)


def _page_refusal(request: HttpRequest, decision: Decision) -> Flow[HttpResponse]:
    """Return the page that refuses, on a site without templates its text."""
    page = yield in_thread(lambda: _page(request, decision))
    if page is None:
        return _short_refusal(TEXT, decision)
    return _marked(HttpResponse(page, status=refusal_status(decision)), decision)


def _marked(response: HttpResponse, decision: Decision) -> HttpResponse:
    """Return a refusal with its header fields, and with its decision so that they are set once."""
    add_fields(response, decision)
    response.ratelimit_decision = decision  # type: ignore[attr-defined]
    return response


def _short_refusal(form: str, decision: Decision) -> HttpResponse:
    """Return a refusal in a form whose body is the same for all that are told the same."""
    styles, alike = conf.HEADERS, likeness(decision)
    answer = (
        _answer(form, styles, decision) if alike is None else _answer_alike(form, styles, alike)
    )
    body, content_type, status, fields = answer
    response = HttpResponse(body, content_type=content_type, status=status)
    store = response.headers._store  # as in `add_fields`
    store.update(fields)
    if DECISION_KEY in fields:
        store[DECISION_KEY] = DECISION_FIELD, decision.id
    _leave_unlogged(response)
    response.ratelimit_decision = decision  # type: ignore[attr-defined]
    return response


@lru_cache(maxsize=MOST_ANSWERS)
def _answer_alike(form: str, styles: Sequence[str], alike: Likeness) -> Answer:
    """Return the answer to every refusal that is told the same, but for the id.

    So a client that is refused over and over gets one that is made once a second.
    """
    return _answer(form, styles, alike.decision(id="any"))


def _answer(form: str, styles: Sequence[str], decision: Decision) -> Answer:
    content_type, body_of = BODIES[form]
    fields = header_fields(decision, styles) | CACHE_CONTROL
    return Answer(body_of(decision).encode(), content_type, refusal_status(decision), fields)


def _page(request: HttpRequest, decision: Decision) -> str | None:
    """Return the page that refuses, None on a site without templates or those of its apps.

    A site's own template may show anything of the decision, so no other gets the same page. It may
    ask the database, too. A Content-Security-Policy lets its style pass by Django's nonce, or that
    of django-csp.
    """
    nonce = getattr(request, "_csp_nonce", getattr(request, "csp_nonce", None))
    context: dict[str, Any] = {"message": refusal_message(decision), "decision": decision}
    context["csp_nonce"] = nonce
    try:
        return loader.render_to_string("django_ratelimit_tiers/refusal.html", context)
    except TemplateDoesNotExist:
        return None


def _json(decision: Decision) -> str:
    return json.dumps(refusal_body(decision))


def _problem(decision: Decision) -> str:
    return json.dumps(problem_body(decision))


def _text(decision: Decision) -> str:
    return refusal_message(decision) + "\n"


BODIES: dict[str, tuple[str, Callable[[Decision], str]]] = {
    JSON: (JSON, _json),
    PROBLEM: (PROBLEM, _problem),
    TEXT: ("text/plain; charset=utf-8", _text),
}
"""The content type and the body of each form but the page."""
