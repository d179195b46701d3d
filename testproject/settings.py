"""Settings of the test project: a small API whose limits staff edit in the admin.

Everything that differs between machines comes from the environment: DATABASE_URL, REDIS_URL,
CELERY_BROKER_URL, CELERY_KEY_PREFIX, CELERY_VISIBILITY_TIMEOUT, CELERY_ACKS_LATE, BEAT_SECONDS,
EMAIL_BACKEND, EMAIL_FILE_PATH, SECRET_KEY, DEBUG, ALLOWED_HOSTS (comma-separated), PASSWORD_HASHER,
and RATELIMIT_TIERS (a JSON object that is laid over the dictionary of that name below).
"""

from __future__ import annotations

import json
from os import environ
from pathlib import Path
from typing import Any

import dj_database_url
import django

from django_ratelimit_tiers.schedules import EVERY_SECONDS, beat_schedule

BASE_DIR = Path(__file__).resolve().parent

SECRET_KEY = environ.get("SECRET_KEY", "a public secret, for tests and for the demo only")
DEBUG = environ.get("DEBUG") == "1"
ALLOWED_HOSTS = environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1],testserver").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "django_ratelimit_tiers",
    "testproject",
]

MIDDLEWARE = [
    "django_ratelimit_tiers.middleware.RateLimitMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "testproject.urls"
WSGI_APPLICATION = "testproject.wsgi.application"
ASGI_APPLICATION = "testproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES: dict[str, Any] = {
    "default": dj_database_url.config(default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # Several server processes write to one file: wait for the lock, and take it at the start.
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = environ.get("REDIS_URL", "")
CACHES = {
    "default": (
        {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL}
        if REDIS_URL
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    )
}

if "PASSWORD_HASHER" in environ:
    PASSWORD_HASHERS = [environ["PASSWORD_HASHER"]]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "testproject.api_keys.ApiKeyAuthentication",
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

CELERY_BROKER_URL = environ.get("CELERY_BROKER_URL") or REDIS_URL or "memory://"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = environ.get("CELERY_ACKS_LATE") == "1"
if not CELERY_BROKER_URL.startswith("amqp"):  # RabbitMQ's transport knows neither
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "global_keyprefix": environ.get("CELERY_KEY_PREFIX", ""),
        "visibility_timeout": int(environ.get("CELERY_VISIBILITY_TIMEOUT", 3600)),
    }
CELERY_BEAT_SCHEDULE = beat_schedule(float(environ.get("BEAT_SECONDS", EVERY_SECONDS)))

MAIL_BACKEND = environ.get("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
if django.VERSION >= (6, 1):
    file_path = {"file_path": environ["EMAIL_FILE_PATH"]} if "EMAIL_FILE_PATH" in environ else {}
    MAILERS = {"default": {"BACKEND": MAIL_BACKEND, "OPTIONS": file_path}}
else:
    EMAIL_BACKEND = MAIL_BACKEND
    EMAIL_FILE_PATH = environ.get("EMAIL_FILE_PATH")
DEFAULT_FROM_EMAIL = "ratelimit@example.com"

RATELIMIT_TIERS: dict[str, Any] = {
    "API_KEY_RESOLVER": "testproject.api_keys.verified_key_id",
    **json.loads(environ.get("RATELIMIT_TIERS", "{}")),
}
