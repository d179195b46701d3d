"""Run the tests on every supported combination whose interpreter is found on this machine.

Each combination has an environment of its own in .venvs/. "Lowest" means the lower bounds that
pyproject.toml gives to the package's dependencies, "newest" whatever the installer finds. SQLite
takes the turns of a database that this machine does not have. The summary says what ran.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.databases import mariadb_program, postgres_directory
from tests.servers import ROOT

PROJECT = ROOT / "pyproject.toml"
ENVIRONMENTS = ROOT / ".venvs"
DEPENDENCIES = ("drf", "celery", "redis")  # extras; what only the tests need is always the newest


@dataclass(frozen=True, slots=True)
class Combination:
    """The versions of one run; "lowest" or "newest" dependencies; a database."""

    python: str
    django: str
    dependencies: str
    database: str = "sqlite"

    def __str__(self) -> str:
        return (
            f"Python {self.python}, Django {self.django}, {self.dependencies} dependencies, "
            f"{self.database}"
        )


# The lowest release that knows a Django, where that is above our own lower bound.
RAISED = {("6.1", "djangorestframework"): "djangorestframework==3.18"}

# They take as long as all others, and show how the parts play together, which no version changes.
LEFT_OUT = ["--ignore=tests/test_demo.py", "--ignore=tests/soak"]

# Each worker has servers of its own, so few are enough to make use of a machine.
IN_PARALLEL = ["--numprocesses=auto", "--maxprocesses=4"]

# A shared machine may starve a server for seconds: what failed has one more try, and no third.
AGAIN = ["--last-failed", "--last-failed-no-failures", "none"]

# Every Python with every Django, and each of both with the lowest and the newest dependencies.
COMBINATIONS = [
    Combination("3.11", "5.2", "lowest"),
    Combination("3.12", "6.0", "lowest"),
    Combination("3.12", "6.1", "newest", "mysql"),
    Combination("3.13", "6.0", "newest", "postgres"),
    Combination("3.13", "6.1", "lowest"),
]


def main() -> int:
    """Run every combination; return 1 when one of them failed."""
    results = []
    databases = available_databases()
    for combination in COMBINATIONS:
        if combination.database not in databases:
            combination = replace(combination, database="sqlite")
        print(f"\n{combination}", flush=True)
        interpreter = find_interpreter(combination.python)
        if interpreter is None:
            results.append((combination, "left out: no such interpreter here"))
        else:
            results.append((combination, run_tests(combination, interpreter)))
    print("\nThe matrix:")
    for combination, result in results:
        print(f"  {combination}: {result}")
    return int(any(result.startswith("FAILED") for _, result in results))


def run_tests(combination: Combination, interpreter: str) -> str:
    """Run all tests on one combination and return what came of it, in words."""
    name = f"{combination.python}-{combination.django}-{combination.dependencies}"
    python = ENVIRONMENTS / name / "bin" / "python"
    constraints = ENVIRONMENTS / f"{name}.txt"
    ENVIRONMENTS.mkdir(exist_ok=True)
    constraints.write_text("\n".join(constraint_lines(combination)) + "\n")
    extra = "test-mysql" if combination.database == "mysql" else "test"
    if not install(interpreter, python, constraints, extra):
        return "FAILED to install"
    environment = {
        **os.environ,
        "HYPOTHESIS_PROFILE": "matrix",
        "TEST_DATABASE": combination.database,
    }
    cache = f"cache_dir={ENVIRONMENTS / name / 'cache'}"
    command = [str(python), "-m", "pytest", "-q", "-o", cache, *IN_PARALLEL, *LEFT_OUT]
    passed, closing_line = run(command, environment)
    if not passed:
        passed, closing_line = run([*command, *AGAIN], environment)
    return closing_line if passed else f"FAILED: {closing_line}"


def run(command: list[str], environment: dict[str, str]) -> tuple[bool, str]:
    """Run the tests and return whether they passed, and pytest's closing line."""
    tests = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    closing_line = ""
    for line in tests.stdout or ():
        print(line, end="", flush=True)
        closing_line = line.strip() or closing_line
    return tests.wait() == 0, closing_line


def install(interpreter: str, python: Path, constraints: Path, extra: str) -> bool:
    """Make the environment anew, with uv where it is at hand, otherwise with pip."""
    environment = str(python.parent.parent)
    packages = ["--quiet", "--editable", f".[{extra}]", "--constraint", str(constraints)]
    uv = [sys.executable, "-m", "uv"]
    return (
        call(*uv, "venv", "--quiet", "--clear", "--python", interpreter, environment)
        and call(*uv, "pip", "install", "--python", str(python), *packages)
    ) or (
        call(interpreter, "-m", "venv", "--clear", environment)
        and call(str(python), "-m", "pip", "install", *packages)
    )


def constraint_lines(combination: Combination) -> Iterator[str]:
    """Yield the constraints that make an installer choose this combination's versions."""
    if combination.dependencies == "newest":
        yield f"Django~={combination.django}.0"
        return
    yield f"Django=={combination.django}"
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    for requirement in (line for extra in DEPENDENCIES for line in extras[extra]):
        package = requirement.partition(">=")[0]
        raised = RAISED.get((combination.django, package))
        yield raised or requirement.replace(">=", "==")


def available_databases() -> set[str]:
    """Return the databases whose server is on this machine, and what its driver is built with."""
    available = {"sqlite"}
    if postgres_directory() is not None:
        available.add("postgres")
    if mariadb_program() is not None and shutil.which("mariadb_config") is not None:
        available.add("mysql")
    return available


def find_interpreter(version: str) -> str | None:
    """Return an interpreter of that version that really runs: a shim may not."""
    program = "import sqlite3, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in interpreter_candidates(version):
        try:
            said = subprocess.run([candidate, "-c", program], capture_output=True, text=True)
        except OSError:
            continue
        if said.stdout.strip() == version:
            return candidate
    return None


def interpreter_candidates(version: str) -> Iterator[str]:
    """Yield what may be an interpreter of that version: on PATH, then installed by pyenv."""
    name = f"python{version}"
    for directory in os.get_exec_path():
        yield str(Path(directory) / name)
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        for path in sorted(Path(root).glob(f"versions/{version}.*/bin/{name}"), reverse=True):
            yield str(path)


def call(*command: str) -> bool:
    """Run a command and return whether it succeeded."""
    print("$", *command, flush=True)
    return subprocess.run(command, cwd=ROOT).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
