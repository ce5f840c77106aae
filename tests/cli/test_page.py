"""docs/commands.md says what is so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from resilience.cli import plugins

Command = Callable[..., subprocess.CompletedProcess[str]]
PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
OURS = (*plugins.BUILT_IN, "demo")


def test_every_command_is_on_the_page() -> None:
    """Each is listed, and nothing else is."""
    listed = re.findall(r"^\| \[?`(\w+)", PAGE.split("## ")[0], flags=re.MULTILINE)
    assert sorted(listed) == sorted(OURS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_explains_itself(in_process: Command, name: str) -> None:
    """Each has a help of its own, with the first sentence that stands in the list of all."""
    listed = plugins.summary(plugins.find(name))
    done = in_process(name, "--help")
    assert done.returncode == 0
    assert " ".join(listed.split()) in " ".join(done.stdout.split())
    assert "Args:" not in done.stdout


def test_every_option_on_the_page_is_there(in_process: Command) -> None:
    """What the page tells to type can be typed."""
    known = " ".join(in_process(name, "--help").stdout for name in OURS) + in_process("--help").stdout
    typed = set(re.findall(r"(?<!-)--[a-z][a-z-]+", PAGE)) - {"--check"}  # the benchmark's own
    assert typed <= set(re.findall(r"--[a-z-]+", known))


def test_the_plug_in_on_the_page_works(in_process: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/commands.md is a command, word for word."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    monkeypatch.setattr(
        metadata, "entry_points", lambda *, group: [metadata.EntryPoint("greet", "greetings.command:greet", group)]
    )
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: names["greet"])
    done = in_process("greet", "--name", "reader")
    assert (done.returncode, done.stdout) == (0, "hello reader\n")
