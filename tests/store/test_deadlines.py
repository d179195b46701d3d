"""Every wait of a call ends at its deadline, on the sockets of the system and on any other."""

from __future__ import annotations

import asyncio
import math
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hiredis import pack_command
from redis import ConnectionPool
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from django_ratelimit_tiers.exceptions import StoreUnavailable
from django_ratelimit_tiers.store import connections, deadlines
from django_ratelimit_tiers.store.connections import Server
from django_ratelimit_tiers.store.deadlines import MOST_ASLEEP, PolledSocket, new_reader
from tests.servers import HOST, ValkeyProcess

TIMEOUT = 0.3
LATEST = 1.5
"""Seconds after which a call of TIMEOUT seconds has missed its deadline, on the slowest machine."""

PATIENT = 20.0
LONG = b"x" * 700_000

Serve = Callable[[socket.socket], object]

WAYS = ["tcp", "unix"]

every_way = pytest.mark.parametrize("way", WAYS)
sync_and_async = pytest.mark.parametrize("run", [Server.run, lambda *call: arun(*call)])


def arun(server: Server, command: Any, deadline: float) -> Any:
    async def run() -> Any:
        try:
            return await server.arun(command, deadline)
        finally:
            await server.aclose()

    return asyncio.run(run())


def by(seconds: float) -> float:
    return time.monotonic() + seconds


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be paused and killed, with a Unix socket, too."""
    path = tmp_path_factory.mktemp("socket") / "valkey.sock"
    with ValkeyProcess(f"unixsocket {path}") as server:
        yield server


@contextmanager
def connected(url: str) -> Iterator[Server]:
    server = Server(ConnectionPool.from_url(url))
    yield server
    server.close()


@pytest.fixture
def server(private: ValkeyProcess, way: str) -> Iterator[Server]:
    url = private.url if way == "tcp" else f"unix://{private.lines[0].split()[1]}"
    with connected(url) as server:
        server.run(("PING",), by(PATIENT))
        yield server


@contextmanager
def fake(way: str, tmp_path: Path, serve: Serve) -> Iterator[Server]:
    """Connect to a server that greets as it should and then does as `serve` says."""
    listener: socket.socket
    if way == "tcp":
        listener = socket.create_server((HOST, 0))
        url = f"redis://{HOST}:{listener.getsockname()[1]}/0"
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "fake.sock"))
        listener.listen()
        url = f"unix://{tmp_path / 'fake.sock'}"

    def accept() -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                threading.Thread(target=greet, args=(one,), daemon=True).start()

    def greet(one: socket.socket) -> None:
        with suppress(OSError), one:
            while b"SETINFO" in one.recv(65_536, socket.MSG_PEEK):
                words = one.recv(65_536).count(b"SETINFO")
                one.sendall(b"+OK\r\n" * words)
            serve(one)

    threading.Thread(target=accept, daemon=True).start()
    with listener, connected(url) as server:
        yield server
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def in_time() -> Iterator[None]:
    """Expect a call of TIMEOUT seconds to end as it should: without an answer, soon."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        yield
    assert time.monotonic() - started < LATEST


@every_way
@sync_and_async
def test_a_command_may_come_as_it_is_sent(server: Server, run: Any) -> None:
    assert run(server, pack_command(("ECHO", "a")), by(PATIENT)) == b"a"  # type: ignore[arg-type]
    assert run(server, ("ECHO", "b"), by(PATIENT)) == b"b"


@every_way
@sync_and_async
def test_a_server_that_hangs_is_given_up_at_the_deadline(
    private: ValkeyProcess, server: Server, run: Any
) -> None:
    private.pause()
    try:
        for _ in range(2):  # on a connection that was open, and on a new one
            with in_time():
                run(server, ("PING",), by(TIMEOUT))
    finally:
        private.resume()


@every_way
@sync_and_async
def test_nothing_is_sent_after_the_deadline(server: Server, run: Any) -> None:
    with pytest.raises(StoreUnavailable):
        run(server, ("SET", "late", "1"), by(-1))
    assert run(server, ("GET", "late"), by(PATIENT)) is None


@every_way
@sync_and_async
def test_half_an_answer_is_none(way: str, tmp_path: Path, run: Any) -> None:
    def serve(one: socket.socket) -> None:
        one.recv(100)
        one.sendall(b"$10\r\nhalf")
        time.sleep(LATEST)

    with fake(way, tmp_path, serve) as server, in_time():
        run(server, ("PING",), by(TIMEOUT))


