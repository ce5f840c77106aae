"""What a test module gets from the shared fixtures and from the plugin, seen from outside: whole runs of pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
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

BACKENDS = """
import pytest

from resilience.testing import virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_backend(request.param)
"""

CLOCK = """
import anyio
import pytest

from resilience.events import CallRecovered
from resilience.testing import Faults

pytestmark = pytest.mark.anyio


async def test_the_registry_follows_the_backend(resilience_registry, resilience_events):
    await anyio.sleep(60)
    with Faults.script(["server_error", 3]).inject("openai"):
        await resilience_registry.provider("openai").execute(anyio.sleep, 5)
    assert resilience_events.only(CallRecovered).duration == anyio.current_time() - 60 >= 8
"""

# The application under test: handles at the top of a module, the default registry, real back-offs.
APPLICATION = """
from resilience import ResilientProvider

openai = ResilientProvider("openai")
down = []


async def ask():
    if down:
        raise ConnectionRefusedError(down.pop())
    return "answer"


async def service():
    return await openai.execute(ask)
"""

FIXTURES = """
import time

import anyio
import pytest

import application
from resilience import CircuitState, ProviderSettings, ResilientProvider, RetrySettings, Settings, default_registry
from resilience.events import CallRecovered

recorders = []


@pytest.fixture
def resilience_settings():
    return Settings(defaults=ProviderSettings(retry=RetrySettings(base_delay=40, jitter="none")))


async def test_a_week_passes(virtual_time):
    await anyio.sleep(7 * 86_400)
    assert virtual_time() == 7 * 86_400


class TestClass:
    async def test_methods_too(self, virtual_time):
        await anyio.sleep(60)
        assert virtual_time() == 60


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_fresh_registry(turn, virtual_time, resilience_registry, resilience_events):
    assert default_registry() is resilience_registry
    assert application.openai.breaker.state is CircuitState.CLOSED
    application.down[:] = ["tcp", "tcp"]
    assert await application.service() == "answer"
    assert virtual_time() == 60
    assert resilience_events.only(CallRecovered).attempts == 3
    assert ResilientProvider("openai").snapshot().retries == 2
    application.openai.breaker.open()
    recorders.append((resilience_events, len(resilience_events)))


def test_afterwards_all_is_as_before():
    assert application.openai.breaker.state is CircuitState.CLOSED
    assert application.openai.snapshot().retries == 0
    application.openai.breaker.open()
    application.openai.breaker.close()
    assert [len(recorder) for recorder, _ in recorders] == [count for _, count in recorders]


@pytest.mark.anyio
async def test_on_the_real_clock(resilience_no_waits, resilience_registry, resilience_events, anyio_backend_name):
    began = time.monotonic()
    application.down[:] = ["tcp", "tcp"]
    assert await application.service() == "answer"
    assert [retry.delay for retry in resilience_events.retries] == [20, 40]
    assert time.monotonic() - began < 20


async def test_stuck(virtual_time):
    await anyio.Event().wait()


@pytest.mark.anyio
async def test_on_each_backend(virtual_time, anyio_backend_name):
    await anyio.sleep(60)
    assert virtual_time() == 60
    print("ran on", anyio_backend_name)


def test_not_async(virtual_time):
    pass


@pytest.fixture
async def resource():
    yield 1


@pytest.mark.anyio
async def test_on_two_loops(virtual_time, resource):
    pass
"""

EARLY = """
import sys

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert "_resilience_pytestplugin" in loaded
    print("loaded", sorted(loaded & {"resilience", "httpx", "pydantic", "opentelemetry", "anyio", "trio"}))
"""


def run(folder: Path, *options: str) -> str:
    """Run pytest there with the plugin and anyio's, and no others, on asyncio and trio; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder)},
    )
    return done.stdout + done.stderr


def test_a_stuck_test_fails_at_once_on_both_backends(tmp_path: Path) -> None:
    """A test that waits for ever fails with the reason and the place, its fixtures are released, others go on."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_stuck.py").write_text(STUCK)
    check_stuck(run(tmp_path, "-p", "anyio"))


def test_the_plugin_alone_does_as_much(tmp_path: Path) -> None:
    """With the plugin, a fixture for the backend is all that it takes."""
    (tmp_path / "conftest.py").write_text(BACKENDS)
    (tmp_path / "test_stuck.py").write_text(STUCK)
    (tmp_path / "test_clock.py").write_text(CLOCK)
    check_stuck(run(tmp_path, "-p", "anyio", "-p", "_resilience_pytestplugin"), passed=3)


def check_stuck(output: str, *, passed: int = 1) -> None:
    """Both tests failed, for the reason they should."""
    assert f"2 failed, {passed} passed" in output, output
    for backend in ("asyncio", "trio"):
        assert f"FAILED test_stuck.py::test_stuck[{backend}]" in output
    assert output.count("DeadlockError: deadlock at virtual time 0 s") >= 2
    assert "in test_stuck" in output


def test_fixtures(tmp_path: Path) -> None:
    """The fixtures do what they say, in a suite that knows nothing but them; where they cannot, they say so."""
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    output = run(tmp_path, "-p", "anyio", "-p", "_resilience_pytestplugin", "-rA")
    assert "1 failed, 9 passed, 3 errors" in output, output
    for failed in ("FAILED", "test_stuck"), ("ERROR", "test_not_async"), ("ERROR", "test_on_two_loops[trio]"):
        assert " test_fixtures.py::".join(failed) in output
    assert "DeadlockError: deadlock at virtual time 0 s" in output
    assert "test_fixtures.test_stuck at " in output
    assert "a synchronous one calls resilience.testing.run(...)" in output
    assert "resource is an async fixture, on another event loop" in output
    for backend in ("asyncio", "trio"):
        assert f"ran on {backend}" in output


def test_pytest_finds_the_plugin_by_itself() -> None:
    """Installing the package is enough: it names its plugin."""
    (found,) = entry_points(group="pytest11", name="resilience")
    assert hasattr(found.load(), "virtual_time")


def test_starting_pytest_loads_nothing_of_ours_but_the_plugin(tmp_path: Path) -> None:
    """Suites that do not use the fixtures pay for no import, and coverage of what is imported later is whole."""
    (tmp_path / "conftest.py").write_text(EARLY)
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    output = run(tmp_path, "-p", "_resilience_pytestplugin", "-s")
    assert "1 passed" in output, output
    assert "loaded []" in output
