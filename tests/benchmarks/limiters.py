"""Every way of limiting a whole request that is compared: its middleware, settings and path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SIGN_IN = "tests.benchmarks.middleware.sign_in"
FLOOR = "tests.benchmarks.middleware.floor"
BARE_FLOOR = "tests.benchmarks.middleware.bare_floor"
TIERS = "django_ratelimit_tiers.middleware.RateLimitMiddleware"
SMART = "django_smart_ratelimit.middleware.RateLimitMiddleware"

RULES = 1_000
AREAS = 32
"""Routes are areas times as many things; the first thousand have a rule each."""

PEER_RULES = range(7 * AREAS - 2, 7 * AREAS + 8)
"""The rules that the nearest peer has but for one comparison: it tries the expressions of all, one
after the other."""

RULED = "/area7/thing7/"
"""The path that requests ask for: one rule is on it."""

ASYNC_RULED = "/area7/thing31/"
"""The same with an asynchronous view."""

LOGIN, LOCKED = "/area7/login/", "/area7/locked/"
"""Two paths before that, without a rule of the thousand: see `site.address_limits`."""


@dataclass(frozen=True, slots=True)
class Limiter:
    """One configuration of Django; `beside` names the one without a limiter."""

    name: str
    middleware: tuple[str, ...] = (SIGN_IN,)
    path: str = RULED
    settings: Mapping[str, bool] = field(default_factory=dict)
    beside: str = "no limiter"


STATIC = {"RATELIMIT_USE_DYNAMIC_RULES": False, "RATELIMIT_USE_USER_TIERS": False}
DYNAMIC = {"RATELIMIT_USE_DYNAMIC_RULES": True, "RATELIMIT_USE_USER_TIERS": True}
DRF = "REST view, no throttle"

LIMITERS = {
    "none": Limiter("no limiter"),
    "floor": Limiter("floor F in a middleware", (FLOOR, SIGN_IN)),
    "bare-floor": Limiter("the same on a bare socket, without a client", (BARE_FLOOR, SIGN_IN)),
    "tiers": Limiter("this app: tier of 2 + 1 rule of 1,000", (TIERS, SIGN_IN)),
    "door": Limiter("this app: tier of 2 + 1 rule before authentication", (TIERS, SIGN_IN), LOGIN),
    "decorator": Limiter("django-ratelimit decorator, 1 limit", path="/peers/django-ratelimit/"),
    "smart-decorator": Limiter(
        "django-smart-ratelimit decorator, 1 limit", path="/peers/django-smart-ratelimit/"
    ),
    "smart-static": Limiter(
        "django-smart-ratelimit middleware, 1 static limit", (SIGN_IN, SMART), settings=STATIC
    ),
    "smart": Limiter(
        "django-smart-ratelimit middleware, tier + 1 rule of 10",
        (SIGN_IN, SMART),
        settings=DYNAMIC,
    ),
    "rest": Limiter(DRF, path="/rest/bare/", beside=DRF),
    "rest-floor": Limiter("REST view, floor F as throttle", path="/rest/floor/", beside=DRF),
    "rest-tiers": Limiter("REST view, TierThrottle alone", path="/rest/tiers/", beside=DRF),
    "rest-both": Limiter(
        "REST view, TierThrottle and middleware", (TIERS, SIGN_IN), "/rest/tiers/", beside=DRF
    ),
    "rest-own": Limiter("REST view, DRF's throttle, 1 limit", path="/rest/own/", beside=DRF),
    "rest-own-two": Limiter(
        "REST view, DRF's throttles, 2 limits", path="/rest/own-two/", beside=DRF
    ),
}