@every_way
@sync_and_async
def test_an_answer_that_dribbles_on_ends_at_the_deadline(
    way: str, tmp_path: Path, run: Any
) -> None:
    def serve(one: socket.socket) -> None:
        one.sendall(b"$1000\r\n")
        for _ in range(100):
            one.sendall(b"x")
            time.sleep(TIMEOUT / 10)

    with fake(way, tmp_path, serve) as server, in_time():
        run(server, ("PING",), by(TIMEOUT))


@every_way
@sync_and_async
def test_long_commands_and_answers_come_whole(server: Server, run: Any) -> None:
    assert run(server, ("ECHO", LONG), by(PATIENT)) == LONG
    assert run(server, ("ECHO", "a"), by(PATIENT)) == b"a"


@every_way
@sync_and_async
def test_a_command_goes_on_while_the_server_reads_slowly(
    way: str, tmp_path: Path, run: Any
) -> None:
    command = pack_command(("ECHO", LONG * 20))  # type: ignore[arg-type]
    read = []

    def serve(one: socket.socket) -> None:
        while sum(read) < len(command):
            read.append(len(one.recv(1_000_000)))
            time.sleep(0.01)
        one.sendall(b"+read\r\n")

    with fake(way, tmp_path, serve) as server:
        assert run(server, command, by(PATIENT)) == b"read"
    assert sum(read) == len(command)


@every_way
@sync_and_async
def test_a_command_that_nobody_reads_is_given_up_at_the_deadline(
    way: str, tmp_path: Path, run: Any
) -> None:
    with fake(way, tmp_path, lambda _: time.sleep(LATEST)) as server, in_time():
        run(server, ("ECHO", LONG * 20), by(TIMEOUT))


@every_way
@sync_and_async
def test_a_server_that_dies_meanwhile_is_not_waited_for(
    private: ValkeyProcess, server: Server, run: Any
) -> None:
    killer = threading.Timer(0.2, private.kill)
    private.pause()
    killer.start()
    try:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            run(server, ("PING",), by(PATIENT))
        assert time.monotonic() - started < PATIENT / 2
    finally:
        killer.join()
        private.start()
    assert run(server, ("PING",), by(PATIENT)) == b"PONG"


@sync_and_async
def test_what_is_not_of_the_protocol_is_no_answer(tmp_path: Path, run: Any) -> None:
    with (
        fake(
            "tcp", tmp_path, lambda one: one.recv(100) and one.sendall(b"HTTP/1.1 400\r\n")
        ) as server,
        pytest.raises(StoreUnavailable, match="InvalidResponse"),
    ):
        run(server, ("PING",), by(PATIENT))


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (b"@user_script:316: @user_script: 316: -READONLY You can't", ReadOnlyError, "You can't"),
        (b"@user_script:1: @user_script: 1: -OOM not allowed", OutOfMemoryError, "not allowed"),
        (b"@user_script:2: WRONGTYPE Operation", ResponseError, "WRONGTYPE Operation"),
        (b"@user_script:1: @user_script: 1: The user can't", ResponseError, "The user can't"),
    ],
)
def test_an_error_inside_a_script_is_told_as_by_later_servers(
    said: bytes, kind: type[Exception], text: str
) -> None:
    answers = new_reader()
    answers.feed(b"-ERR Error running script (call to f_%s): %s\r\n" % (b"0a" * 20, said))
    error = answers.gets()
    assert (type(error), str(error)) == (kind, text)


def test_what_comes_unasked_answers_no_command(tmp_path: Path) -> None:
    said = threading.Event()

    def serve(one: socket.socket) -> None:
        for answer in (b"+first\r\n+unasked\r\n", b"+second\r\n"):
            one.recv(100)
            one.sendall(answer[:8])
            time.sleep(0.05)
            one.sendall(answer[8:])
            said.set()

    async def call(server: Server) -> None:
        assert await server.arun(("PING",), by(PATIENT)) == b"first"
        while not said.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await server.arun(("PING",), by(PATIENT))
        await server.aclose()

    with fake("tcp", tmp_path, serve) as server:
        asyncio.run(call(server))


@every_way
def test_signals_do_not_prolong_a_wait(private: ValkeyProcess, server: Server) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    private.pause()
    limit = threading.Timer(3 * LATEST, private.resume)  # if the wait has no end, the test has one
    limit.start()
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        with in_time():
            server.run(("PING",), by(TIMEOUT))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        limit.cancel()
        private.resume()
    assert len(came) > 1


def system_calls(server: Server) -> list[str]:
    """Return the system calls that one command takes."""
    called: list[str] = []

    def note(_frame: object, event: str, function: Any) -> None:
        if event == "c_call":
            owner = type(getattr(function, "__self__", None))
            if issubclass(owner, socket.socket) or owner.__module__ == "select":
                called.append(function.__name__)

    sys.setprofile(note)
    try:
        server.run(("PING",), by(PATIENT))
    finally:
        sys.setprofile(None)
    return called


