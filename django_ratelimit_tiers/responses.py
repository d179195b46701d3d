"""What a client gets: header fields on every charged response, and the refusal itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template import TemplateDoesNotExist, loader
from django.utils.module_loading import import_string

from django_ratelimit_tiers.conf import conf
from django_ratelimit_tiers.core.decisions import Decision
from django_ratelimit_tiers.core.headers import (
    header_fields,
    problem_body,
    refusal_body,
    refusal_message,
    refusal_status,
)
from django_ratelimit_tiers.policy.flows import Flow, Step, in_thread


def decision_fields(decision: Decision) -> dict[str, str]:
    """Return the header fields of a decision in the styles of the setting `HEADERS`."""
    fields = header_fields(decision, conf.HEADERS)
    if not decision.allowed:
        fields["Cache-Control"] = "no-store"
    return fields


def add_fields(response: HttpResponseBase, decision: Decision) -> None:
    """Set the header fields of a decision on a response; a refusal has had its own already."""
    if getattr(response, "ratelimit_decision", None) is decision:
        return
    # Django checks and encodes each name and value anew, which takes longer than making them. Ours
    # are printable ASCII (core.headers), so they are put where Django would.
    store = response.headers._store
    for name, value in decision_fields(decision).items():
        store[name.lower()] = name, value


def refusal(request: HttpRequest, decision: Decision) -> Flow[HttpResponse]:
    """Return the response to a refused request, in the form that its `Accept` prefers.

    The setting `RESPONSE` may name a function that makes it instead, asynchronous or not.
    """
    if conf.RESPONSE is not None:
        make = import_string(conf.RESPONSE)
        step = in_thread(lambda: make(request, decision))
        if iscoroutinefunction(make):
            step = Step(lambda: async_to_sync(make)(request, decision), step.run)
        response: HttpResponse = yield step
    else:
        response = BODIES[_preferred_body(request)](decision)
        response.status_code = refusal_status(decision)
    add_fields(response, decision)
    response.ratelimit_decision = decision  # type: ignore[attr-defined]
    return response


def _preferred_body(request: HttpRequest) -> str:
    if request.META.get("HTTP_ACCEPT", ANYTHING) == ANYTHING:  # as most programs ask
        return JSON
    try:
        return request.get_preferred_type(list(BODIES)) or JSON
    except ValueError:  # an Accept longer than Django reads
        return JSON


def _json(decision: Decision) -> HttpResponse:
    return JsonResponse(refusal_body(decision))


def _problem(decision: Decision) -> HttpResponse:
    return JsonResponse(problem_body(decision), content_type=PROBLEM)


def _html(decision: Decision) -> HttpResponse:
    context: dict[str, Any] = {"message": refusal_message(decision), "decision": decision}
    try:
        page = loader.render_to_string("django_ratelimit_tiers/refusal.html", context)
    except TemplateDoesNotExist:  # a site without templates, or without those of its apps
        return _text(decision)
    return HttpResponse(page)


def _text(decision: Decision) -> HttpResponse:
    return HttpResponse(refusal_message(decision) + "\n", content_type="text/plain; charset=utf-8")


ANYTHING, JSON, PROBLEM = "*/*", "application/json", "application/problem+json"

BODIES: dict[str, Callable[[Decision], HttpResponse]] = {
    JSON: _json,
    PROBLEM: _problem,
    "text/html": _html,
    "text/plain": _text,
}
