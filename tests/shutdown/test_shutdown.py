"""The shutdown itself: its steps, who waits for it, what it closes, what it tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import anyio
import pytest

from resilience import ConfigurationError, ProviderRegistry, Settings, ShutdownSettings, ShuttingDown
from resilience.events import ShutdownBegan, ShutdownEnded
from resilience.testing import cancelled_everywhere

pytestmark = pytest.mark.anyio


# -- who waits for it --------------------------------------------------------------------------------------------------


async def test_nothing_to_do(scene: Any) -> None:
    """A registry that nobody has used goes down at once."""
    assert not scene.registry.stopping
    report = await scene.shut_down()
    assert scene.registry.stopping
    assert asdict(report) == {
        "finished": 0,
        "interrupted": 0,
        "refused": 0,
        "abandoned": 0,
        "closed": 0,
        "unclosed": (),
        "seconds": 0,
    }


async def test_once_for_all(scene: Any) -> None:
    """Whoever asks while it is under way, or later, gets the same report; adapters are closed once."""
    closed = []

    async def close() -> None:
        await anyio.sleep(1)
        closed.append(True)

    scene.registry.on_close(close)

    async def later() -> object:
        await anyio.sleep(1)
        return await scene.registry.shutdown(grace=0, cancel=0, close=0)

    work = scene.under_way(work=lambda: scene.provider.execute(scene.work, 10))
    async with work, scene.under_way(first=scene.registry.shutdown, second=later):
        pass
    assert scene.end("first") is scene.end("second") is await scene.shut_down()
    assert scene.time("first") == scene.time("second")
    assert scene.end("work") == "done"
    assert closed == [True]
    assert len(scene.events.of(ShutdownBegan)) == len(scene.events.of(ShutdownEnded)) == 1


async def test_the_one_who_waits_goes_on_for_the_one_who_leaves(scene: Any) -> None:
    """If the task that shuts down is cancelled, another one that waits for it takes over."""

    async def leave() -> None:
        with anyio.move_on_after(2):
            await scene.registry.shutdown()

    work = scene.under_way(work=lambda: scene.provider.execute(scene.work, 10))
    async with work, scene.under_way(first=leave), scene.under_way(second=scene.registry.shutdown):
        pass
    assert scene.end("second").finished == 1
    assert scene.time("second") == pytest.approx(scene.time("work"))


async def test_cancelled_everywhere(scene: Any) -> None:
    """Wherever it is cancelled, the registry refuses from then on, and another shutdown brings it to its end."""
    for ending in cancelled_everywhere():
        provider, closed = scene.use(), []

        async def close(closed: list[bool] = closed) -> None:
            closed.append(True)
            await anyio.sleep(1)

        scene.registry.on_close(close)
        async with scene.under_way(
            short=lambda provider=provider: provider.execute(scene.work, 3),
            long=lambda provider=provider: provider.execute(scene.work, 300),
            waits=lambda provider=provider: provider.execute(scene.work, 0, fail=True),
        ):
            await ending(lambda: scene.registry.shutdown(grace=5))
            assert scene.registry.stopping, ending
            assert (await provider.try_execute(scene.work, 1)).rejected, ending
            assert len(closed) <= 1
            report = await scene.shut_down(grace=5)
        assert (scene.end("short"), scene.end("long").scope) == ("done", "shutdown"), ending
        assert isinstance(scene.end("waits"), ConnectionResetError), ending
        assert (report.finished, report.interrupted, report.abandoned) == (1, 1, 0), ending
        assert closed == [True], ending


async def test_within_an_attempt(scene: Any) -> None:
    """Whoever shuts down within a call waits for himself: he is interrupted like any other."""
    await scene.note("call", lambda: scene.provider.execute(scene.registry.shutdown, grace=3))
    assert scene.end().scope == "shutdown"
    assert scene.time() == 3
    assert scene.registry.stopping


async def test_other_registries(scene: Any) -> None:
    """One registry's end is not another one's."""
    await scene.shut_down()
    assert await scene.use().execute(scene.work, 1) == "done"


async def test_a_runtime_that_was_forgotten(scene: Any) -> None:
    """A call under way is waited for, even if its provider was forgotten meanwhile."""
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 5)) as began:
        runtime = scene.registry.runtimes.pop("s3")
        runtime.retire(lambda: scene.registry.runtime("s3"))
        assert (await scene.provider.try_execute(scene.work, 1)).ok
        report = await scene.shut_down()
        assert anyio.current_time() == began + 4
    assert report.finished == 1


@pytest.mark.parametrize("name", ["grace", "cancel", "close"])
async def test_times_that_make_no_sense(scene: Any, name: str) -> None:
    """They are refused before anything happens."""
    with pytest.raises(ConfigurationError, match=name):
        await scene.registry.shutdown(**{name: -1})
    assert not scene.registry.stopping


async def test_times_from_the_settings(scene: Any) -> None:
    """What is not given stands in the settings."""
    scene.use(shutdown=ShutdownSettings(grace=2, cancel=0, close=0))
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 100)):
        report = await scene.shut_down()
    assert (report.seconds, scene.end().limit) == (pytest.approx(2), 2)


# -- what it closes ----------------------------------------------------------------------------------------------------


async def test_adapters_are_closed_last(scene: Any) -> None:
    """They are there as long as calls may need them, and closed side by side."""
    order: list[tuple[str, float]] = []

    def closing(name: str, seconds: float) -> Callable[[], Awaitable[None]]:
        async def close() -> None:
            await anyio.sleep(seconds)
            order.append((name, anyio.current_time()))

        return close

    for name, seconds in {"one": 2, "two": 1, "three": 0}.items():
        scene.registry.on_close(closing(name, seconds))
    scene.registry.on_close(closing("taken back", 0))()
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 5)) as began:
        report = await scene.shut_down()
    ended = began + 4
    assert order == [("three", ended), ("two", ended + 1), ("one", ended + 2)]
    assert (report.closed, report.unclosed, report.seconds) == (3, (), pytest.approx(6))
    assert "3 adapters closed" in str(report)


async def test_adapters_that_cannot_be_closed(scene: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An error in one, or one that hangs or cannot be interrupted, breaks no other, and is told by name."""
    closed = []

    async def good() -> None:
        await anyio.sleep(1)
        closed.append(True)

    async def broken() -> None:
        raise OSError("no way")

    async def hangs() -> None:
        await anyio.sleep(1000)

    async def deaf() -> None:
        ends = anyio.current_time() + 50
        with anyio.CancelScope(shield=True):
            while (left := ends - anyio.current_time()) > 0:
                try:
                    await anyio.sleep(left)
                except asyncio.CancelledError:
                    continue

    for close in (broken, hangs, deaf, good):
        scene.registry.on_close(close)
    with caplog.at_level(logging.WARNING, "resilience.shutdown"):
        report = await scene.shut_down()
    assert (closed, report.closed, report.seconds) == ([True], 1, pytest.approx(5))
    assert [name.rpartition(".")[2] for name in report.unclosed] == ["broken", "hangs", "deaf"]
    assert not report.clean
    for name, what in {"broken": "failed to close", "hangs": "took too long", "deaf": "took too long"}.items():
        assert any(name in line and what in line for line in caplog.messages)
    await anyio.sleep(50)


