"""What every test stands on: asyncio and trio, both on virtual time unless a test needs real sockets."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction

import hypothesis
import pytest

from resilience.testing import guarded, virtual_backend

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Both backends on virtual time; on the real clock with ``@pytest.mark.real_time``."""
    if request.node.get_closest_marker("real_time"):
        return request.param, {}
    return virtual_backend(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Let a test that is stuck fail with the reason, also on trio."""
    if iscoroutinefunction(pyfuncitem.obj) and "anyio_backend" in pyfuncitem.funcargs:
        pyfuncitem.obj = guarded(pyfuncitem.obj, pyfuncitem.funcargs["anyio_backend"][1])


@pytest.fixture(name="garbage_of")
def _garbage_of() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[list[object]]]:
    """What only the collector could free after doing something ten times. The first times may make what stays."""

    async def garbage_of(way: Callable[[], Awaitable[object]]) -> list[object]:
        await way()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(10):
                await way()
            gc.collect()
            return list(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    return garbage_of
