"""SIGHUP means: read the settings anew."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from resilience.errors import ConfigurationError
from resilience.events import Event, SettingsReloaded
from resilience.registry import ProviderRegistry
from resilience.reloading import Reloader

pytestmark = [pytest.mark.anyio, pytest.mark.real_time]

Make = Callable[[], ProviderRegistry]


def put(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("before", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "handled"])
async def test_hangup(make: Make, file: Path, told: list[Event], before: signal.Handlers) -> None:
    """SIGHUP reads the file at once; afterwards the handler that was there before is there again."""
    registry, done = make(), anyio.Event()
    registry.subscribe(lambda _: done.set(), SettingsReloaded)
    original = signal.signal(signal.SIGHUP, before)
    try:
        async with Reloader(registry, environ={}, file=file, on_hangup=True):
            put(file, "max_providers = 11\n")
            os.kill(os.getpid(), signal.SIGHUP)
            with anyio.fail_after(10):
                await done.wait()
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, original)
    assert registry.settings.max_providers == 11
    (event,) = told
    assert isinstance(event, SettingsReloaded)
    assert event.source == "signal SIGHUP"


async def test_bad_file_on_hangup(make: Make, file: Path, told: list[Event]) -> None:
    """A file that makes no sense does not end the wait for signals."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, on_hangup=True):
        for text, count in (("nonsense = 1", 1), ("max_providers = 12", 2)):
            put(file, text)
            os.kill(os.getpid(), signal.SIGHUP)
            with anyio.fail_after(10):
                while len(told) < count:
                    await anyio.lowlevel.checkpoint()
    assert registry.settings.max_providers == 12


async def test_signals_reach_the_main_thread_only(make: Make, file: Path) -> None:
    """In another thread the wait for a signal is refused, with what to do instead."""
    caught: list[ConfigurationError] = []

    async def enter() -> None:
        async with Reloader(make(), environ={}, file=file, on_hangup=True):
            pass

    def elsewhere() -> None:
        try:
            anyio.run(enter)
        except ConfigurationError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    assert "signals reach the main thread only; watch the file instead" in str(caught[0])
