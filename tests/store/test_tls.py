"""A server behind TLS: the installed server has none, so this terminates it before a real one."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import ConnectionPool, SSLConnection

from django_ratelimit_tiers.core.policies import MAX_PERIOD, Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store.connections import Server
from django_ratelimit_tiers.store.encryption import context_of
from django_ratelimit_tiers.store.nodes import Nodes
from django_ratelimit_tiers.store.redis import RedisStore
from tests.servers import HOST, ValkeyProcess

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs a certificate")

CHARGE = Charge("user:1", QuotaPolicy("any", 10, MAX_PERIOD, Algorithm.FIXED_WINDOW))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine's loopback address, with its key in the same file."""
    directory = tmp_path_factory.mktemp("tls")
    key, public, both = directory / "key.pem", directory / "public.pem", directory / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(public), "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=IP:{HOST}"]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(key.read_text() + public.read_text())
    return both


@pytest.fixture
def tls_port(certificate: Path, valkey: ValkeyProcess) -> Iterator[int]:
    """The port of a terminator before the session's Valkey."""
    with terminated(certificate, valkey.port) as port:
        yield port


@contextmanager
def terminated(
    certificate: Path, target: int, hangs: threading.Event | None = None
) -> Iterator[int]:
    """Terminate TLS before a port; while it `hangs` it closes nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ended: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                target.sendall(piece)
        while hangs and hangs.is_set():
            time.sleep(0.05)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError):
                secure = context.wrap_socket(client, server_side=True)
                server = socket.create_connection((HOST, target))
                ended.extend((secure, server))
                for pair in ((secure, server), (server, secure)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for one in ended:
        one.close()


def url(port: int, certificate: Path) -> str:
    return f"rediss://{HOST}:{port}/0?ssl_ca_certs={certificate}"


def test_a_store_charges_over_tls(tls_port: int, certificate: Path) -> None:
    store = RedisStore(url=url(tls_port, certificate), timeout=5)
    assert [store.acquire([CHARGE])[0].remaining for _ in range(3)] == [9, 8, 7]
    store.close()


def test_a_store_charges_over_tls_on_an_event_loop(tls_port: int, certificate: Path) -> None:
    async def charge() -> list[int]:
        store = RedisStore(url=url(tls_port, certificate), timeout=5)
        remaining = [(await store.aacquire([CHARGE]))[0].remaining for _ in range(3)]
        await store.aclose()
        return remaining

    assert asyncio.run(charge()) == [9, 8, 7]


def test_connections_share_what_is_read_once_and_open_in_a_crowd(
    tls_port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[ssl.SSLContext] = []
    load = ssl.SSLContext.load_verify_locations

    def load_slowly(context: ssl.SSLContext, *arguments: Any, **options: Any) -> None:
        read.append(context)
        time.sleep(0.2)
        load(context, *arguments, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load_slowly)
    store = RedisStore(url=url(tls_port, certificate), timeout=5)

    async def crowd() -> None:
        assert all(await asyncio.gather(*(store.aping() for _ in range(4))))
        await store.aclose()

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: store.ping(), range(4)))
    asyncio.run(crowd())
    store.close()
    assert len(read) == 1


def test_the_nodes_of_a_cluster_share_it(certificate: Path) -> None:
    nodes = Nodes(ConnectionPool.from_url(url(1, certificate)))
    contexts = {nodes.server((HOST, port))._options["context"] for port in range(1, 4)}
    assert len(contexts) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"ssl_ca_certs": "{certificate}"},
        {"ssl_certfile": "{certificate}", "ssl_keyfile": "{certificate}", "ssl_cert_reqs": "none"},
        {"ssl_ca_path": "/", "ssl_ca_certs": "{certificate}", "ssl_check_hostname": True},
        {"ssl_ca_certs": "{certificate}", "ssl_min_version": ssl.TLSVersion.TLSv1_3},
        {"ssl_ca_certs": "{certificate}", "ssl_ciphers": "ECDHE+AESGCM"},
    ],
)
def test_the_context_is_what_the_library_makes_of_the_options(
    tls_port: int, certificate: Path, options: dict[str, Any]
) -> None:
    own = {
        key: value.format(certificate=certificate) if isinstance(value, str) else value
        for key, value in options.items()
    }
    pool = ConnectionPool(connection_class=SSLConnection, host=HOST, port=tls_port, **own)
    made = pool.make_connection()
    made.connect()
    theirs, ours = made._sock.context, context_of(pool).get()
    for name in ("verify_mode", "check_hostname", "minimum_version", "verify_flags", "options"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.get_ciphers() == theirs.get_ciphers()
    assert len(ours.get_ca_certs()) == len(theirs.get_ca_certs())
    made.disconnect()
    server = Server(pool)
    assert server.run(("PING",), time.monotonic() + 5) == b"PONG"
    assert asyncio.run(asked(server)) == b"PONG"
    server.close()


async def asked(server: Server) -> bytes:
    try:
        return await server.arun(("PING",), time.monotonic() + 5)  # type: ignore[no-any-return]
    finally:
        await server.aclose()


def test_a_file_that_is_not_there_is_a_store_that_is_not_there(
    tls_port: int, certificate: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later.pem"
    store = RedisStore(url=url(tls_port, later), timeout=5)
    for call in (store.ping, lambda: asyncio.run(store.aping())):
        with pytest.raises(StoreUnavailable, match="No such file"):
            call()
    shutil.copy(certificate, later)
    store.ping()
    store.close()


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tls_port: int) -> None:
    store = RedisStore(url=f"rediss://{HOST}:{tls_port}/0", timeout=5)
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        store.ping()


def test_a_handshake_that_hangs_ends_by_the_deadline(certificate: Path) -> None:
    with socket.create_server((HOST, 0)) as silent:
        store = RedisStore(url=url(silent.getsockname()[1], certificate), timeout=0.2)
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.ping()
        assert time.monotonic() - started < 2


def test_a_loop_does_not_wait_for_the_good_byes_of_a_server_that_hangs(
    certificate: Path, valkey: ValkeyProcess
) -> None:
    hangs = threading.Event()

    async def run(store: RedisStore) -> float:
        await asyncio.gather(*(store.aping() for _ in range(4)))
        hangs.set()
        return time.monotonic()

    with terminated(certificate, valkey.port, hangs) as port:
        began = asyncio.run(run(RedisStore(url=url(port, certificate), timeout=5)))
        took = time.monotonic() - began
        hangs.clear()
    assert took < 3
