"""What people see: the same commands in a real terminal."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pty, termios, fcntl = map(pytest.importorskip, ("pty", "termios", "fcntl"))

pytestmark = pytest.mark.real_time

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def in_terminal(*arguments: str, columns: int = 80, until: bytes = b"") -> tuple[int, str]:
    """Run the command in a terminal; *until* is answered with Ctrl-C. Returns the exit code and what was seen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "resilience", *arguments],
        stdin=slave, stdout=slave, stderr=slave, env=variables | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(slave)
    seen = b""
    try:
        while select.select([master], [], [], 60)[0]:
            try:
                part = os.read(master, 65536)
            except OSError:  # nobody holds the other end
                break
            if not part:
                break
            seen += part
            if until and until in seen:
                process.send_signal(signal.SIGINT)
                until = b""
        return process.wait(60), seen.decode()
    finally:
        process.kill()
        os.close(master)


def plain(text: str) -> str:
    return _COLOUR.sub("", text)


def test_help_has_boxes_for_people() -> None:
    """Help is drawn with colours, with every command in it."""
    code, seen = in_terminal("--help")
    assert code == 0
    assert "\x1b[" in seen
    assert "╭─ Commands" in plain(seen)
    for name in ("alerts", "bench", "check", "dashboards", "demo", "explain", "schema", "show", "top"):
        assert re.search(rf"│ {name} ", plain(seen))


def test_a_table_is_coloured_and_fits(tmp_path: Path) -> None:
    """Settings that differ are shown in colours, folded to the width of the terminal."""
    path = tmp_path / "settings.toml"
    path.write_text("[providers.a-very-long-name-for-a-provider.breaker]\ntimeout = 5")
    code, seen = in_terminal("check", str(path), columns=60)
    assert code == 0
    assert "\x1b[" in seen
    assert max(map(len, plain(seen).splitlines())) <= 60


def test_folded_problems_stay_where_they_are(tmp_path: Path) -> None:
    """In a narrow terminal each problem is a block of its own, to the right of what it belongs to."""
    path = tmp_path / "bad.toml"
    path.write_text("[defaults.retry]\nmax_attempts = 0")
    code, seen = in_terminal("check", str(path), columns=60)
    assert code == 1
    lines = plain(seen).splitlines()
    first = next(number for number, line in enumerate(lines) if "1 problem" in line) + 1
    assert len(lines) > first + 1
    assert all(line.startswith("  ") for line in lines[first:])


def test_the_live_view_goes_on_until_ctrl_c() -> None:
    """While nobody answers it says so and keeps asking; Ctrl-C is the way out, and the screen is given back."""
    code, seen = in_terminal("top", "--url", "http://127.0.0.1:9", "--interval", "0.1", until=b"no answer since")
    assert code == 0
    assert "\x1b[?1049h" in seen  # a screen of its own
    assert "\x1b[?1049l" in seen
    assert "Traceback" not in seen


def test_the_live_view_of_a_real_process(down: str) -> None:
    """At 80 columns, the provider that is down is on top, and below the table it is said why."""
    code, seen = in_terminal("top", "--url", down, "--interval", "0.1", until=b"(since ")
    assert code == 0
    lines = [line.rstrip() for line in plain(seen).splitlines()]
    row = next(line for line in lines if line.startswith("openai "))
    assert row.split()[1] == "open"
    assert "openai refuses: circuit_open" in plain(seen)
