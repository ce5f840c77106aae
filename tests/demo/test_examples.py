"""The examples run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "name, told",
    [
        ("chat.py", "4 questions went on to anthropic, 2 were put to openai again"),
        ("upload.py", "in an outage: 0, stored: 20]"),
        ("virtual_time.py", " h: closed -> open (5 failures in a row)"),
    ],
)
def test_examples_run(name: str, told: str) -> None:
    """An example ends well and prints what it is there to show."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_a_service_to_practise_on() -> None:
    """Its store goes down and comes back, a change of settings is taken and nonsense is not, and no call is lost."""
    command = [sys.executable, str(EXAMPLES / "operate.py"), "--port", "0", "--seconds", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "the end: attempts: " in done.stdout
    assert " 0 interrupted, 0 abandoned" in done.stdout
    for told in (
        "[CIRCUIT] store: closed -> open",
        "[CIRCUIT] store: half_open -> closed",
        "providers.store.breaker.max_timeout: 600 -> 60",
        "are refused, nothing changed: ",
        "did you mean 'timeout'?",
    ):
        assert told in done.stderr
