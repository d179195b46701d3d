"""The servers of the tests are real, private, and gone when they are closed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
import redis
from django.contrib.auth.models import User
from kombu import Connection

from tests.databases import MariadbProcess, PostgresProcess
from tests.rabbit import RabbitProcess
from tests.servers import HOST, ServerDidNotStart, ValkeyProcess


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def processes_with(directory: str) -> list[str]:
    """Return what runs with a directory in its environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended meanwhile
            if directory.encode() in environment.read_bytes():
                found.append(environment.with_name("comm").read_text().strip())
    return found


def test_a_closed_valkey_leaves_no_process_and_no_files() -> None:
    with ValkeyProcess() as server:
        pid = server.pid
        assert is_running(pid)
        assert server.directory.exists()
    assert not is_running(pid)
    assert not server.directory.exists()


def test_a_paused_valkey_is_closed_all_the_same() -> None:
    with ValkeyProcess() as server:
        pid = server.pid
        server.pause()
    assert not is_running(pid)


def test_a_paused_valkey_accepts_connections_but_does_not_answer() -> None:
    with ValkeyProcess() as server, server.client(socket_timeout=0.1, retry=None) as client:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()


def test_a_valkey_that_was_killed_comes_back_empty_on_the_same_port() -> None:
    with ValkeyProcess() as server, server.client() as client:
        client.set("name", "value")
        port = server.port
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.port == port
        assert client.get("name") is None


def test_a_valkey_obeys_the_given_configuration() -> None:
    with ValkeyProcess("maxmemory 2mb", "requirepass secret") as server:
        with server.client() as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        with server.client(password="secret") as client:
            assert client.config_get("maxmemory") == {"maxmemory": str(2 * 1024 * 1024)}


def test_a_server_that_cannot_start_says_why() -> None:
    server = ValkeyProcess("no-such-directive yes")
    with pytest.raises(ServerDidNotStart, match="no-such-directive"), server:
        pass
    assert not server.directory.exists()


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_finds_the_session_valkey_empty(redis_url: str, turn: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left over", turn)


def test_a_private_postgresql_answers(postgres: PostgresProcess) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)


def test_a_private_mariadb_answers(mysql: MariadbProcess) -> None:
    driver = pytest.importorskip("MySQLdb")
    with closing(driver.connect(host=HOST, port=mysql.port, user="root")) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 6 * 7, @@collation_server LIKE '%%\\_ci'")
        assert cursor.fetchone() == (42, 1)


def test_a_private_rabbitmq_keeps_what_it_is_sent(rabbit: RabbitProcess) -> None:
    with Connection(rabbit.url) as connection, connection.SimpleQueue("test_servers") as queue:
        queue.put("first")
        message = queue.get(timeout=30)
        assert message.payload == "first"
        message.ack()


@pytest.mark.usefixtures("rabbit")
def test_a_closed_rabbitmq_leaves_no_process_and_no_files() -> None:
    with RabbitProcess() as server:
        directory, mapper = str(server.directory), server.port_mapper.pid
        assert len(processes_with(directory)) > 1
    assert processes_with(directory) == []
    assert not is_running(mapper)
    assert not server.directory.exists()


@pytest.mark.parametrize(("server", "threads"), [("gunicorn", 1), ("gunicorn", 4), ("uvicorn", 1)])
def test_a_served_site_shares_the_database_of_its_test(
    serve: Callable[..., str], server: str, threads: int
) -> None:
    User.objects.create_user("anna", password="right")
    url = serve(server, threads=threads)
    answers = [
        httpx.post(f"{url}/api/login/", json={"username": "anna", "password": password})
        for password in ("right", "wrong")
    ]
    assert [answer.status_code for answer in answers] == [200, 401]
