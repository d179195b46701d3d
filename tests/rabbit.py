"""A real RabbitMQ for the tests, private and on the loopback interface like all other servers."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.servers import HOST, ServerProcess, free_port


class PortMapperProcess(ServerProcess):
    """The daemon by which Erlang's nodes find each other.

    A node that finds none starts one that outlives it and that everybody would share.
    """

    def _command(self) -> Sequence[str]:
        return ["epmd", "-address", HOST, "-port", str(self.port)]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            return True
        return False


class RabbitProcess(ServerProcess):
    """A private RabbitMQ without plugins."""

    def __init__(self) -> None:
        super().__init__()
        self.port_mapper = PortMapperProcess()

    @property
    def url(self) -> str:
        """The URL of the virtual host that every new server has."""
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def start(self) -> Self:
        if self.port_mapper.process is None:
            self.port_mapper.start()
        return super().start()

    def close(self) -> None:
        super().close()
        self.port_mapper.close()

    def _command(self) -> Sequence[str]:
        (self.directory / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1MB\n")
        (self.directory / "environment").touch()
        return [str(rabbit_server())]

    def _popen_options(self) -> dict[str, Any]:
        settings = {
            "NODENAME": f"rlt-{self.port}@localhost",
            "NODE_IP_ADDRESS": HOST,
            "NODE_PORT": self.port,
            "DIST_PORT": free_port(),
            "MNESIA_BASE": self.directory / "data",
            "LOG_BASE": self.directory / "log",
            "LOGS": "-",
            "CONFIG_FILE": self.directory / "rabbitmq.conf",
            "CONF_ENV_FILE": self.directory / "environment",
            "ENABLED_PLUGINS_FILE": self.directory / "plugins",
            "SERVER_ADDITIONAL_ERL_ARGS": (
                # It must not keep a core busy with waiting.
                "+sbwt none +sbwtdcpu none +sbwtdio none "
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
        env = {
            **os.environ,
            "HOME": str(self.directory),  # of the secret that nodes share
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self.port_mapper.port),
            **{f"RABBITMQ_{name}": str(value) for name, value in settings.items()},
        }
        return {"cwd": self.directory, "env": env}

    def _answers(self) -> bool:
        return self._logged("Server startup complete")


def rabbit_server() -> Path | None:
    """Return the program that runs RabbitMQ, None where it is not installed.

    What packages put on the path insists on the account that they have made, and on its directory.
    """
    candidates = [Path("/usr/lib/rabbitmq/bin/rabbitmq-server")]
    candidates += [Path(path) for path in [shutil.which("rabbitmq-server")] if path]
    found = next((path for path in candidates if path.exists()), None)
    return found if shutil.which("epmd") else None
