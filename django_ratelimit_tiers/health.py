"""A view for monitors: does this process limit as it should?"""

from __future__ import annotations

from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_ratelimit_tiers.policy.conditions import present_condition


@non_atomic_requests  # or a database that is away would be an error before the view could say so
@never_cache
@require_safe
def health(_request: HttpRequest) -> JsonResponse:
    """Answer 200 when nothing is degraded and 503 otherwise, and say what is.

    It is meant for monitors. A load balancer that heeds it takes a site away that works: a store
    that failed stops limits, not requests.
    """
    condition = present_condition()
    return JsonResponse(
        {
            "status": "ok" if condition.is_good else "degraded",
            "store_answers": condition.store_answers,
            "breaker_is_closed": condition.breaker_is_closed,
            "policy_is_current": condition.policy_is_current,
        },
        status=200 if condition.is_good else 503,
    )


health.ratelimit_exempt = True  # type: ignore[attr-defined]  # as the decorator marks a view
