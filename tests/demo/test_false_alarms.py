"""A healthy provider that is merely noisy does not lose its callers."""

from __future__ import annotations

import anyio

from providers.demo.scenario import Scenario, play
from resilience import CircuitState, ProviderSettings
from resilience.testing import MisbehavingProvider, MisbehavingTransport, Misbehaviour, run

RUNS = 1_000
CALLS = 60  # enough for every rule of the breaker to have its say, and cheap enough for a thousand runs


async def opened(seed: int) -> bool:
    """Whether the circuit opened in one run with a tenth of all requests failing at random."""
    behaviour = Misbehaviour(seed=seed, latency=0.04, errors=0.06, resets=0.04)
    site = MisbehavingProvider(behaviour, clock=anyio.current_time)
    scenario = Scenario(duration=CALLS / 20, rate=20.0, behaviour=behaviour)
    record = await play(scenario, site, MisbehavingTransport(site).upload, settings=ProviderSettings())
    return any(change.after is CircuitState.OPEN for change in record.events.transitions)


async def count_openings() -> int:
    return sum([await opened(seed) for seed in range(RUNS)])


def test_noise_rarely_opens_a_circuit() -> None:
    """With the default settings, in fewer than 1 % of a thousand noisy runs does the circuit open."""
    assert run(count_openings) < RUNS / 100
