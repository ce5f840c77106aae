"""What the tests of reloading share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from resilience.events import Event, SettingsRefused, SettingsReloaded, subscribe
from resilience.registry import ProviderRegistry
from resilience.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file that says little."""
    path = tmp_path / "resilience.toml"
    path.write_text("max_providers = 10\n", encoding="utf-8")
    return path


@pytest.fixture
def make(file: Path, request: pytest.FixtureRequest) -> Callable[[], ProviderRegistry]:
    """Make a registry with the settings of the file, on virtual time if there is any."""
    clock = anyio.current_time if "anyio_backend" in request.fixturenames else time.monotonic

    def make() -> ProviderRegistry:
        settings = Settings.from_environment({}, file=file)
        return ProviderRegistry(settings, clock=clock, wall_clock=lambda: 1000.0)

    return make


@pytest.fixture
def told() -> Iterator[list[Event]]:
    """Everything that is told of settings in this process."""
    heard: list[Event] = []
    unsubscribe = subscribe(heard.append, SettingsReloaded, SettingsRefused)
    yield heard
    unsubscribe()
