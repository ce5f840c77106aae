"""``resilience serve``, in processes of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from resilience.cli.ask import ask

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(
        dedent("""
        import anyio
        from resilience import ResilientProvider

        async def work():
            pass

        async def main():
            await ResilientProvider("openai").execute(work)
            print("worked", flush=True)
            await anyio.sleep_forever()

        async def short():
            await main.__globals__["ResilientProvider"]("s3").execute(work)

        async def failing():
            raise ConnectionError("the program's own")

        number = 5
        """)
    )
    return tmp_path


@contextmanager
def served(*arguments: str, folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "resilience", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=os.environ | variables,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"resilience: health and metrics of process \d+ on (http://\S+)\n", line)
            assert found, line + (process.communicate()[1] if not line else "")
            yield process, found[1]
        finally:
            process.kill()


def test_a_program_is_run_beside_its_health(program: Path) -> None:
    """The providers that it calls are told of, and it is stopped by a signal, in good order."""
    with served("shop:main", folder=program, RESILIENCE_SHUTDOWN__CANCEL="100ms") as (process, url):
        assert process.stdout is not None
        assert process.stdout.readline() == "worked\n"
        assert ask(url, "/health/live", 5.0).status == 200
        providers = ask(url, "/health/providers", 5.0).document["providers"]
        assert providers["openai"]["snapshot"]["succeeded"] == 1
        assert providers["openai"]["snapshot"]["latency"]["count"] == 1  # what `resilience top` makes p50 and p99 of
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_alone_it_serves_until_a_signal_comes(tmp_path: Path) -> None:
    """Without a program it tells health of what there is; the settings file is heeded."""
    path = tmp_path / "settings.toml"
    path.write_text("[health]\nminimum_healthy = 0.25\n[environments.dev.health]\nminimum_healthy = 0.75")
    with served("--file", str(path), "--environment", "dev", folder=tmp_path) as (process, url):
        answer = ask(url, "/health", 5.0)
        assert answer.document["summary"]["minimumHealthy"] == 0.75
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_when_the_program_ends_all_ends(program: Path) -> None:
    """A program that has done its work is no failure."""
    with served("shop:short", folder=program, RESILIENCE_METRICS__ENABLED="false") as (process, _):
        assert process.wait(30) == 0


def test_an_error_of_the_program_is_its_own(program: Path) -> None:
    """It comes out as it is, and is not taken for trouble with the address."""
    with served("shop:failing", folder=program, RESILIENCE_METRICS__ENABLED="false") as (process, _):
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "ConnectionError: the program's own" in errors
        assert "cannot listen" not in errors


@pytest.mark.parametrize(
    "name, reason",
    [
        ("nowhere_at_all:main", "nowhere_at_all:main cannot be loaded: No module named"),
        ("shop:nothing", "shop:nothing cannot be loaded: module 'shop' has no attribute 'nothing'"),
        ("shop:number", "shop:number is no async function: 5"),
        (":main", ":main cannot be loaded"),
    ],
)
def test_a_program_that_is_none_is_refused(
    in_process: Command, program: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """A slip in its name is an error of the command line."""
    monkeypatch.syspath_prepend(str(program))
    done = in_process("serve", name)
    assert done.returncode == 2
    assert reason in done.stderr


def test_without_uvicorn_it_says_what_to_install(in_process: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is an extra of its own."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = in_process("serve")
    assert done.returncode == 2
    assert "pip install 'resilient-providers[serve]'" in done.stderr


def test_refused_settings_keep_it_from_serving(in_process: Command, tmp_path: Path) -> None:
    """They are told as everywhere, and the exit code is that of bad news."""
    path = tmp_path / "settings.toml"
    path.write_text("[health]\nport = 99999999")
    done = in_process("serve", "--file", path)
    assert done.returncode == 1
    assert "health.port = 99999999" in done.stderr
