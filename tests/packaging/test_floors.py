"""The core, as source: what it may know of the world is decided here, module by module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import resilience._core

MODULES = sorted(Path(resilience._core.__path__[0]).glob("**/*.py"))

# Deciding needs no clock, no randomness of its own, no waiting and nothing that could block.
WORLD = {
    "asyncio",
    "concurrent",
    "datetime",
    "multiprocessing",
    "os",
    "queue",
    "secrets",
    "select",
    "socket",
    "threading",
    "time",
}


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_imports_the_standard_library_only(path: Path) -> None:
    """The deciding part can be read, tested and reused with nothing installed."""
    foreign = {
        name
        for name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith("resilience._core.")
    }
    assert foreign == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_reads_no_clock_and_waits_for_nothing(path: Path) -> None:
    """Time and randomness are arguments, so every decision can be replayed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert {name.partition(".")[0] for name in imports(tree)} & WORLD == set()
    waiting = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert [node for node in ast.walk(tree) if isinstance(node, waiting)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_core_draws_from_no_shared_generator(path: Path) -> None:
    """`random` serves for its type; nobody else's draws can change a decision."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    shared = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
    ]
    assert set(shared) <= {"Random"}
