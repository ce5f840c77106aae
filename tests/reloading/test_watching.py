"""A settings file that is watched: what counts as a change, and what is never taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from resilience.events import Event, SettingsRefused, SettingsReloaded
from resilience.registry import ProviderRegistry
from resilience.reloading import Reloader, drifting
from resilience.settings import ReloadSettings, Settings
from resilience.telemetry import names
from resilience.telemetry._collect import collector

pytestmark = pytest.mark.anyio

Make = Callable[[], ProviderRegistry]


def put(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="utf-8")


LOOK = 2.0  # seconds, the default of reload.interval


async def test_a_change_is_taken(make: Make, file: Path, told: list[Event]) -> None:
    """A change of the file holds after two looks that found the same, and says that it came from the file."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, watch=True):
        await anyio.sleep(9.5 * LOOK)
        assert told == []
        put(file, "max_providers = 11\n")
        await anyio.sleep(LOOK)
        assert registry.settings.max_providers == 10
        await anyio.sleep(LOOK)
        assert registry.settings.max_providers == 11
        await anyio.sleep(10 * LOOK)
    (event,) = told
    assert isinstance(event, SettingsReloaded)
    assert event.source == f"file {file}"


async def test_a_file_that_is_being_written(make: Make, file: Path, told: list[Event]) -> None:
    """A file that differs from look to look is half written: neither taken nor refused."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, watch=True):
        await anyio.sleep(LOOK / 2)
        for length in range(1, 8):
            put(file, "max_pro"[:length])
            await anyio.sleep(LOOK)
        assert told == []
        put(file, "max_providers = 12")
        await anyio.sleep(2 * LOOK)
    assert registry.settings.max_providers == 12
    assert len(told) == 1


async def test_a_change_under_our_eyes(
    make: Make, file: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written while it is read is looked at again, whether what was read was valid or not."""
    registry, read, writes = make(), Settings.from_environment, ["max_providers = 13", "nonsense = 1"]

    def reading(*args: Any, **kwargs: Any) -> Settings:
        if writes:
            put(file, writes.pop())
        return read(*args, **kwargs)

    monkeypatch.setattr(Settings, "from_environment", reading)
    async with Reloader(registry, environ={}, file=file, watch=True):
        put(file, "max_providers = 12\n")
        await anyio.sleep(20 * LOOK)
    assert registry.settings.max_providers == 13
    assert len(told) == 1


async def test_a_bad_file_is_told_once(make: Make, file: Path, told: list[Event]) -> None:
    """A file that makes no sense changes nothing, is told once, and is left behind when it is mended."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, watch=True):
        put(file, "max_providers = 0\n")
        await anyio.sleep(20 * LOOK)
        assert registry.settings.max_providers == 10
        assert [type(event) for event in told] == [SettingsRefused]
        put(file, "max_providers = 14\n")
        await anyio.sleep(3 * LOOK)
    assert registry.settings.max_providers == 14


async def test_a_file_that_goes_away(make: Make, file: Path, told: list[Event]) -> None:
    """A file that is removed changes nothing, and says so; when it is back it is taken."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, watch=True):
        put(file, None)
        await anyio.sleep(5 * LOOK)
        (event,) = told
        assert isinstance(event, SettingsRefused)
        assert "No such file" in event.problem
        assert registry.settings.max_providers == 10
        put(file, "max_providers = 15\n")
        await anyio.sleep(3 * LOOK)
    assert registry.settings.max_providers == 15


