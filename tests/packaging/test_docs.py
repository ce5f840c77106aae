"""What README and guide show runs as it stands."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from resilience import registry, testing

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "docs/guide.md")


def examples() -> list[pytest.param]:
    """Every Python block of every page."""
    found = [(page, block) for page in PAGES for block in BLOCK.findall((ROOT / page).read_text())]
    return [pytest.param(block, id=f"{page}-{number}") for number, (page, block) in enumerate(found)]


@pytest.fixture(autouse=True)
def fresh_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each example a process default of its own."""
    monkeypatch.setattr(registry, "_default", None)
    registry.known.clear()
    yield
    registry.known.clear()


async def fetch(*args: object, **kwargs: object) -> str:
    """Answer like a provider that is well."""
    return "hello"


async def always_down() -> None:
    """Answer like a provider that is not."""
    raise ConnectionRefusedError("nobody listens")


@pytest.mark.parametrize("source", examples())
def test_the_example_runs(source: str) -> None:
    """An example can be pasted and works, given the functions that its page says are yours."""
    code = compile(source, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    completions = SimpleNamespace(create=fetch)
    client = SimpleNamespace(chat=SimpleNamespace(completions=completions))
    names = {"fetch": fetch, "always_down": always_down, "client": client, "__name__": "__main__"}

    async def main() -> None:
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if "testing.run(" in source:  # it brings a loop of its own
            eval(code, names)
        else:
            testing.run(main)


def test_there_are_examples() -> None:
    """The pages really have examples: the test above does not run on nothing."""
    assert len(examples()) >= 10
