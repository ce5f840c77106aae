"""What the pages and the docstrings show runs as it stands."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import anyio
import httpx
import httpx2
import openai
import pytest

import providers
import resilience
from providers import http
from resilience import events, registry, settings, testing
from resilience.policies.cost import CostLimit

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = (
    "README.md",
    "docs/configuration.md",
    "docs/guide.md",
    "docs/health.md",
    "docs/reference.md",
    "docs/shutdown.md",
)

# Pages with Python that another test runs.
ELSEWHERE = {
    "docs/commands.md": "tests/cli/test_page.py",
    "docs/telemetry.md": "tests/telemetry/test_documentation.py",
    "docs/testing.md": "tests/testing/test_documentation.py",
}

# What a page may show besides Python and settings in TOML.
NOT_PYTHON = {"json": "answers", "sh": "commands; the CI runs those of the README", "mermaid": "a drawing"}

# Literal blocks of docstrings that are no code. Whatever is not listed here is run.
NOT_CODE = {
    "resilience._core.backoff": "formulas",
    "resilience._core.bucket": "formulas",
    "resilience._core.budget": "formulas",
    "resilience._core.gate": "formulas",
    "resilience._core.limit": "formulas",
    "resilience._core.quantile": "formulas",
    "resilience._core.queue": "rules",
    "resilience._core.router": "formulas",
    "resilience._core.spend": "formulas",
    "resilience._core.throttle": "formulas",
    "resilience._core.window": "formulas",
    "resilience.errors": "the tree of exceptions",
    "resilience.limits": "a table",
    "resilience.policies.hedge": "formulas",
    "resilience.settings": "one setting in code, variables and files side by side",
}


class Example(NamedTuple):
    """A piece of code that somebody may paste."""

    where: str
    source: str


# -- the user's own side -----------------------------------------------------------------------------------------------


async def fetch(*args: object, **kwargs: object) -> str:
    """Answer like a provider that is well."""
    return "hello"


async def always_down() -> None:
    """Answer like a provider that is not."""
    raise ConnectionRefusedError("nobody listens")


async def words() -> AsyncIterator[str]:
    """Answer in pieces."""
    for word in ("It", "is", "fine"):
        yield word


async def ask(*args: object, stream: bool = False, **kwargs: object) -> Any:
    """Answer as an LLM's client does."""
    if stream:
        return words()
    return SimpleNamespace(text="hello", usage=SimpleNamespace(total_tokens=120, cost=0.004))


async def send(*args: object, **kwargs: object) -> httpx.Response:
    """Answer as an HTTP client does."""
    return httpx.Response(200, json={}, request=httpx.Request("PUT", "http://provider/"))


class Pool:
    """Something of which there are only so many."""

    def __init__(self, size: int) -> None:
        self.free = size

    async def use(self) -> None:
        """Use one for a second."""
        self.free -= 1
        try:
            await anyio.sleep(1)
        finally:
            self.free += 1


def standins() -> dict[str, Any]:
    """Everything that examples take for granted: what a reader has of their own."""
    client = SimpleNamespace(
        chat=SimpleNamespace(completions=SimpleNamespace(create=ask)), ask=ask, get=send, put=send, api_key="stale"
    )
    return {
        "Pool": Pool,
        "__name__": "__main__",
        "always_down": always_down,
        "ask": ask,
        "ask_claude": ask,
        "ask_gpt": ask,
        "client": client,
        "client_1": client,
        "client_2": client,
        "embed": fetch,
        "fetch": fetch,
        "prompt": "why?",
        "texts": ["a", "b", "c"],
        "words": words,
    }


def libraries(module: ModuleType) -> dict[str, Any]:
    """Return what examples in docstrings do not import: our public names, and those of the libraries they are for."""
    names: dict[str, Any] = {}
    for package in (events, settings, testing, http, resilience):
        public = getattr(package, "__all__", [name for name in dir(package) if not name.startswith("_")])
        names |= {name: getattr(package, name) for name in public}
    its_client = httpx2.AsyncClient if "httpx2" in vars(module) else httpx.AsyncClient
    return names | {
        "AsyncClient": its_client,
        "AsyncOpenAI": openai.AsyncOpenAI,
        "anyio": anyio,
        "body": b"content",
        "estimate": 100,
        "httpx": httpx,
        "price_of": lambda reply: reply.usage.cost,
        "provider": resilience.ResilientProvider("openai"),
        "url": "http://provider/",
    }


# Where a name means something else than in other docstrings.
ITS_OWN: dict[str, Callable[[], dict[str, Any]]] = {
    "providers.http": lambda: {"client": http.client},
    "resilience.policies.cost.CostLimit": lambda: {"limit": CostLimit(resilience.CostSettings(limit=1))},
    "resilience.policies.rate_limit.RateLimit": lambda: {
        "limit": resilience.RateLimit(resilience.RateLimitSettings(tokens_per_minute=1000))
    },
}


# -- finding -----------------------------------------------------------------------------------------------------------


def fences(page: str, language: str) -> list[str]:
    """Return the blocks of a page in one language."""
    return [block for found, block in FENCE.findall((ROOT / page).read_text(encoding="utf-8")) if found == language]


def on_pages() -> list[Example]:
    """Every Python block of every page."""
    return [Example(f"{page}-{number}", block) for page in PAGES for number, block in enumerate(fences(page, "python"))]


