"""Which providers there are: isolated names, independent registries, a bound that loses nothing of worth."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from resilience import (
    BreakerSettings,
    CircuitState,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    RetrySettings,
    Settings,
    eviction,
)
from resilience import registry as registry_module
from resilience.errors import CircuitOpen, ConfigurationError, ProviderGated
from resilience.process import meter_calls
from resilience.runtime import ProviderRuntime
from resilience.testing import EventRecorder

pytestmark = pytest.mark.anyio


@pytest.fixture
async def clock(anyio_backend_name: str) -> Callable[[], float]:
    return asyncio.get_running_loop().time if anyio_backend_name == "asyncio" else trio.current_time


@pytest.fixture
async def small(clock: Callable[[], float]) -> ProviderRegistry:
    """A registry for three providers that do not retry."""
    breaker = BreakerSettings(failure_threshold=1, jitter=0)
    defaults = ProviderSettings(retry=RetrySettings(enabled=False), breaker=breaker)
    return ProviderRegistry(Settings(defaults=defaults, max_providers=3), clock=clock, wall_clock=lambda: 1e9)


class Busy(Exception):
    """A rate limit, as SDKs raise it."""

    status_code = 429

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.headers = {"retry-after": str(seconds)}


async def ok() -> str:
    return "fine"


async def fail() -> None:
    raise ConnectionError


async def busy(seconds: int = 60) -> None:
    raise Busy(seconds)


# -- isolation ---------------------------------------------------------------------------------------------------------


async def test_two_handles_of_one_name_share_everything(small: ProviderRegistry) -> None:
    """What one learns, the other knows."""
    one, other = small.provider("a"), ResilientProvider("a", registry=small)
    await one.try_execute(fail)
    assert (await other.try_execute(ok)).rejected
    assert one.snapshot() == other.snapshot()


async def test_two_names_share_nothing(small: ProviderRegistry) -> None:
    """One provider's open circuit, closed gate and failures are nobody else's."""
    bad, gated, good = (small.provider(name) for name in ("bad", "gated", "good"))
    before = good.snapshot()
    await bad.try_execute(fail)
    await gated.try_execute(busy)
    assert good.snapshot() == before
    assert await good.execute(ok) == "fine"
    assert (bad.breaker.state, gated.breaker.state) == (CircuitState.OPEN, CircuitState.CLOSED)
    with pytest.raises(ProviderGated):
        await gated.execute(ok)


async def test_two_registries_share_nothing(clock: Callable[[], float]) -> None:
    """The same name in two registries is two providers, with settings of their own."""
    strict, mild = (
        ProviderRegistry(
            Settings(providers={"a": ProviderSettings(breaker=BreakerSettings(failure_threshold=threshold))}),
            clock=clock,
        )
        for threshold in (1, 3)
    )
    for registry in (strict, mild):
        await registry.provider("a").with_options(retry=False).try_execute(fail)
    assert strict.provider("a").breaker.state is CircuitState.OPEN
    assert mild.provider("a").breaker.state is CircuitState.CLOSED


async def test_a_listener_hears_its_own_registry_only(small: ProviderRegistry, clock: Callable[[], float]) -> None:
    """Every provider of it, endpoints included, and none of another registry."""
    events = EventRecorder()
    stop = small.subscribe(events)
    await small.provider("a").try_execute(fail)
    await small.provider("a", endpoint="eu").try_execute(fail)
    await ProviderRegistry(clock=clock).provider("b").with_options(retry=False).try_execute(fail)
    assert [change.provider for change in events.transitions] == ["a", "a/eu"]
    stop()
    await small.provider("c").try_execute(fail)
    assert len(events.transitions) == 2


async def test_a_registry_tells_whom_it_knows(small: ProviderRegistry) -> None:
    """Names in, names out; the repr says how full it is."""
    for name, endpoint in (("b", None), ("a", "eu-west-1"), ("a", None)):
        small.provider(name, endpoint=endpoint)
    assert (list(small), len(small)) == (["b", "a/eu-west-1", "a"], 3)
    assert ("a" in small, "a/eu-west-1" in small, "a/us" in small, "c" in small) == (True, True, False, False)
    assert repr(small) == "<ProviderRegistry 3 of at most 3 providers, 0 busy>"
    await small.provider("a").try_execute(fail)
    assert repr(small) == "<ProviderRegistry 3 of at most 3 providers, 1 busy>"


# -- endpoints ---------------------------------------------------------------------------------------------------------


async def test_an_endpoint_has_a_breaker_of_its_own(small: ProviderRegistry) -> None:
    """A region that fails takes neither its provider nor another region along."""
    whole, eu, us = small.provider("a"), small.provider("a", endpoint="eu"), small.provider("a", endpoint="us")
    await eu.try_execute(fail)
    assert [one.breaker.state.value for one in (whole, eu, us)] == ["closed", "open", "closed"]
    with pytest.raises(CircuitOpen, match=r"^a/eu: circuit open, 1 failure in a row, next probe in "):
        await eu.execute(ok)
    assert await us.execute(ok) == await whole.execute(ok) == "fine"


async def test_endpoints_share_the_providers_gate(small: ProviderRegistry) -> None:
    """A provider that asks for a pause means all of it; handles that were on the fast path notice."""
    eu, us = small.provider("a", endpoint="eu"), small.provider("a", endpoint="us")
    for one in (eu, us, us):
        await one.execute(ok)
    await eu.try_execute(busy)
    for one in (us, small.provider("a")):
        with pytest.raises(ProviderGated):
            await one.execute(ok)
    await anyio.sleep(62)
    assert await us.execute(ok) == "fine"


async def test_endpoints_share_the_retry_budget(clock: Callable[[], float]) -> None:
    """What one endpoint spends on retries, the other cannot spend."""
    registry = ProviderRegistry(clock=clock)
    eu, us = registry.provider("a", endpoint="eu"), registry.provider("a", endpoint="us")
    before = us.snapshot().retries_available
    await eu.with_options(retry=RetrySettings(max_attempts=3, jitter="none", base_delay=0.001)).try_execute(fail)
    assert us.snapshot().retries_available == before - 2
    assert us.snapshot().calls == 1


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "openai", "s3.eu-west-1", "my_service", "0", "-", "a" * 200])
async def test_good_names(small: ProviderRegistry, name: str) -> None:
    """Whatever is made of the letters allowed."""
    assert small.provider(name).name == name


@pytest.mark.parametrize(
    "name, suggestion",
    [
        ("OpenAI", "openai"),
        ("my service", "my-service"),
        ("openai/eu", "openai-eu"),
        ("https://api.openai.com/v1", "https-api.openai.com-v1"),
        ("", "openai"),
        ("Ünïcode", "n-code"),
        ("a\n", "a"),
        (None, "openai"),
        (3, "openai"),
        (["a"], "openai"),
    ],
)
async def test_bad_names_come_back_with_a_good_one(small: ProviderRegistry, name: Any, suggestion: str) -> None:
    """The message shows what was passed and a name that would do."""
    with pytest.raises(ConfigurationError) as caught:
        small.provider(name)
    assert str(caught.value) == f"{name!r} is no provider name: use {suggestion!r}, from a-z, 0-9, '_', '.' and '-'"
    assert len(small) == 0


@pytest.mark.parametrize("endpoint", ["", "eu west", "eu/west", 5, ["eu"], "https://x"])
async def test_bad_endpoints_are_refused(small: ProviderRegistry, endpoint: Any) -> None:
    """Also if a good endpoint looks alike."""
    small.provider("a", endpoint="5")
    with pytest.raises(ConfigurationError, match=r"is no endpoint name: use letters, digits, .* such as 'eu-west-1'"):
        small.provider("a", endpoint=endpoint)


async def test_a_name_is_never_taken_for_an_endpoint(small: ProviderRegistry) -> None:
    """Names that come from requests cannot reach into another provider, whatever is known already."""
    small.provider("openai", endpoint="eu")
    with pytest.raises(ConfigurationError, match="'openai/eu' is no provider name: use 'openai-eu'"):
        ResilientProvider("openai/eu", registry=small)


async def test_bad_settings_are_refused() -> None:
    """Settings for one provider are the likely slip."""
    with pytest.raises(ConfigurationError, match=r"takes Settings\(\.\.\.\), not ProviderSettings: .*providers=\{name"):
        ProviderRegistry(ProviderSettings())  # type: ignore[arg-type]


# -- the bound ---------------------------------------------------------------------------------------------------------


async def test_the_longest_unused_is_forgotten_first(small: ProviderRegistry) -> None:
    """Those in use have a second chance."""
    for name in ("a", "b", "c", "d"):
        await small.provider(name).execute(ok)
    assert "d" in small
    kept = [name for name in small if name != "d"]
    await small.provider(kept[0]).execute(ok)
    await small.provider("e").execute(ok)
    assert (kept[0] in small, kept[1] in small, len(small)) == (True, False, 3)


async def hold(provider: ResilientProvider, task_status: anyio.abc.TaskStatus[None]) -> None:
    async def wait() -> None:
        task_status.started()
        await anyio.sleep_forever()

    await provider.execute(wait)


async def churn(registry: ProviderRegistry, times: int = 20) -> None:
    for number in range(times):
        await registry.provider(f"new{number}").execute(ok)


async def test_what_is_worth_remembering_is_not_forgotten(small: ProviderRegistry) -> None:
    """An open circuit, a closed gate and a call in flight stay, whatever else comes."""
    await small.provider("open").try_execute(fail)
    await small.provider("gated").try_execute(busy)
    async with anyio.create_task_group() as group:
        await group.start(hold, small.provider("busy"))
        await churn(small)
        assert {"open", "gated", "busy"} <= set(small)
        assert len(small) == 4, "the bound gives way by one"
        group.cancel_scope.cancel()
    assert (await small.provider("open").try_execute(ok)).rejected


async def test_a_call_that_waits_for_its_retry_is_under_way(clock: Callable[[], float]) -> None:
    """Its provider is not forgotten between two attempts, and the failures of both count together."""
    defaults = ProviderSettings(retry=RetrySettings(jitter="none", base_delay=10))
    registry = ProviderRegistry(Settings(defaults=defaults, max_providers=3), clock=clock)
    async with anyio.create_task_group() as group:
        group.start_soon(registry.provider("sick").try_execute, fail)
        await anyio.sleep(5)
        await churn(registry)
        assert "sick" in registry
    assert registry.provider("sick").breaker.snapshot().failures_in_a_row == 3
    await churn(registry, 3)
    await churn(registry)
    assert "sick" not in registry


@pytest.mark.parametrize("what", ["opened by hand", "closed by hand"])
async def test_what_an_operator_did_is_not_forgotten(clock: Callable[[], float], what: str) -> None:
    """A provider whose circuit is not what its settings ask for stays."""
    mode = "enforce" if what == "opened by hand" else "forced_open"
    special = ProviderSettings(breaker=BreakerSettings(mode=mode))
    registry = ProviderRegistry(Settings(max_providers=3, providers={"special": special}), clock=clock)
    breaker = registry.provider("special").breaker
    breaker.open() if what == "opened by hand" else breaker.close()
    await churn(registry)
    assert registry.provider("special").breaker is breaker


@pytest.mark.parametrize("mode", ["forced_open", "disabled"])
async def test_a_state_that_the_settings_ask_for_is_no_reason_to_stay(clock: Callable[[], float], mode: Any) -> None:
    """It would come back as it was."""
    defaults = ProviderSettings(breaker=BreakerSettings(mode=mode))
    registry = ProviderRegistry(Settings(max_providers=3, defaults=defaults), clock=clock)
    for number in range(10):
        await registry.provider(f"a{number}").try_execute(ok)
    assert len(registry) == 3


async def test_circuits_that_nobody_comes_to_probe_are_forgotten_at_last(small: ProviderRegistry) -> None:
    """Names made from request data that all fail do not fill the memory: once their open time is over they may go."""
    for number in range(10):
        await small.provider(f"dead{number}").try_execute(fail)
    await anyio.sleep(50)
    await small.provider("fresh").try_execute(fail)
    assert len(small) == 11
    await anyio.sleep(10)
    assert await small.provider("dead5").execute(ok) == "fine"
    await churn(small)
    assert len(small) == 3
    assert small.provider("fresh").breaker.state is CircuitState.OPEN


async def test_the_first_whose_open_time_was_over_is_forgotten_first(small: ProviderRegistry) -> None:
    """Also if a probe made it half-open and no second one came; one that is being probed stays."""
    for name in ("half", "open", "probed"):
        await small.provider(name).try_execute(fail)
        await anyio.sleep(1)
    await anyio.sleep(60)
    await small.provider("half").execute(ok)
    async with anyio.create_task_group() as group:
        await group.start(hold, small.provider("probed"))
        for gone in ("half", "open"):
            await small.provider(f"instead of {gone}".replace(" ", "-")).try_execute(fail)
            assert gone not in small
        await churn(small)
        assert "probed" in small
        group.cancel_scope.cancel()


async def test_a_burst_of_busy_providers_is_worked_off(
    small: ProviderRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """The registry grows while all are busy, says so once, and comes back to its bound afterwards."""
    async with anyio.create_task_group() as group:
        for number in range(10):
            await group.start(hold, small.provider(f"busy{number}"))
        group.cancel_scope.cancel()
    assert len(small) == 10
    await churn(small, 1)
    assert len(small) == 3
    warnings = [record.getMessage() for record in caplog.records if record.name == "resilience.registry"]
    assert warnings == [
        "all 3 providers are busy: the registry grows beyond its bound. Are names made from request data?"
    ]


async def test_handles_outlive_the_forgetting(small: ProviderRegistry) -> None:
    """An old handle finds the successor and shares it with new handles; its options stay."""
    old = small.provider("a")
    view = old.with_options(operation="embeddings", timeout=7)
    endpoint = small.provider("a", endpoint="eu")
    for one in (old, view, endpoint):
        await one.execute(ok)
    await churn(small)
    assert "a" not in small
    assert "a/eu" not in small
    assert await old.execute(ok) == "fine"
    assert "a" in small
    await view.try_execute(fail)
    new = small.provider("a")
    assert (old.breaker is new.breaker, view.breaker is new.breaker) == (True, True)
    for one in (old, view, new):
        assert (await one.try_execute(ok)).rejected
    assert (endpoint.name, await endpoint.execute(ok)) == ("a/eu", "fine")
    assert endpoint.breaker is small.provider("a", endpoint="eu").breaker
    new.breaker.close()
    with pytest.raises(TimeoutError, match=r"^a\.embeddings: .* timed out after 7 s"):
        await view.execute(anyio.sleep_forever)


@pytest.mark.parametrize("endpoints", [False, True])
async def test_ten_thousand_names_stay_bounded(
    clock: Callable[[], float], endpoints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names or endpoints made from request data: as many as allowed are kept, without a scan for each new one."""
    registry = ProviderRegistry(Settings(max_providers=64), clock=clock)
    looks, used = [0], eviction.used

    def look(runtime: ProviderRuntime) -> int:
        looks[0] += 1
        return used(runtime)

    monkeypatch.setattr(eviction, "used", look)
    for number in range(10_000):
        name, endpoint = ("a", f"user{number}") if endpoints else (f"user{number}", None)
        await registry.provider(name, endpoint=endpoint).execute(ok)
    assert len(registry) == 64
    assert len(registry._commons) == (1 if endpoints else 64)
    assert looks[0] < 3 * 10_000