async def test_a_directory_swapped_by_a_link(make: Make, tmp_path: Path) -> None:
    """The way Kubernetes updates a mounted ConfigMap, by swapping a link to a directory, is noticed."""
    for name, count in (("v1", 1), ("v2", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.toml").write_text(f"max_providers = {count}\n")
    (tmp_path / "..data").symlink_to("v1")
    file = tmp_path / "x.toml"
    file.symlink_to("..data/x.toml")
    registry = ProviderRegistry(Settings.from_environment({}, file=file))
    async with Reloader(registry, environ={}, file=file, watch=True):
        (tmp_path / "..new").symlink_to("v2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        await anyio.sleep(3 * LOOK)
    assert registry.settings.max_providers == 2


async def test_same_size_and_time(make: Make, file: Path) -> None:
    """What counts is what is in the file, not its time or its size."""
    registry = make()
    time = os.stat(file).st_mtime_ns  # noqa: PTH116 - what pathlib offers is refused in async functions
    async with Reloader(registry, environ={}, file=file, watch=True):
        put(file, "max_providers = 19\n")
        os.utime(file, ns=(time, time))
        await anyio.sleep(3 * LOOK)
    assert registry.settings.max_providers == 19


async def test_back_to_what_it_was(make: Make, file: Path, told: list[Event]) -> None:
    """A change that is taken back between two looks is none."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, watch=True):
        before = "max_providers = 10\n"
        await anyio.sleep(LOOK / 2)
        put(file, "max_providers = 19\n")
        await anyio.sleep(LOOK)
        put(file, before)
        await anyio.sleep(5 * LOOK)
    assert told == []


async def test_watching_is_a_setting(make: Make, file: Path) -> None:
    """Whether and how often the file is looked at are settings, and can be read anew themselves."""
    registry = make()
    async with Reloader(registry, environ={}, file=file) as reloader:
        put(file, "max_providers = 11\n")
        await anyio.sleep(10 * LOOK)
        assert registry.settings.max_providers == 10
        put(file, "max_providers = 12\nreload = { watch = true, interval = 60 }\n")
        reloader.reload()
        await anyio.sleep(LOOK)
        put(file, "max_providers = 13\n")
        await anyio.sleep(65)
        assert registry.settings.max_providers == 12
        await anyio.sleep(60)
        assert registry.settings.max_providers == 13
        assert not registry.settings.reload.watch


async def test_nothing_to_watch(caplog: pytest.LogCaptureFixture) -> None:
    """Settings that ask for a watch where there is no file do no harm, and it is said."""
    registry = ProviderRegistry(Settings(reload=ReloadSettings(watch=True)))
    async with Reloader(registry, environ={}):
        await anyio.sleep(10 * LOOK)
    assert [record.getMessage() for record in caplog.records] == ["reload.watch is on, and there is no file to watch"]


async def test_no_second_time(make: Make, file: Path, told: list[Event]) -> None:
    """What was taken by call is not taken again by the watch."""
    registry = make()
    async with Reloader(registry, environ={}, file=file, watch=True) as reloader:
        put(file, "max_providers = 11\n")
        reloader.reload()
        await anyio.sleep(10 * LOOK)
    assert len(told) == 1


async def test_errors_of_others(make: Make, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours is logged with its traceback, and the watch goes on."""
    registry = make()
    reads = iter([RuntimeError("a bug")])

    class Broken:
        settings = registry.settings
        subscribe = registry.subscribe
        _tools = registry._tools
        bus = registry.bus

        def reload(self, settings: Settings, *, source: str) -> tuple[object, ...]:
            for error in reads:
                raise error
            return registry.reload(settings, source=source)

    async with Reloader(Broken(), environ={}, file=file, watch=True):
        put(file, "max_providers = 11\n")
        await anyio.sleep(3 * LOOK)
        assert "settings could not be reloaded" in caplog.text
        put(file, "max_providers = 12\n")
        await anyio.sleep(3 * LOOK)
    assert registry.settings.max_providers == 12


async def test_drifting(make: Make, file: Path) -> None:
    """How far the files of all reloaders at work differ from what runs is one number, and a metric meanwhile."""
    registry = make()
    assert drifting() is None
    async with Reloader(registry, environ={}, file=file, watch=False) as reloader:
        assert collector.numbers(names.DRIFT) == {(): 0}
        put(file, "max_providers = 11\nenabled = false\n")
        assert drifting() == 2
        assert collector.numbers(names.DRIFT) == {(): 2}
        reloader.reload()
        assert drifting() == 0
    assert collector.numbers(names.DRIFT) == {}


async def test_nothing_is_left_behind(make: Make, file: Path, told: list[Event]) -> None:
    """After the block nothing watches any more, and it can be entered again."""
    registry = make()
    reloader = Reloader(registry, environ={}, file=file, watch=True)
    async with reloader:
        with pytest.raises(RuntimeError, match="at work already"):
            await reloader.__aenter__()
    put(file, "max_providers = 11\n")
    await anyio.sleep(10 * LOOK)
    assert told == []
    async with reloader:
        await anyio.sleep(3 * LOOK)
    assert registry.settings.max_providers == 11


async def test_an_error_of_the_block_comes_out_as_it_is(make: Make, file: Path) -> None:
    """What the block raises is not wrapped, and a cancellation around it is not swallowed."""
    registry = make()
    with pytest.raises(KeyError):
        async with Reloader(registry, environ={}, file=file, watch=True):
            raise KeyError
    with anyio.move_on_after(5) as scope:
        async with Reloader(registry, environ={}, file=file, watch=True):
            await anyio.sleep(100)
    assert scope.cancelled_caught
