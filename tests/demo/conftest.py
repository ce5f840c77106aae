"""The demo on virtual time, in this process."""

from __future__ import annotations

from typing import Protocol

import anyio
import pytest

from providers.demo.report import Pass
from providers.demo.run import perform
from providers.demo.scenario import Scenario
from providers.http import client
from resilience import ProviderSettings
from resilience.testing import MisbehavingProvider, MisbehavingTransport, run
from resilience.testing.run import Backend


class Rehearse(Protocol):
    def __call__(
        self, scenario: Scenario, settings: ProviderSettings | None = None, *, backend: Backend = "asyncio"
    ) -> Pass: ...


@pytest.fixture(scope="session")
def rehearse() -> Rehearse:
    """Perform one pass of the demo, the same code as on sockets, on virtual time."""

    async def in_process(scenario: Scenario, settings: ProviderSettings | None) -> Pass:
        site = MisbehavingProvider(scenario.behaviour, clock=anyio.current_time)
        async with client(base_url="http://uploads", transport=MisbehavingTransport(site)) as http:
            return await perform(scenario, site, http, settings)

    def rehearse(scenario: Scenario, settings: ProviderSettings | None = None, *, backend: Backend = "asyncio") -> Pass:
        return run(in_process, scenario, settings, backend=backend)

    return rehearse
