"""Several servers that belong together: a cluster, and a primary with sentinels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import redis

from tests.servers import HOST, ValkeyProcess, free_port, wait_until

NODE_TIMEOUT = 1000
"""Milliseconds after which the nodes of a cluster take one to have failed."""

DOWN_AFTER = 500
"""Milliseconds after which a sentinel takes a server to have failed."""

SERVICE = "limits"


class ClusterNode(ValkeyProcess):
    """A node of a cluster."""

    def __init__(self) -> None:
        lines = ["cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT}"]
        lines += ["cluster-replica-validity-factor 0", "repl-diskless-sync-delay 0"]
        lines += ["enable-debug-command yes"]
        super().__init__(*lines, f"cluster-port {free_port()}")


class Move(NamedTuple):
    """A slot on its way to another node: its keys, and what takes one of them there."""

    keys: Sequence[bytes]
    take: Callable[[bytes], None]


class Cluster:
    """Three primaries, each with a replica."""

    def __init__(self) -> None:
        self.nodes: list[ClusterNode] = []
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def primaries(self) -> list[ClusterNode]:
        return self.nodes[:3]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.nodes = [stack.enter_context(ClusterNode()) for _ in range(6)]
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(self, node: ClusterNode, *words: str | bytes | int) -> object:
        with redis.Redis(port=node.port, host=HOST) as client:
            return client.execute_command(*words)

    @contextmanager
    def moving(self, slot: int) -> Iterator[Move]:
        """Move a slot to another primary, which has it in the end; the block moves the keys."""
        source = next(
            node for node in self.primaries if self.call(node, "CLUSTER COUNTKEYSINSLOT", slot) != 0
        )
        target, *others = (node for node in self.primaries if node is not source)
        mine, its = (str(self.call(node, "CLUSTER MYID"), "ascii") for node in (source, target))  # type: ignore[call-overload]
        self.call(target, f"CLUSTER SETSLOT {slot} IMPORTING", mine)
        self.call(source, f"CLUSTER SETSLOT {slot} MIGRATING", its)
        keys: Any = self.call(source, "CLUSTER GETKEYSINSLOT", slot, 100)

        def move(key: bytes) -> None:
            self.call(source, "MIGRATE", HOST, target.port, key, 0, 5000)

        yield Move(keys, move)
        for node in (target, source, *others):
            self.call(node, f"CLUSTER SETSLOT {slot} NODE", its)

    def is_whole(self, nodes: Sequence[ClusterNode]) -> bool:
        """Return whether all these nodes see every slot served."""
        try:
            answers = [str(self.call(node, "CLUSTER INFO")) for node in nodes]
        except redis.RedisError:
            return False
        return all(
            "'cluster_state': 'ok'" in a and "'cluster_slots_ok': '16384'" in a for a in answers
        )

    def _join(self) -> None:
        first, *others = self.nodes
        for node in others:
            port = int(node.lines[-1].split()[1])
            self.call(first, "CLUSTER MEET", HOST, node.port, port)
        for number, node in enumerate(self.primaries):
            bounds = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            self.call(node, "CLUSTER ADDSLOTSRANGE", *bounds)
        assert wait_until(lambda: self._know_each_other(), 20)
        for primary, replica in zip(self.primaries, self.nodes[3:], strict=True):
            name = self.call(primary, "CLUSTER MYID")
            assert isinstance(name, bytes)
            assert wait_until(lambda p=name, r=replica: self._replicates(r, p.decode()), 20)
        assert wait_until(lambda: self.is_whole(self.nodes) and self._replicas_are_up(), 30)

    def _know_each_other(self) -> bool:
        return all(
            "'cluster_known_nodes': '6'" in str(self.call(node, "CLUSTER INFO"))
            for node in self.nodes
        )

    def _replicates(self, replica: ClusterNode, primary: str) -> bool:
        try:
            self.call(replica, "CLUSTER REPLICATE", primary)
        except redis.ResponseError:
            return False
        return True

    def _replicas_are_up(self) -> bool:
        return all(
            "'master_link_status': 'up'" in str(self.call(node, "INFO", "replication"))
            for node in self.nodes[3:]
        )


class Sentinel(ValkeyProcess):
    """A sentinel that watches a primary."""

    def __init__(self, primary: ValkeyProcess) -> None:
        super().__init__(
            f"sentinel monitor {SERVICE} {HOST} {primary.port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 1",
        )

    def _command(self) -> Sequence[str]:
        binary, configuration = super()._command()
        path = self.directory / "valkey.conf"
        kept = ("bind", "port", "dir", "sentinel")
        lines = [line for line in path.read_text().splitlines() if line.startswith(kept)]
        path.write_text("\n".join(lines) + "\n")
        return [binary, configuration, "--sentinel"]

    def _answers(self) -> bool:
        return self._logged("+monitor master")


class Watched:
    """A primary, its replica, and three sentinels."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.primary = stack.enter_context(ValkeyProcess("repl-diskless-sync-delay 0"))
            line = f"replicaof {HOST} {self.primary.port}"
            self.replica = stack.enter_context(ValkeyProcess(line, "repl-diskless-sync-delay 0"))
            self.sentinels = [stack.enter_context(Sentinel(self.primary)) for _ in range(3)]
            assert wait_until(self._is_settled, 30)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The addresses of the sentinels."""
        return [(HOST, sentinel.port) for sentinel in self.sentinels]

    def _is_settled(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master(SERVICE)
            if (state["num-slaves"], state["num-other-sentinels"]) != (1, 2):
                return False
        with self.replica.client() as client:
            return client.info("replication")["master_link_status"] == "up"
