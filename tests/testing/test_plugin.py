"""What a test module gets from the shared fixtures, seen from outside: a whole run of pytest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

STUCK = """
import anyio
import pytest

pytestmark = pytest.mark.anyio
trace = []


@pytest.fixture
async def resource():
    yield "resource"
    trace.append("released")


async def test_stuck(resource):
    await anyio.Event().wait()


def test_released():
    assert trace == ["released", "released"]
"""


def test_a_stuck_test_fails_at_once_on_both_backends(tmp_path: Path) -> None:
    """A test that waits for ever fails with the reason and the place, its fixtures are released, others go on."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_stuck.py").write_text(STUCK)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert "2 failed, 1 passed" in done.stdout
    for backend in ("asyncio", "trio"):
        assert f"FAILED test_stuck.py::test_stuck[{backend}]" in done.stdout
    assert done.stdout.count("DeadlockError: deadlock at virtual time 0 s") >= 2
    assert "in test_stuck" in done.stdout
