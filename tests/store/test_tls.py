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
from contextlib import suppress
from pathlib import Path

import pytest

from django_ratelimit_tiers.core.policies import MAX_PERIOD, Algorithm, Charge, QuotaPolicy
from django_ratelimit_tiers.exceptions import StoreUnavailable
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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ended: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                target.sendall(piece)
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
                server = socket.create_connection((HOST, valkey.port))
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