async def test_it_is_too_late_to_register(scene: Any) -> None:
    """What could not be closed any more is refused, and so is what is no function."""
    with pytest.raises(TypeError, match="an async function"):
        scene.registry.on_close(scene.work(1).close())
    await scene.shut_down()
    with pytest.raises(RuntimeError, match="shut down already"):
        scene.registry.on_close(scene.work)


# -- what it tells -----------------------------------------------------------------------------------------------------


async def test_events(scene: Any) -> None:
    """Its begin and its end are told, with figures."""
    async with scene.under_way(
        short=lambda: scene.provider.execute(scene.work, 2),
        long=lambda: scene.provider.execute(scene.work, 100),
        waits=lambda: scene.provider.execute(scene.work, 0, fail=True),
    ):
        report = await scene.shut_down(grace=7)
    began, ended = scene.events.of(ShutdownBegan)[0], scene.events.of(ShutdownEnded)[0]
    assert (began.provider, began.grace, began.in_flight, began.waiting) == ("", 7, 2, 1)
    assert {name: getattr(ended, name) for name in asdict(report)} == asdict(report)
    assert (ended.finished, ended.interrupted) == (1, 1)
    assert str(report) == (
        "attempts: 1 finished, 1 interrupted, 0 abandoned; 0 calls refused; 0 adapters closed; took 7 s"
    )


async def test_a_listener_sees_it_stopping(scene: Any) -> None:
    """When the begin is told no call is admitted any more: health may say so."""
    seen = []
    scene.registry.subscribe(lambda _: seen.append(scene.registry.stopping), ShutdownBegan)
    await scene.shut_down()
    assert seen == [True]


# -- as a block --------------------------------------------------------------------------------------------------------


async def test_a_block(scene: Any) -> None:
    """The registry goes down when the block is left."""
    async with scene.registry.lifespan(grace=1):
        assert await scene.provider.execute(scene.work, 1) == "done"
        assert not scene.registry.stopping
    with pytest.raises(ShuttingDown):
        await scene.provider.execute(scene.work, 1)


async def test_a_block_that_fails(scene: Any) -> None:
    """Its error comes out, after the shutdown."""
    with pytest.raises(KeyError):
        async with scene.registry.lifespan():
            raise KeyError
    assert scene.registry.stopping


async def test_a_block_that_is_cancelled(scene: Any) -> None:
    """Calls of others have their grace all the same."""
    async with scene.under_way(call=lambda: scene.provider.execute(scene.work, 5)) as began:
        with anyio.move_on_after(1) as scope:
            async with scene.registry.lifespan():
                await anyio.sleep(100)
        assert scope.cancelled_caught
        assert anyio.current_time() == began + 4
    assert scene.end() == "done"


async def test_as_the_lifespan_of_an_application(scene: Any) -> None:
    """Starlette and FastAPI take it as it is."""
    from starlette.applications import Starlette

    application = Starlette(lifespan=scene.registry.lifespan)
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": next(messages)}

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await application({"type": "lifespan", "app": application, "asgi": {}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert scene.registry.stopping


async def test_the_settings_of_a_registry() -> None:
    """They are part of the settings as a whole, so a file can hold them."""
    settings = Settings.model_validate({"shutdown": {"grace": "2s"}})
    assert settings.shutdown.grace == 2
    assert (await ProviderRegistry(settings).shutdown()).clean