def literal_blocks(docstring: str) -> Iterator[str]:
    """Yield what follows a line that ends in two colons, and is indented deeper than that line."""
    lines = inspect.cleandoc(docstring).splitlines()
    for number, line in enumerate(lines):
        if line.rstrip().endswith("::"):
            depth = len(line) - len(line.lstrip())
            block: list[str] = []
            for after in lines[number + 1 :]:
                if after.strip() and len(after) - len(after.lstrip()) <= depth:
                    break
                block.append(after)
            yield inspect.cleandoc("\n".join(["", *block])) + "\n"


def docstrings(tree: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Yield every docstring of a module, also those of its attributes, with the name of what it is for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield name, node.value.value
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from docstrings(node, f"{name}.{node.name}")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the two packages."""
    for package in (resilience, providers):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            parts = (package.__name__, *path.relative_to(root).with_suffix("").parts)
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def in_docstrings() -> list[tuple[str, Example]]:
    """Every literal block of every docstring, with its module's name."""
    return [
        (module, Example(where, block))
        for module, path in modules()
        for where, text in docstrings(ast.parse(path.read_text(encoding="utf-8")), module)
        for block in literal_blocks(text)
    ]


def runnable() -> list[Any]:
    """Return those of them that are code."""
    found = [(module, example) for module, example in in_docstrings() if example.where not in NOT_CODE]
    return [
        pytest.param(module, example, id=f"{example.where}-{number}") for number, (module, example) in enumerate(found)
    ]


# -- running -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each example a process default of its own, and SDKs a key."""
    monkeypatch.setattr(registry, "_default", None)
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    registry.known.clear()
    yield
    registry.known.clear()


def run(example: Example, names: dict[str, Any]) -> None:
    """Run an example on virtual time, as a notebook would: it may await at its top level."""
    code = compile(example.source, f"<{example.where}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def main() -> None:
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if "testing.run(" in example.source:  # it brings a loop of its own
            eval(code, names)
        else:
            testing.run(main)


@pytest.mark.parametrize("example", on_pages(), ids=lambda example: example.where)
def test_an_example_of_a_page_runs(example: Example) -> None:
    """An example can be pasted and works, given the functions that its page says are yours."""
    run(example, standins())


@pytest.mark.parametrize("module, example", runnable())
def test_an_example_of_a_docstring_runs(module: str, example: Example) -> None:
    """What a docstring shows works, once its names are imported."""
    names = libraries(importlib.import_module(module)) | standins() | ITS_OWN.get(example.where, dict)()
    run(example, names)


def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    """The README's own test of a user's code is one that pytest, with nothing but our plugin, passes."""
    (source,) = (block for block in fences("README.md", "python") if "def test_" in block)
    own = "async def fetch():\n    return 'hello'\n"
    (tmp_path / "test_it.py").write_text(own + source, encoding="utf-8")
    options = ("-q", "-W", "error", "-p", "_resilience_pytestplugin", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert "1 passed" in done.stdout, done.stdout


def test_an_example_of_the_readme_is_short() -> None:
    """No feature takes more than ten lines to show."""
    for block in fences("README.md", "python"):
        assert len([line for line in block.splitlines() if line.strip()]) <= 10, block


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_a_file_are_accepted(page: str, tmp_path: Path) -> None:
    """Every file of settings that a page shows can be loaded."""
    for number, block in enumerate(fences(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        assert resilience.Settings.from_environment({}, file=file) != resilience.Settings()


# -- nothing is left out -----------------------------------------------------------------------------------------------


def test_no_block_of_a_page_is_skipped() -> None:
    """What stands on a page is run, or is listed as something that cannot be."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found = [language for language, _ in FENCE.findall(text)]
        assert text.count("```") == 2 * len(found), f"{page}: a block is not recognised"
        assert set(found) <= {"python", "toml", *NOT_PYTHON}, page


@pytest.mark.parametrize("page", PAGES)
def test_an_anchor_leads_to_a_heading(page: str) -> None:
    """Links within a page lead to a heading that is there."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_no_page_is_skipped() -> None:
    """Every page that shows Python is run here, or by the test that is named."""
    pages = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
    with_python = {page for page in pages if fences(page, "python")}
    assert with_python - set(PAGES) == set(ELSEWHERE)
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def test_no_block_of_a_docstring_is_skipped() -> None:
    """Only what is listed is taken for something else than code, and each of these is there once."""
    skipped = [example.where for _, example in in_docstrings() if example.where in NOT_CODE]
    assert sorted(skipped) == sorted(NOT_CODE)


def test_no_example_hides_in_a_plain_paragraph() -> None:
    """Code in a docstring is marked by two colons, so that the tests above find it."""
    hidden = []
    for module, path in modules():
        for where, text in docstrings(ast.parse(path.read_text(encoding="utf-8")), module):
            lines = inspect.cleandoc(text).splitlines()
            for before, blank, line in zip(lines, lines[1:], lines[2:], strict=False):
                starts = not blank.strip() and line.startswith("    ") and before and not before.startswith(" ")
                if starts and not before.rstrip().endswith(("::", "==")):
                    hidden.append(f"{where}: {line.strip()}")
    assert hidden == []


def test_there_are_examples() -> None:
    """There is something to run: the tests above do not pass on nothing."""
    assert len(on_pages()) >= 35
    assert len(runnable()) >= 18
