"""A process default of a test's own."""

from __future__ import annotations

import anyio
import pytest

from resilience import (
    CircuitState,
    ExperimentSettings,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    default_registry,
)
from resilience.testing import VirtualClock, isolated_registry

ONCE = Settings(defaults=ProviderSettings(retry=RetrySettings(max_attempts=1)))


async def answer() -> str:
    return "answer"


def test_inside_everything_starts_from_nothing() -> None:
    """The default registry is another one inside the block, with the settings given, and the usual one afterwards."""
    usual = default_registry()
    usual.provider("isolation-a").breaker.open()
    with isolated_registry(ONCE) as registry:
        assert default_registry() is registry
        assert len(registry) == 0
        assert ResilientProvider("isolation-a").breaker.state is CircuitState.CLOSED
        assert ResilientProvider("isolation-a").settings.retry.max_attempts == 1
        assert "isolation-a" in usual
        usual.provider("isolation-b")
        assert "isolation-b" not in registry
    assert default_registry() is usual
    assert ResilientProvider("isolation-a").breaker.state is CircuitState.FORCED_OPEN
    assert "isolation-b" in usual
    assert ResilientProvider("isolation-b").settings.retry.max_attempts == 3


def test_around_an_experiment() -> None:
    """A provider with an experiment is put aside with both of its arms, and put back."""
    settings = Settings(experiments={"isolation-c": ExperimentSettings(share=0.5, settings=ProviderSettings())})
    with isolated_registry(settings) as outer:
        handle = ResilientProvider("isolation-c")
        arms = len(outer.runtimes)
        with isolated_registry(ONCE) as registry:
            assert handle.snapshot().calls == 0
            assert list(registry) == ["isolation-c"]
        assert len(outer.runtimes) == arms == 2


@pytest.mark.anyio
async def test_handles_made_before_come_along_and_go_back(anyio_backend_name: str) -> None:
    """A handle at the top of a module under test is isolated too; afterwards it has the state that it had."""
    name = f"isolation-{anyio_backend_name}"
    module, endpoint = ResilientProvider(name), ResilientProvider(name, endpoint="eu")
    view = module.with_options(operation="chat")
    assert await module.execute(answer) == "answer"
    for _ in range(2):
        with isolated_registry(ONCE) as registry:
            assert module.snapshot().calls == 0
            assert await module.execute(answer) == "answer"
            assert await module.execute(answer) == "answer"
            assert await view.execute(answer) == "answer"
            assert registry.provider(name).snapshot().calls == 3
            assert list(registry) == [name]
            endpoint.breaker.open()
            assert f"{name}/eu" in registry
    assert endpoint.breaker.state is CircuitState.CLOSED
    assert module.snapshot().calls == 1
    assert await module.execute(answer) == "answer"
    assert await view.execute(answer) == "answer"
    assert ResilientProvider(name).snapshot().calls == 3


@pytest.mark.anyio
async def test_handles_made_inside_go_back_too(anyio_backend_name: str) -> None:
    """A handle made inside the block, or its view, means the usual provider once the block has ended."""
    name = f"isolation-kept-{anyio_backend_name}"
    with isolated_registry(ONCE):
        kept = ResilientProvider(name)
        kept.breaker.open()
    assert await kept.execute(answer) == "answer"
    assert ResilientProvider(name).snapshot().calls == 1


def test_blocks_can_be_nested() -> None:
    """Each block has a registry of its own and puts back the one around it, also when it ends with an error."""
    with isolated_registry(ONCE) as outer:
        handle = ResilientProvider("isolation-nested")
        with pytest.raises(KeyError), isolated_registry(ONCE) as inner:
            handle.breaker.open()
            assert inner.provider("isolation-nested").breaker.state is CircuitState.FORCED_OPEN
            raise KeyError
        assert default_registry() is outer
        assert handle.breaker.state is CircuitState.CLOSED


def test_the_environment_is_asked_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings the environment decides, as it does for the usual default."""
    monkeypatch.setenv("RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS", "7")
    with isolated_registry():
        assert ResilientProvider("isolation-env").settings.retry.max_attempts == 7


@pytest.mark.anyio
async def test_a_virtual_clock_is_the_loops() -> None:
    """The clock shows the time of the loop that runs."""
    clock = VirtualClock()
    await anyio.sleep(30)
    assert clock() == 30


def test_without_a_loop_the_clock_stands_still() -> None:
    """Outside of an event loop it shows what it showed last."""
    assert VirtualClock()() == 0
