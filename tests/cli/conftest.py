"""Running the `resilience` command as users do: in a process of its own, in a pipe or in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from resilience import registry

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "top.py"

Command: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in this process, which is quicker; its output goes to a pipe."""
    from resilience.cli import main

    for name in list(os.environ):
        if name.startswith(("RESILIENCE_", "RETRY_", "CIRCUIT_BREAKER_", "_TYPER")):
            monkeypatch.delenv(name)

    for name in ("RESILIENCE_CONFIG", "RESILIENCE_ENV"):  # set by commands, for all who read settings after them
        monkeypatch.setenv(name, "")

    monkeypatch.setattr(registry, "_default", None)  # which may have been made by now, from other settings

    def in_process(*arguments: object) -> subprocess.CompletedProcess[str]:
        texts = [str(argument) for argument in arguments]
        capsys.readouterr()
        code = main(texts)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(texts, code, out, err)

    return in_process


@pytest.fixture
def resilience_command() -> Command:
    """Run the command in a process of its own, in a pipe."""

    def run(*arguments: object, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | ({"PYTHONPATH": str(path)} if path else {}) | variables
        return subprocess.run(
            [sys.executable, "-P", "-m", "resilience", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def down() -> Iterator[str]:
    """A real process, which calls providers that misbehave, once the circuit of the one that is down has opened."""
    command = [sys.executable, str(PICTURE), "--service"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # it ends with its input, so it does not outlive this process, however that ends
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        assert any(line.strip() == "openai open" for line in process.stdout)
        yield url
        process.kill()
