"""The `resilience` command: how subcommands plug in, what help says, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import pytest
import typer

from resilience import cli

Command = Callable[..., subprocess.CompletedProcess[str]]


def greet(*, name: Annotated[str, typer.Option()] = "you") -> int:
    """Say hello."""
    sys.stdout.write(f"hello {name}\n")
    return 7


def quiet() -> None:
    """Say nothing."""


def interrupted() -> None:
    raise KeyboardInterrupt


group = typer.Typer(help="Several commands.")


@group.command()
def one() -> int:
    """The first."""
    return 11


@group.command()
def two() -> None:
    """The second."""
    raise typer.Exit(12)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some commands, besides those that really are installed."""
    values = {
        "greet": "greeting:greet",
        "quiet": "greeting:quiet",
        "stop": "greeting:interrupted",
        "group": "greeting:group",
        "gone": "nowhere_at_all:command",
        "broken": "greeting:no_such_thing",
        "number": "greeting:number",
    }
    entries = [metadata.EntryPoint(name, value, "resilience.commands") for name, value in values.items()]
    module = type(sys)("greeting")
    vars(module).update(greet=greet, quiet=quiet, interrupted=interrupted, group=group, number=5)
    monkeypatch.setitem(sys.modules, "greeting", module)
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: entries)


@pytest.mark.usefixtures("installed")
def test_commands_plug_in_by_entry_point(in_process: Command) -> None:
    """A command of another package gets its own arguments, and its exit code is ours."""
    done = in_process("greet", "--name", "world")
    assert (done.returncode, done.stdout) == (7, "hello world\n")
    assert in_process("quiet").returncode == 0


@pytest.mark.usefixtures("installed")
def test_an_application_of_several_commands_plugs_in_as_a_whole(in_process: Command) -> None:
    """A package may bring a `typer.Typer` with commands of its own; however they end, that is the exit code."""
    assert in_process("group", "one").returncode == 11
    assert in_process("group", "two").returncode == 12
    assert "The second." in in_process("group", "--help").stdout


@pytest.mark.usefixtures("installed")
def test_each_command_explains_itself(in_process: Command) -> None:
    """Help behind a command is that command's help."""
    done = in_process("greet", "--help")
    assert done.returncode == 0
    assert "Usage: resilience greet" in done.stdout
    assert "Say hello." in done.stdout


@pytest.mark.usefixtures("installed")
def test_an_unknown_command_is_named_with_the_likely_one(in_process: Command) -> None:
    """A slip is answered with what was probably meant, and with what there is."""
    done = in_process("greeet")
    assert done.returncode == 2
    assert "there is no command 'greeet'. Did you mean 'greet'?" in done.stderr
    assert "greet, group" in done.stderr


def test_without_plug_ins_it_asks_for_the_installation(in_process: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from a bare copy of the source, it says why a command that comes with it is not there."""
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [])
    done = in_process("demo")
    assert done.returncode == 2
    assert "pip install resilient-providers" in done.stderr


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "name, reason",
    [
        ("gone", "'gone' (nowhere_at_all:command) cannot be loaded: No module named"),
        ("broken", "'broken' (greeting:no_such_thing) cannot be loaded: "),
        ("number", "'number' (greeting:number) is no function"),
    ],
)
def test_a_command_that_cannot_be_loaded_says_why(in_process: Command, name: str, reason: str) -> None:
    """A broken plug-in is an error with its name and cause, not a traceback, and breaks no other."""
    done = in_process(name)
    assert done.returncode == 2
    assert reason in done.stderr
    assert in_process("--help").returncode == 0
    assert in_process("quiet").returncode == 0


def test_nobody_replaces_a_command_of_ours(in_process: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in of the same name is not taken."""
    entry = metadata.EntryPoint("schema", "nowhere_at_all:command", "resilience.commands")
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [entry])
    assert in_process("schema").returncode == 0
    assert "nowhere_at_all" not in in_process("--help").stdout


