"""The shape of the package: layers, names, sizes, and sync and async methods that agree."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import django_ratelimit_tiers
from tests.servers import ROOT

PACKAGE = Path(django_ratelimit_tiers.__file__).parent
SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "migrations" not in path.relative_to(PACKAGE).parts
]
MOST_LINES = 300
VAGUE_NAMES = {"common", "handler", "helper", "manager", "misc", "service", "util"}
VAGUE_ENDINGS = ("Handler", "Helper", "Manager", "Service", "Util", "Utils")


def modules() -> Iterator[ModuleType]:
    prefix = f"{django_ratelimit_tiers.__name__}."
    for module in pkgutil.walk_packages(django_ratelimit_tiers.__path__, prefix):
        yield importlib.import_module(module.name)


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[Any]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_import_contracts_are_kept() -> None:
    program = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    result = run(sys.executable, "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_module_is_short() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_every_module_is_named_by_a_noun_that_says_something() -> None:
    assert [path for path in SOURCES if path.stem.rstrip("s") in VAGUE_NAMES] == []


def test_every_class_is_named_by_a_noun_that_says_something() -> None:
    names = [node.name for path in SOURCES for node in nodes(path, ast.ClassDef)]
    assert [name for name in names if name.endswith(VAGUE_ENDINGS)] == []


def test_everything_is_imported_at_the_top_of_its_module() -> None:
    imports = [
        f"{path}:{statement.lineno}"
        for path in SOURCES
        for function in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)
        for statement in ast.walk(function)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        # Models can only be imported once Django's app registry is ready.
        and (path.name, function.name) != ("apps.py", "ready")
    ]
    assert imports == []


def test_the_core_imports_nothing_but_the_standard_library_and_itself() -> None:
    allowed = {*sys.stdlib_module_names, "django_ratelimit_tiers"}
    foreign = set()
    for path in (PACKAGE / "core").rglob("*.py"):
        for node in nodes(path, ast.Import):
            foreign |= {alias.name.partition(".")[0] for alias in node.names} - allowed
        for node in nodes(path, ast.ImportFrom):
            foreign |= {str(node.module).partition(".")[0]} - allowed
    assert foreign == set()


def test_only_the_helpers_for_tests_import_django_test() -> None:
    """It brings unittest and a test client into every process of a server."""
    importing = {
        path.name
        for path in SOURCES
        for node in nodes(path, ast.ImportFrom)
        if str(node.module).startswith("django.test")
    }
    assert importing == {"testing.py"}


WITHOUT_DEPENDENCIES = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"asgiref", "celery", "django", "django_redis", "redis",
                                      "rest_framework"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import django_ratelimit_tiers.core as core
for module in pkgutil.walk_packages(core.__path__, core.__name__ + "."):
    importlib.import_module(module.name)
"""


def test_the_core_works_in_an_interpreter_without_django() -> None:
    result = run(sys.executable, "-c", WITHOUT_DEPENDENCIES)
    assert result.returncode == 0, result.stderr


def sync_and_async_twins() -> Iterator[tuple[str, object, object]]:
    """Yield every pair of functions `x` and `ax` that one class or module of ours has."""
    for module in modules():
        owners = [module]
        owners += [
            member
            for member in vars(module).values()
            if inspect.isclass(member) and member.__module__ == module.__name__
        ]
        for owner in owners:
            for name, function in inspect.getmembers(owner, inspect.isfunction):
                twin = getattr(owner, f"a{name}", None)
                if inspect.iscoroutinefunction(twin) and is_ours(function, twin):
                    yield f"{owner.__name__}.{name}", function, twin


def is_ours(*functions: object) -> bool:
    return all(f.__module__.startswith("django_ratelimit_tiers") for f in functions)


def test_sync_and_async_twins_take_the_same_arguments_and_return_the_same() -> None:
    twins = {name: pair for name, *pair in sync_and_async_twins()}
    assert {"Store.execute", "RedisStore.refund", "RateLimitMiddleware.process_view"} <= set(twins)
    for name, (function, twin) in twins.items():
        assert inspect.signature(function) == inspect.signature(twin), name
