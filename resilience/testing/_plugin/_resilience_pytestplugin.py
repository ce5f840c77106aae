"""
Fixtures for the tests of those who use `resilience`, found by pytest through an entry point.

Beside the package and not in it, and importing nothing but pytest, because pytest imports every installed plugin when
it starts: one that imported `resilience` would slow down each run of every test suite on the machine, and what is
imported before coverage measurement begins counts as never run. (Hypothesis does the same for the same reasons.)
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

if TYPE_CHECKING:
    from resilience import ProviderRegistry, Settings
    from resilience.testing import EventRecorder, VirtualClock

_TIME = "virtual_time"
_BACKEND = "anyio_backend"


@pytest.fixture
def resilience_settings() -> Settings | None:
    """What holds in ``resilience_registry``: override it. Default: None, what the environment says."""
    return None


@pytest.fixture
def resilience_registry(
    request: pytest.FixtureRequest, resilience_settings: Settings | None
) -> Generator[ProviderRegistry]:
    """A process default of the test's own: ``ResilientProvider("x")`` in the code under test starts from nothing."""
    import time

    from resilience.testing import VirtualClock, isolated_registry
    from resilience.testing.run import is_virtual

    names = request.fixturenames
    virtual = _TIME in names or (_BACKEND in names and is_virtual(request.getfixturevalue(_BACKEND)))
    with isolated_registry(resilience_settings, clock=VirtualClock() if virtual else time.monotonic) as registry:
        yield registry


@pytest.fixture
def resilience_events() -> Generator[EventRecorder]:
    """Every event of every provider in the process, while the test runs."""
    from resilience import subscribe
    from resilience.testing import EventRecorder

    recorder = EventRecorder()
    unsubscribe = subscribe(recorder)
    yield recorder
    unsubscribe()


@pytest.fixture
def resilience_no_waits() -> Generator[None]:
    """Back-offs and the like take no time, though they are decided on as ever: see `resilience.testing.no_waits`."""
    from resilience.testing import no_waits

    with no_waits():
        yield


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> VirtualClock:
    """
    Runs the async test that asks for it on virtual time, an event loop of its own; its value is the clock.

    On asyncio, or where anyio's plugin runs the test, on that backend. Async fixtures live on another loop.
    """
    from resilience.testing import VirtualClock

    if not inspect.iscoroutinefunction(request.function):
        pytest.fail(f"{_TIME} is for async tests: a synchronous one calls resilience.testing.run(...)", pytrace=False)
    fixtures = request.node._fixtureinfo.name2fixturedefs
    for name in sorted(fixtures):
        func = inspect.unwrap(fixtures[name][-1].func)
        if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
            pytest.fail(
                f"{_TIME} runs the test alone on virtual time, and {name} is an async fixture, on another event loop: "
                f"return resilience.testing.virtual_backend(...) from a fixture {_BACKEND}, and both run on it",
                pytrace=False,
            )
    return VirtualClock()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Take those tests over that asked for virtual time, whichever plugin would have run them."""
    if isinstance(item, pytest.Function) and _TIME in item.fixturenames and inspect.iscoroutinefunction(item.obj):
        item.runtest = partial(_run, item)  # type: ignore[method-assign]


def _run(item: pytest.Function) -> None:
    from resilience.testing import run

    __tracebackhide__ = True
    backend: Any = item.funcargs.get(_BACKEND, "asyncio")
    name = cast("Literal['asyncio', 'trio']", backend if isinstance(backend, str) else backend[0])
    arguments = {argument: item.funcargs[argument] for argument in item._fixtureinfo.argnames}

    @wraps(item.obj)
    async def test() -> None:
        __tracebackhide__ = True
        await item.obj(**arguments)

    run(test, backend=name)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Let a test that is stuck on virtual time fail with the reason, also on trio."""
    testing = sys.modules.get("resilience.testing")  # loaded by those who use `virtual_backend`
    backend: Any = pyfuncitem.funcargs.get(_BACKEND)
    if testing is not None and isinstance(backend, tuple) and inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = testing.guarded(pyfuncitem.obj, cast("dict[str, object]", backend[1]))
