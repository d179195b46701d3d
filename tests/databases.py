"""Real database servers for the tests: PostgreSQL and MariaDB, where they are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from tests.servers import HOST, ServerProcess


class DatabaseProcess(ServerProcess):
    """A database server, which refuses to run as root: it gets an account without rights."""

    account = "nobody"

    def _popen_options(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
        account = accounts.get(self.account) or accounts["nobody"]
        owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        return {**owner, "cwd": self.directory}

    def _create_cluster(self, command: Sequence[str]) -> None:
        if owner := self._popen_options():
            shutil.chown(self.directory, owner["user"], owner["group"])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._popen_options())


class PostgresProcess(DatabaseProcess):
    """A private PostgreSQL with one superuser, `postgres`, who needs no password."""

    stop_signal = signal.SIGINT  # "fast": does not wait until clients have left
    account = "postgres"

    @property
    def url(self) -> str:
        """The URL of the database that every new cluster has."""
        return f"postgres://postgres@{HOST}:{self.port}/postgres"

    def _command(self) -> Sequence[str]:
        programs, data = postgres_directory(), self.directory / "data"
        if not data.exists():
            command = [f"{programs}/initdb", "-D", str(data), "-U", "postgres", "-A", "trust"]
            self._create_cluster([*command, "-E", "UTF8", "--locale=C", "--no-sync"])
        options = [f"listen_addresses={HOST}", f"port={self.port}", "fsync=off"]
        options += [f"unix_socket_directories={self.directory}", "max_connections=200"]
        command = [f"{programs}/postgres", "-D", str(data)]
        return command + [part for option in options for part in ("-c", option)]

    def _answers(self) -> bool:
        return self._logged("database system is ready to accept connections")


class MariadbProcess(DatabaseProcess):
    """A private MariaDB with one superuser, `root`, who needs no password.

    As it comes, but for its character set: no time zones are loaded, and its collation takes
    letters of either case, with accents or without, for the same.
    """

    account = "mysql"

    @property
    def url(self) -> str:
        """The URL of the database that every new server has."""
        return f"mysql://root@{HOST}:{self.port}/mysql"

    def _command(self) -> Sequence[str]:
        data = self.directory / "data"
        if not data.exists():
            command = ["mariadb-install-db", "--no-defaults", f"--datadir={data}"]
            command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
            self._create_cluster(command)
        command = [str(mariadb_program()), "--no-defaults", f"--datadir={data}"]
        command += [f"--bind-address={HOST}", f"--port={self.port}", "--skip-name-resolve"]
        command += [f"--socket={self.directory}/socket", f"--pid-file={self.directory}/pid"]
        command += ["--character-set-server=utf8mb4", "--innodb-flush-log-at-trx-commit=0"]
        return [*command, "--max-connections=200"]

    def _answers(self) -> bool:
        return self._logged("ready for connections")


def database_url(connection: BaseDatabaseWrapper) -> str:
    """Return the URL of a connection's database, for other processes."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    address = "{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**database)
    return f"{connection.vendor}://{address}"


def postgres_directory() -> Path | None:
    """Return the directory of PostgreSQL's programs, None where it is not installed."""
    candidates = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in candidates if (path / "postgres").exists()), None)


def mariadb_program() -> str | None:
    """Return the path of MariaDB's server, None where it is not installed."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


@contextmanager
def without_tables(*models: type[Model]) -> Iterator[None]:
    """Give tables other names for a while; that may end the transaction of a test."""
    tables = [model._meta.db_table for model in models]
    _rename(tables, "{0}", "{0}_hidden")
    try:
        yield
    finally:
        _rename(tables, "{0}_hidden", "{0}")


def _rename(tables: Sequence[str], old: str, new: str) -> None:
    with connection.schema_editor() as editor:
        for table in tables:
            editor.execute(f"ALTER TABLE {old} RENAME TO {new}".format(table))
