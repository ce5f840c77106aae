"""What the README promises is what is checked."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = ROOT / ".ci" / "run"
SET_UP = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s "


def sessions() -> set[str]:
    """The names of the sessions that the noxfile defines, without running it."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    decorated = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }
    assert "tests" in decorated
    return decorated


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_the_readme_s_commands_do_all_of_their_own_set_up(session: str) -> None:
    """One line that can be pasted on a machine that has only Python."""
    assert README.splitlines().count(SET_UP + session) == 1


def test_ci_runs_the_readme_s_test_command() -> None:
    """CI finds its test command in the README, so they cannot drift apart."""
    script = CI.read_text(encoding="utf-8")
    pattern = re.search(r'grep -E "([^"]+)" README\.md', script)
    assert pattern
    found = re.compile(pattern[1].replace("$1", "tests").replace("\\$", "$"), re.MULTILINE)
    assert found.findall(README) == [SET_UP + "tests"]
    assert "readme_command tests" in script


def test_every_session_that_is_spoken_of_exists() -> None:
    """The README, the benchmarks' page and CI name sessions that are there."""
    text = README + CI.read_text(encoding="utf-8") + (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"nox -s ([a-z]+)", text)) <= sessions()


def test_ci_runs_every_kind_of_check() -> None:
    """Nothing that must pass is left out of CI."""
    ran = set(re.findall(r"\$nox -s ([a-z]+)", CI.read_text(encoding="utf-8")))
    assert ran >= {"smoke", "lint", "types", "contracts", "coverage", "demo", "bench"}


def test_the_ci_script_is_valid_and_executable() -> None:
    """`.ci/run` can be started as it is."""
    assert CI.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(CI)], check=True, timeout=60)
