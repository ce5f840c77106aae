"""Logs at the ends of processes: at exit, after a fork, in the children of multiprocessing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

PRELUDE = """
import io, os, sys, logging
import resilience.logging as logs
from resilience.errors import Reason
from resilience.events import CallFailed, process_bus
from resilience.failure import Category, Failure, FailureKind
logs.install()
failure = Failure(kind=FailureKind.SERVER_ERROR, category=Category.RETRIABLE, error_type="OSError")
def lose(name):
    process_bus.emit(CallFailed(provider=name, time=0, failure=failure, attempts=1, duration=0,
                                reason=Reason.ATTEMPTS_SPENT, error=OSError("gone")))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Python 3.12 counts a thread that has ended a moment ago, and warns that it might be harmed by a fork.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_quiet_by_default() -> None:
    """A program that configures no logging sees nothing of ours, not even an ERROR."""
    done = run("-c", PRELUDE + "lose('s3')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_is_written_at_exit() -> None:
    """A program that ends without closing the output loses no line."""
    done = run("-c", PRELUDE + "logs.configure(); [lose(f'p{n}') for n in range(100)]")
    assert done.returncode == 0
    assert done.stderr.count("[FAILED]") == 100


def test_lines_of_exit_handlers_are_written() -> None:
    """Calls that fail while the program is ending are told too."""
    done = run(
        "-c", PRELUDE + "import atexit; atexit.register(lose, 'late'); logs.configure(); atexit.register(lose, 'later')"
    )
    assert done.returncode == 0
    assert "a call to late after" in done.stderr
    assert "a call to later after" in done.stderr


def test_forking_is_no_threat(tmp_path: Path) -> None:
    """However often a process forks right after a line, no child hangs, and every line is written once."""
    path = tmp_path / "calls.log"
    done = run(
        "-c",
        PRELUDE
        + f"""
logs.configure(output={str(path)!r})
for number in range(10):
    lose(f"before-{{number}}")
    if os.fork() == 0:
        lose(f"child-{{number}}")
        break
else:
    assert all(os.wait()[1] == 0 for _ in range(10))
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    names = re.findall(r"to (\S+) after", path.read_text())
    assert sorted(names) == sorted(f"{who}-{number}" for who in ("before", "child") for number in range(10))


def test_a_forked_child_writes_its_own_lines(tmp_path: Path) -> None:
    """After a fork parent and child both write, each its own lines, and what was waiting is written once."""
    path = tmp_path / "calls.log"
    done = run(
        "-c",
        PRELUDE
        + f"""
logs.configure(output={str(path)!r})
lose("parent")
child = os.fork()
lose("child" if child == 0 else "parent")
if child:
    assert os.waitpid(child, 0)[1] == 0
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text().count("to parent after") == 2
    assert path.read_text().count("to child after") == 1


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_multiprocessing_child_loses_no_line(tmp_path: Path, method: str) -> None:
    """The last lines of a child of multiprocessing are written, although it skips the exit handlers."""
    path, script = tmp_path / "calls.log", tmp_path / "work.py"
    script.write_text(f"""
import multiprocessing
from resilience.logging import configure, install
import logging

def work():
    if {method!r} != "fork":
        install(), configure(output={str(path)!r})
    logging.getLogger("resilience.call").error("from the child")

if __name__ == "__main__":
    install(), configure(output={str(path)!r})
    logging.getLogger("resilience.call").error("from the parent")
    child = multiprocessing.get_context({method!r}).Process(target=work)
    child.start(), child.join()
    assert child.exitcode == 0
""")
    done = run(str(script))
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text().count("from the child") == 1
    assert path.read_text().count("from the parent") == 1
