"""The `resilience` command."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from resilience import cli


def greet(parser: argparse.ArgumentParser) -> cli.Run:
    """A command as somebody else's package would bring it."""
    parser.description = "Say hello."
    parser.add_argument("--name", default="you")

    def run(options: argparse.Namespace) -> int:
        sys.stdout.write(f"hello {options.name}\n")
        return 7

    return run


def interrupted(parser: argparse.ArgumentParser) -> cli.Run:
    def run(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    return run


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some commands, besides those that really are installed."""
    values = {"greet": "greeting:greet", "stop": "greeting:interrupted", "gone": "nowhere_at_all:command"}
    entries = [metadata.EntryPoint(name, value, "resilience.commands") for name, value in values.items()]
    module = type(sys)("greeting")
    vars(module).update(greet=greet, interrupted=interrupted)
    monkeypatch.setitem(sys.modules, "greeting", module)
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: entries)


def run_python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


@pytest.mark.usefixtures("installed")
def test_commands_plug_in_by_entry_point(capsys: pytest.CaptureFixture[str]) -> None:
    """A command of another package gets its own arguments, and its exit code is ours."""
    assert cli.main(["greet", "--name", "world"]) == 7
    assert capsys.readouterr().out == "hello world\n"


@pytest.mark.usefixtures("installed")
def test_each_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Help behind a command is that command's help."""
    with pytest.raises(SystemExit, match="0"):
        cli.main(["greet", "--help"])
    output = capsys.readouterr().out
    assert "usage: resilience greet" in output
    assert "Say hello." in output


@pytest.mark.usefixtures("installed")
def test_an_unknown_command_is_named_with_the_likely_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip is answered with what was probably meant, and with what there is."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["greeet"])
    error = capsys.readouterr().err
    assert "there is no command 'greeet'. Did you mean 'greet'?" in error
    assert "gone, greet, stop" in error


@pytest.mark.usefixtures("installed")
def test_a_command_that_cannot_be_loaded_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """A broken plug-in is an error with its name and cause, not a traceback."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["gone"])
    assert "'gone' (nowhere_at_all:command) cannot be loaded: No module named" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_an_interrupt_is_no_traceback() -> None:
    """Ctrl-C ends a command with the customary exit code."""
    assert cli.main(["stop"]) == 130


def test_without_commands_it_asks_for_the_installation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run from a bare copy of the source, it says what is missing."""
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["demo"])
    assert "pip install resilient-providers" in capsys.readouterr().err


@pytest.mark.real_time
def test_the_version_is_that_of_the_distribution() -> None:
    """``python -m resilience --version`` tells name and version."""
    done = run_python("-m", "resilience", "--version")
    assert done.stdout == f"resilient-providers {metadata.version('resilient-providers')}\n"


@pytest.mark.real_time
def test_alone_it_lists_what_there_is() -> None:
    """Without a command it shows the help, with the commands in it."""
    done = run_python("-m", "resilience")
    assert done.returncode == 0
    assert "commands: " in done.stdout
    assert "demo" in done.stdout


@pytest.mark.real_time
def test_another_package_of_the_name_providers_is_named(tmp_path: Path) -> None:
    """If the user's own ``providers`` package hides ours, the message says so and where it is."""
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "__init__.py").write_text("")
    done = run_python("-P", "-m", "resilience", "demo", path=tmp_path)
    assert done.returncode == 2
    assert f"another package named 'providers', in {tmp_path / 'providers'}, hides the one" in done.stderr


@pytest.mark.real_time
def test_a_reader_that_leaves_is_no_traceback() -> None:
    """``resilience ... | head`` ends quietly."""
    program = (
        "import argparse, sys; from importlib import metadata; from resilience import cli\n"
        "class Entry:\n"
        "    name, value, module, dist = 'flood', 'x:y', 'x', None\n"
        "    def load(self): return lambda parser: lambda options: [print('x' * 80) for _ in range(100_000)] and 0\n"
        "metadata.entry_points = lambda *, group: [Entry()]\n"
        "sys.exit(cli.main(['flood']))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141