async def test_an_idle_provider_weighs_at_most_6_kib() -> None:
    """Called once and idle: breaker, window, gate, budget, and what the event loop keeps for it."""
    meter_calls(False)  # durations weigh more, where somebody wants them
    registry = ProviderRegistry(Settings())
    await registry.provider("first").execute(ok)  # what is made once for all of them
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(500):
            await registry.provider(f"provider-{number}").execute(ok)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 500 <= 6 * 1024


# -- the default registry ----------------------------------------------------------------------------------------------

SCENE = textwrap.dedent(
    """
    import json, os
    import resilience
    from resilience import ConfigurationError, ResilientProvider

    seen = {}
    os.environ["CIRCUIT_BREAKER_FAILURE_THRESHOLD"] = "many"  # nobody looks before the first provider
    for _ in range(2):
        try:
            ResilientProvider("openai")
        except ConfigurationError as error:
            seen["refused"] = "CIRCUIT_BREAKER_FAILURE_THRESHOLD" in str(error) and "many" in str(error)
    os.environ["CIRCUIT_BREAKER_FAILURE_THRESHOLD"] = "3"
    os.environ["RESILIENCE_PROVIDERS__OPENAI__BREAKER__FAILURE_THRESHOLD"] = "7"
    threshold = lambda name: ResilientProvider(name).breaker.settings.failure_threshold
    seen["read"] = [threshold("openai"), threshold("other")]
    os.environ["CIRCUIT_BREAKER_FAILURE_THRESHOLD"] = "4"
    seen["read once"] = threshold("third")
    seen["one"] = ResilientProvider("openai").breaker is ResilientProvider("openai").breaker
    mine = resilience.ProviderRegistry()
    seen["apart"] = ResilientProvider("openai", registry=mine).breaker is ResilientProvider("openai").breaker
    print(json.dumps(seen))
    """
)


def test_the_default_registry_is_made_from_the_environment_when_it_is_first_needed() -> None:
    """Importing reads nothing; a mistake is refused when a provider is made, and can be put right; then it is kept."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RESILIENCE", "CIRCUIT"))}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCENE], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "refused": True,
        "read": [7, 3],
        "read once": 3,
        "one": True,
        "apart": False,
    }


def test_the_default_registry_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody who asks gets the same one, with the settings of the moment at which it was made."""
    monkeypatch.setattr(registry_module, "_default", None)
    monkeypatch.setattr(registry_module, "known", {})
    monkeypatch.setenv("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "9")
    registry = registry_module.default_registry()
    monkeypatch.setenv("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "8")
    assert registry_module.default_registry() is registry
    assert registry.provider("s3").breaker.settings.failure_threshold == 9
