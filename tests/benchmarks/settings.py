"""The test project with its peers beside it; LIMITER names one of `limiters.LIMITERS`."""

from __future__ import annotations

from os import environ

from testproject.settings import *  # noqa: F403
from testproject.settings import INSTALLED_APPS as PROJECT_APPS
from testproject.settings import REDIS_URL
from tests.benchmarks.limiters import LIMITERS

INSTALLED_APPS = [*PROJECT_APPS, "django_smart_ratelimit"]
ROOT_URLCONF = "tests.benchmarks.urls"
WSGI_APPLICATION = None
LIMITER = LIMITERS[environ.get("LIMITER", "none")]
MIDDLEWARE = list(LIMITER.middleware)
RATELIMIT_TIERS = {}
RATELIMIT_BACKEND = "redis"
RATELIMIT_REDIS = {"url": REDIS_URL}
RATELIMIT_MIDDLEWARE = {
    "DEFAULT_RATE": "1000000/m",
    "KEY_FUNCTION": "django_smart_ratelimit.middleware.user_key_function",
}
RATELIMIT_RULE_CACHE_TIMEOUT = 3600
LOGGING = {
    "version": 1,
    "root": {"level": "CRITICAL"},
    "loggers": {"django": {"level": "CRITICAL"}},
}

globals().update(LIMITER.settings)
