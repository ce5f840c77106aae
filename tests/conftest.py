"""What every test stands on: asyncio and trio, both on virtual time unless a test needs real sockets."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

from resilience.testing import deadlock_in, virtual_backend

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Both backends on virtual time; on the real clock with ``@pytest.mark.real_time``."""
    if request.node.get_closest_marker("real_time"):
        return request.param, {}
    return virtual_backend(request.param)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Report a deadlock on trio as what it is: there it reaches the test as a cancellation."""
    try:
        return (yield)
    except BaseException:
        _, options = pyfuncitem.funcargs.get("anyio_backend", ("", {}))
        if deadlock := deadlock_in(options):
            raise deadlock from None
        raise
