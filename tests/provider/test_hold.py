"""An attempt that stays open after its function has returned: on the fast path and away from it."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from typing import Any

import anyio
import pytest

from resilience import CallTimeout, CircuitState, ProviderRegistry
from resilience.failure import FailureKind, Verdict
from resilience.testing import virtual_backend

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("warm", [False, True], ids=["looks closer", "fast"])

ONE = {"failure_threshold": 1, "failure_rate": None}


@both
class TestHold:
    """The outcome of a held attempt is told when it ends, and once."""

    async def test_success_is_told_at_the_end(self, world: Any, warm: bool) -> None:
        """Until it ends nothing is counted; then it is a success."""
        provider = await world.warm(world.provider(), warm=warm)
        before = provider.snapshot().breaker.calls
        hold = await provider.hold(world.script("value"))
        assert hold.value == "value"
        assert provider.snapshot().breaker.calls == before
        for _ in range(2):
            assert hold.end() is None
        assert provider.snapshot().breaker.calls == before + 1
        assert provider.snapshot().calls == int(warm) + 1

    async def test_it_is_interrupted_at_its_limit(self, world: Any, warm: bool) -> None:
        """Also when nothing had to be watched for a while before; one that answers all the same is kept."""
        provider = await world.warm(world.provider(retry={"enabled": False}), warm=warm)
        await anyio.sleep(300)
        began = anyio.current_time()
        with pytest.raises(CallTimeout):
            await provider.hold(world.script("never", seconds=1000))
        assert anyio.current_time() - began == pytest.approx(30)
        assert provider.snapshot().in_flight == 0

    @pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["asyncio"])
    async def test_a_late_answer_is_kept(self, world: Any, warm: bool) -> None:
        """Of a function that answers although it was interrupted; trio lets nobody do so."""
        provider = await world.warm(world.provider(), warm=warm)
        task = asyncio.current_task()

        async def stubborn() -> str:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
            await asyncio.sleep(1)
            return "late"

        hold = await provider.hold(stubborn)
        assert (hold.value, task.cancelling()) == ("late", 0)
        hold.end()
        assert provider.snapshot().in_flight == 0

    async def test_an_error_afterwards_is_evidence(self, world: Any, warm: bool) -> None:
        """What goes wrong while it is held is classified, and counts against the provider."""
        provider = await world.warm(world.provider(breaker=ONE), warm=warm)
        hold = await provider.hold(world.script("value"))
        failure = hold.end(ConnectionResetError())
        assert failure is not None
        assert (failure.kind, failure.attempts, failure.provider) == (FailureKind.CONNECTION_ERROR, 1, "openai")
        assert provider.breaker.state is CircuitState.OPEN

    async def test_leaving_early_says_nothing(self, world: Any, warm: bool) -> None:
        """An end that is nobody's failure is neither a success nor a failure."""
        provider = await world.warm(world.provider(breaker=ONE), warm=warm)
        hold = await provider.hold(world.script("value"))
        before = provider.breaker.snapshot()
        assert hold.end(GeneratorExit()) is None
        after = provider.breaker.snapshot()
        assert (after.calls, after.failed) == (before.calls, before.failed)

    async def test_slow_is_evidence(self, world: Any, warm: bool) -> None:
        """An attempt whose function was slow can be told as slow, though it succeeded."""
        provider = await world.warm(world.provider(breaker={"slow_after": 1.0}), warm=warm)
        hold = await provider.hold(world.script("value", seconds=2.0))
        assert hold.slow
        hold.end(slow=hold.slow)
        assert provider.breaker.snapshot().slow == 1
        hold = await provider.hold(world.script("value", seconds=0.5))
        assert not hold.slow
        hold.end(slow=hold.slow)
        assert provider.breaker.snapshot().slow == 1

    async def test_failed_attempts_before_it(self, world: Any, warm: bool) -> None:
        """A first attempt that fails is tried again, and what is held then is the second one."""
        provider = await world.warm(world.provider(), warm=warm)
        hold = await provider.hold(world.script(ConnectionResetError, "value"))
        assert hold.value == "value"
        hold.end()
        assert provider.snapshot().recovered == 1

    async def test_the_last_error_comes_out(self, world: Any, warm: bool) -> None:
        """When no attempt succeeds there is nothing to hold."""
        provider = await world.warm(world.provider(), warm=warm)
        with pytest.raises(ConnectionResetError):
            await provider.hold(world.script(ConnectionResetError))

    async def test_our_limit_interrupts_the_function_only(self, world: Any, warm: bool) -> None:
        """The attempt timeout holds until the function returns, and not any longer."""
        provider = await world.warm(world.provider(timeout={"attempt": 1.0}, retry={"enabled": False}), warm=warm)
        with pytest.raises(TimeoutError):
            await provider.hold(world.script("value", seconds=2.0))
        hold = await provider.hold(world.script("value"))
        await anyio.sleep(5)
        hold.end()
        assert provider.snapshot().in_flight == 0

    async def test_an_end_after_the_circuit_has_opened(self, world: Any, warm: bool) -> None:
        """What belongs to an earlier period decides nothing any more."""
        provider = await world.warm(world.provider(), warm=warm)
        hold = await provider.hold(world.script("value"))
        await world.trip(provider)
        hold.end()
        assert provider.breaker.state is CircuitState.OPEN
        assert provider.breaker.snapshot().stale_results == 1

    async def test_a_dropped_one_is_told(self, world: Any, warm: bool) -> None:
        """Whoever forgets to end it is warned, and the provider is not blamed."""
        provider = await world.warm(world.provider(breaker=ONE), warm=warm)

        async def forget() -> None:
            await provider.hold(world.script("value"))
            gc.collect()  # not every Python counts references

        with pytest.warns(ResourceWarning, match="without end"):
            await forget()
        assert provider.breaker.state is CircuitState.CLOSED
        assert not provider._runtime.held

    async def test_ended_in_another_thread(self, world: Any, warm: bool) -> None:
        """It may end in another thread than it began in."""
        provider = await world.warm(ProviderRegistry().provider("openai"), warm=warm)  # the clock of every thread
        before = provider.snapshot().breaker.calls
        hold = await provider.hold(world.script("value"))
        thread = threading.Thread(target=hold.end, kwargs={"verdict": Verdict.SUCCESS})
        thread.start()
        thread.join()
        assert provider.snapshot().breaker.calls == before + 1

    async def test_inside_a_call(self, world: Any, warm: bool) -> None:
        """A hold inside a call of the same provider is an attempt of its own."""
        provider = await world.warm(world.provider(), warm=warm)

        async def outer() -> str:
            hold = await provider.hold(world.script("inner"))
            hold.end()
            value: str = hold.value
            return value

        assert await provider.execute(outer) == "inner"

    async def test_as_a_block(self, world: Any, warm: bool) -> None:
        """Its block ends it, with the error that leaves the block."""
        provider = await world.warm(world.provider(breaker=ONE), warm=warm)
        async with await provider.hold(world.script("value")) as value:
            assert value == "value"
        with pytest.raises(ConnectionResetError):
            async with await provider.hold(world.script("value")):
                raise ConnectionResetError
        assert provider.breaker.state is CircuitState.OPEN