@pytest.mark.usefixtures("installed")
def test_an_interrupt_is_no_traceback(in_process: Command) -> None:
    """Ctrl-C ends a command with the customary exit code."""
    assert in_process("stop").returncode == 130


def test_an_unknown_option_is_refused(in_process: Command) -> None:
    """A wrong command line is exit code 2, with a hint where to read on."""
    done = in_process("--nope")
    assert done.returncode == 2
    assert "resilience --help" in done.stderr


@pytest.mark.parametrize("code", ["0", "1", "2", "3", "130", "141"])
def test_help_documents_the_exit_codes(in_process: Command, code: str) -> None:
    """Every exit code stands in the help, and on the page."""
    text = " ".join(in_process("--help").stdout.split("Exit codes:")[1].split())
    assert f"{code} " in text
    assert f"| {code} |" in (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


def test_alone_it_lists_what_there_is(in_process: Command) -> None:
    """Without a command it shows the help, with the commands in it and the first sentence of each."""
    done = in_process()
    assert done.returncode == 0
    assert "Upload to a misbehaving provider" in done.stdout
    assert done.stdout == in_process("--help").stdout


@pytest.mark.real_time
def test_help_imports_no_command() -> None:
    """What is only listed is not loaded: neither plug-ins nor what the commands of ours need."""
    program = (
        "import sys; from resilience import cli; cli.main(['--help']); "
        "print(*(name for name in sys.modules if name.startswith(('providers', 'httpx', 'uvicorn', 'opentelemetry'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.real_time
def test_the_version_is_that_of_the_distribution(resilience_command: Command) -> None:
    """``python -m resilience --version`` tells name and version."""
    done = resilience_command("--version")
    assert done.stdout == f"resilient-providers {metadata.version('resilient-providers')}\n"


@pytest.mark.real_time
def test_another_package_of_the_name_providers_is_named(tmp_path: Path, resilience_command: Command) -> None:
    """If the user's own ``providers`` package hides ours, the message says so and where it is."""
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "__init__.py").write_text("")
    done = resilience_command("demo", path=tmp_path)
    assert done.returncode == 2
    assert f"another package named 'providers', in {tmp_path / 'providers'}, hides the one" in done.stderr


@pytest.mark.real_time
def test_a_reader_that_leaves_is_no_traceback() -> None:
    """``resilience ... | head`` ends quietly."""
    program = (
        "import sys; from importlib import metadata; from resilience import cli\n"
        "def flood():\n"
        "    for _ in range(100_000): print('x' * 80)\n"
        "class Entry:\n"
        "    name, value, module, dist = 'flood', 'x:y', 'x', None\n"
        "    def load(self): return flood\n"
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


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Installed without the extra, every subcommand ends with 2 and the line to type."""
    for name in list(sys.modules):
        if name.startswith(("resilience.cli.", "typer")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "typer", None)
    assert cli.main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install 'resilient-providers[cli]'" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_produced(resilience_command: Command, shell: str) -> None:
    """Each shell gets a script that asks the command itself."""
    done = resilience_command("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "_RESILIENCE_COMPLETE" in done.stdout


def test_commands_complete(resilience_command: Command) -> None:
    """What was begun is completed with the commands that begin so."""
    done = resilience_command(_RESILIENCE_COMPLETE="complete_bash", COMP_WORDS="resilience de", COMP_CWORD="1")
    assert done.stdout.split() == ["demo"]


def test_names_of_providers_complete(resilience_command: Command) -> None:
    """Where a provider is asked for, those of the settings are offered; refused settings offer none, and no error."""
    asked = {"_RESILIENCE_COMPLETE": "complete_bash", "COMP_WORDS": "resilience explain op", "COMP_CWORD": "2"}
    done = resilience_command(
        **asked, RESILIENCE_PROVIDERS__OPENAI__ENABLED="true", RESILIENCE_PROVIDERS__S3__ENABLED="1"
    )
    assert done.stdout.split() == ["openai"]
    refused = resilience_command(**asked, RESILIENCE_NONSENSE="1")
    assert (refused.stdout.strip(), refused.stderr) == ("", "")
