"""``python -m resilience demo`` end to end, over real sockets, in its short form."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real_time


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resilience", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_keeps_its_promises_over_real_sockets() -> None:
    """In three seconds a pass, uploads get through, and every one that was confirmed is there."""
    done = demo("--json", "--duration", "3")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    bare, guarded = document["unprotected"], document["protected"]
    assert document["promises_kept"] is True
    assert bare["files"] == guarded["files"] == 120
    assert guarded["success_rate"] > bare["success_rate"]
    assert guarded["requests_in_outage"] < bare["requests_in_outage"]
    assert any(change["after"] == "open" for change in guarded["transitions"])
    assert "breaker.timeout" in document["settings"]


def test_the_demo_tells_a_story_in_a_pipe() -> None:
    """Without a terminal it prints plain lines: the settings that differ, the progress, the comparison."""
    done = demo("--duration", "0.5", "--rate", "30", "--seed", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\r" not in done.stdout
    for part in (
        "15 files in 0.5 s",
        "breaker.timeout = 0.025",
        "of 15 stored",
        "unprotected     protected",
        "circuit",
    ):
        assert part in done.stdout


@pytest.mark.parametrize("wrong", [("--duration", "0"), ("--rate", "-3"), ("--duration", "inf"), ("--seed", "x")])
def test_nonsense_is_refused(wrong: tuple[str, str]) -> None:
    """A figure that makes no sense is refused with the flag's name."""
    done = demo(*wrong)
    assert done.returncode == 2
    assert wrong[0] in done.stderr
