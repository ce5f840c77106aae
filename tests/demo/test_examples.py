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