@every_way
def test_a_command_takes_three_system_calls(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "ALONE_SECONDS", math.inf)  # nobody is, nor looks
    assert system_calls(server) == ["send", "poll", "recv"]


@every_way
def test_a_command_that_is_waited_for_awake_takes_no_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "ALONE_SECONDS", -1)
    sent, *looks, received = system_calls(server)
    assert (sent, set(looks), received) == ("send", {"poll"}, "recv")


@dataclass
class Watched:
    """A socket to receive from, and how long each of its polls might have slept."""

    theirs: socket.socket
    ours: PolledSocket
    naps: list[float] = field(default_factory=list)

    def sleeps(self) -> bool:
        """Receive what is there already, and return whether that was waited for asleep."""
        self.naps.clear()
        self.theirs.send(b"x")
        assert self.ours.recv(1) == b"x"
        [nap] = self.naps
        return nap > 0

    def sleeps_until(self, seconds: float) -> bool:
        """Receive what comes so much later, and return whether that was waited for asleep."""
        self.naps.clear()
        sender = threading.Timer(seconds, self.theirs.send, [b"x"])
        sender.start()
        assert self.ours.recv(1) == b"x"
        sender.join()
        return self.naps[-1] > 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(deadlines, "ALONE_SECONDS", -1)  # the main thread is alone
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watched = Watched(theirs, PolledSocket(ours, SimpleNamespace(deadline=by(PATIENT))))
        poll = watched.ours._poll

        def note(milliseconds: float) -> object:
            watched.naps.append(milliseconds)
            return poll(milliseconds)

        watched.ours._poll = note
        yield watched


def test_an_answer_that_comes_soon_is_waited_for_awake(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", PATIENT)
    assert not watched.sleeps_until(0.05)
    assert len(watched.naps) > 1


def test_an_answer_that_comes_later_is_waited_for_asleep(watched: Watched) -> None:
    assert watched.sleeps_until(0.05)
    assert sum(nap > 0 for nap in watched.naps) == 1


def test_where_answers_are_late_more_and_more_calls_sleep_at_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", 0)
    expected = [
        sleeps
        for count in (1, 3, 7, 15, 31, MOST_ASLEEP, MOST_ASLEEP)
        for sleeps in (False, *[True] * count)
    ]
    assert [watched.sleeps() for _ in expected] == expected


def test_a_call_that_is_answered_soon_again_lets_the_next_look_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", 0)
    assert [watched.sleeps() for _ in range(4)] == [False, True, False, True]
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", PATIENT)
    assert [watched.sleeps() for _ in range(5)] == [True, True, False, False, False]
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", 0)
    assert [watched.sleeps() for _ in range(3)] == [False, True, False]


def test_no_thread_looks_but_the_main_one(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", PATIENT)
    with ThreadPoolExecutor(1) as other:
        assert [other.submit(watched.sleeps).result() for _ in range(2)] == [True, True]
    assert not watched.sleeps()


def test_where_several_threads_call_none_looks(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "AWAKE_SECONDS", PATIENT)
    assert not watched.sleeps()
    monkeypatch.setattr(deadlines, "ALONE_SECONDS", PATIENT)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(watched.sleeps).result()
    assert watched.sleeps()
    monkeypatch.setattr(deadlines, "ALONE_SECONDS", 0.01)
    time.sleep(0.02)
    assert not watched.sleeps()


class Cooperative(socket.socket):
    """A socket that gives others a turn while it waits, in its own way."""

    received = 0

    def recv(self, *arguments: Any) -> bytes:
        assert self.gettimeout()
        Cooperative.received += 1
        return super().recv(*arguments)


def test_sockets_that_wait_in_their_own_way_are_left_to_it(
    valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", Cooperative)
    with connected(valkey.url) as server:
        assert server.run(("ECHO", LONG), by(PATIENT)) == LONG
    assert Cooperative.received


def test_without_poll_a_connection_that_was_idle_is_not_trusted(
    valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "poll")
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0)
    with connected(valkey.url) as server:
        for _ in range(2):
            assert server.run(("PING",), by(PATIENT)) == b"PONG"


def test_tls_is_left_to_its_own_way() -> None:
    context = ssl.create_default_context()
    ours, theirs = socket.socketpair()
    with (
        theirs,
        context.wrap_socket(ours, server_hostname="a", do_handshake_on_connect=False) as one,
    ):
        assert not PolledSocket.suits(one)
        assert PolledSocket.suits(theirs)
