"""Fixtures of the whole suite.

A Valkey of the session's own runs before Django reads its settings, so that the test project
finds it in REDIS_URL; with `pytest -n`, every worker has one. TEST_DATABASE runs the suite on a
private server instead of SQLite: "postgres", or "mysql" for MariaDB. HYPOTHESIS_PROFILE is "ci"
(the default), "matrix" (few examples) or "search" (many, and other ones each time).
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from typing import Any

import django
import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.test.signals import setting_changed
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from django_ratelimit_tiers.conf import DEFAULTS, MIDDLEWARE
from tests import databases
from tests.databases import MariadbProcess, PostgresProcess
from tests.rabbit import RabbitProcess, rabbit_server
from tests.servers import PATIENT_SECONDS, SiteProcess, ValkeyProcess

SERVERS = ExitStack()

# A shared machine is slow now and then: no test may fail for that.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@cache
def session_valkey() -> ValkeyProcess:
    return SERVERS.enter_context(ValkeyProcess())


@cache
def session_postgres() -> PostgresProcess:
    return SERVERS.enter_context(PostgresProcess())


@cache
def session_mariadb() -> MariadbProcess:
    return SERVERS.enter_context(MariadbProcess())


@cache
def session_rabbit() -> RabbitProcess:
    return SERVERS.enter_context(RabbitProcess())


def prepare_django() -> None:
    """Start the session's servers, then let Django read its settings."""
    if settings.configured:
        raise pytest.UsageError(
            "unset DJANGO_SETTINGS_MODULE: the tests set it when their own servers run"
        )
    os.environ.pop("RATELIMIT_TIERS", None)
    DEFAULTS["STORE_TIMEOUT"] = PATIENT_SECONDS
    os.environ["REDIS_URL"] = session_valkey().url
    os.environ["PASSWORD_HASHER"] = "django.contrib.auth.hashers.MD5PasswordHasher"
    database = os.environ.get("TEST_DATABASE")
    if database == "postgres":
        os.environ["DATABASE_URL"] = session_postgres().url
    elif database == "mysql":
        os.environ["DATABASE_URL"] = session_mariadb().url
    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    django.setup()


atexit.register(SERVERS.close)
signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it stops the servers, too
prepare_django()

hypothesis_settings.register_profile("ci", derandomize=True, **PATIENT)
hypothesis_settings.register_profile("matrix", derandomize=True, max_examples=15, **PATIENT)
hypothesis_settings.register_profile("search", max_examples=2000, **PATIENT)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_unconfigure() -> None:
    SERVERS.close()
    # A thread that a test forgot would keep the process for ever: say which one, and end.
    faulthandler.dump_traceback_later(30, exit=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    # Workers inherit this environment, and must not read the settings before their own Valkey runs.
    del os.environ["DJANGO_SETTINGS_MODULE"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in (marker for item in items for marker in item.iter_markers("django_db")):
        # pytest-django asks the marker alone whether to keep what migrations wrote.
        marker.kwargs.setdefault("serialized_rollback", True)
    missing = set()
    if databases.postgres_directory() is None:
        missing.add("postgres")
    if databases.mariadb_program() is None or find_spec("MySQLdb") is None:
        missing.add("mysql")
    if rabbit_server() is None:
        missing.add("rabbit")
    needing = [item for item in items if missing.intersection(needs(item))]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


def needs(item: pytest.Item) -> set[str]:
    """Return the fixtures that a test asks for, those that its parameters name included."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    named = {value for value in parameters if isinstance(value, str)}
    return {*getattr(item, "fixturenames", ()), *named}


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Keep an SQLite test database in a file, where the processes of `serve` find it, too."""
    if connection.vendor == "sqlite":
        name = tmp_path_factory.mktemp("database") / "test.sqlite3"
        settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(name)


@pytest.fixture(autouse=True)
def _restored_data(django_db_serialized_rollback: None) -> None:
    """Give tests with real transactions the rows that migrations made, as all others have them."""


@pytest.fixture(scope="session")
def valkey() -> ValkeyProcess:
    """The session's Valkey. To pause, kill or configure one, start a `ValkeyProcess`."""
    return session_valkey()


@pytest.fixture(scope="session")
def valkey_client(valkey: ValkeyProcess) -> Iterator[redis.Redis]:
    """A client of the session's Valkey."""
    with valkey.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_used(valkey_client: redis.Redis) -> None:
    """Begin every test with an empty Valkey and a limiter that knows nothing of earlier ones."""
    valkey_client.flushall()
    setting_changed.send(None, setting="RATELIMIT_TIERS", value=None, enter=True)


@pytest.fixture
def redis_url(valkey: ValkeyProcess) -> str:
    """The URL of the session's Valkey, which every test finds empty."""
    return valkey.url


@pytest.fixture(params=[True, False], ids=["with the middleware", "without the middleware"])
def is_installed(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Run a test twice: with the middleware and without it."""
    others = [path for path in settings.MIDDLEWARE if path != MIDDLEWARE]
    with override_settings(MIDDLEWARE=[MIDDLEWARE, *others] if request.param else others):
        yield request.param


@pytest.fixture(scope="session")
def postgres() -> PostgresProcess:
    """A private PostgreSQL; tests that need it are left out where it is not installed."""
    return session_postgres()


@pytest.fixture(scope="session")
def mysql() -> MariadbProcess:
    """A private MariaDB; tests that need it are left out where it or its driver is missing."""
    return session_mariadb()


@pytest.fixture(scope="session")
def rabbit() -> RabbitProcess:
    """A private RabbitMQ; tests that need it are left out where it is not installed."""
    return session_rabbit()


@pytest.fixture
def database_url(transactional_db: None) -> str:
    """The URL of the test database, for other processes: they see what this test commits."""
    return databases.database_url(connection)


@pytest.fixture
def serve(redis_url: str, database_url: str) -> Iterator[Callable[..., str]]:
    """Start the test project in real server processes, on this test's database and Valkey.

    `serve("gunicorn", workers=2, threads=1, env={...}, ratelimit={...})` waits until the site
    answers and returns its base URL; `ratelimit` is laid over the RATELIMIT_TIERS setting.
    """
    with ExitStack() as sites:

        def start(
            server: str = "gunicorn", *, env: Mapping[str, str] | None = None, **options: Any
        ) -> str:
            env = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, **(env or {})}
            return sites.enter_context(SiteProcess(server, env=env, **options)).url

        yield start
