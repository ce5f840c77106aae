"""What the tests of providers share: virtual time, functions that follow a script, errors as SDKs raise them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import anyio
import pytest

from resilience import CircuitState, ProviderRegistry, ProviderSettings, ResilientProvider, Settings, events
from resilience.events import CallWasRejected, Event
from resilience.testing import EventRecorder

_E = TypeVar("_E", bound=Event)

MakeError: TypeAlias = Callable[[], BaseException]

EPOCH = 1_700_000_000.0
EVENTS = tuple(kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event))


class HttpError(Exception):
    """An SDK's error: a status, and headers that may hold hints."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"secret answer with status {status}")
        self.status_code = status
        self.headers = headers


class Script:
    """
    An async function that does on each call what its next step says; the last step is repeated.

    A class of errors, or a function that makes an error, is raised; anything else is returned.
    """

    def __init__(self, *steps: object, seconds: float = 0.0) -> None:
        self.steps = steps
        self.seconds = seconds
        self.times: list[float] = []
        self.given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.raised: list[BaseException] = []

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.times.append(anyio.current_time())
        self.given.append((args, kwargs))
        if self.seconds:
            await anyio.sleep(self.seconds)
        if not callable(step):
            return step
        error: BaseException = step()
        self.raised.append(error)
        raise error

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.times)

    @property
    def pauses(self) -> list[float]:
        """The seconds from each call's end to the next call."""
        return [later - earlier - self.seconds for earlier, later in zip(self.times, self.times[1:], strict=False)]


class World:
    """Registries on virtual time, and all that they tell."""

    HttpError = HttpError
    EPOCH = EPOCH
    # Whoever listens to refusals keeps them off their fast path, so it takes a test that wants to hear them.
    QUIET = tuple(kind for kind in EVENTS if kind not in (Event, CallWasRejected))

    def __init__(self) -> None:
        self.events = EventRecorder()

    def registry(self, *, seed: int = 1, refusals: bool = False, **settings: Any) -> ProviderRegistry:
        """A registry of its own whose providers have these settings; *refusals* are heard only when asked for."""
        registry = ProviderRegistry(
            Settings(defaults=ProviderSettings(**settings)),
            clock=anyio.current_time,
            wall_clock=lambda: EPOCH,
            rng=random.Random(seed),
        )
        registry.subscribe(self.events, *(EVENTS if refusals else self.QUIET))
        return registry

    def provider(self, name: str = "openai", **settings: Any) -> ResilientProvider:
        """A provider in a registry of its own."""
        return self.registry(**settings).provider(name)

    @staticmethod
    def script(*steps: object, seconds: float = 0.0) -> Script:
        """A function that follows a script."""
        return Script(*steps, seconds=seconds)

    @staticmethod
    def status(status: int, **headers: str) -> MakeError:
        """Make errors of this status; ``retry_after="3"`` becomes a header."""
        return lambda: HttpError(status, {name.replace("_", "-"): value for name, value in headers.items()})

    @staticmethod
    async def trip(provider: ResilientProvider, times: int = 5) -> None:
        """Open the provider's circuit by failures in a row."""
        for _ in range(times):
            await provider.with_options(retry=False).try_execute(Script(ConnectionResetError))
        assert provider.breaker.state is CircuitState.OPEN

    @staticmethod
    async def warm(provider: ResilientProvider, *, warm: bool) -> ResilientProvider:
        """Make a first call, so that the next one takes the fast path where there is one, or make none."""
        if warm:
            await provider.execute(Script("warm"))
            on_asyncio = asyncio._get_running_loop() is not None
            assert (provider._lane.door is not None) is on_asyncio
        return provider

    def heard(self, kind: type[_E]) -> list[_E]:
        """The events of one kind, in order."""
        return self.events.of(kind)


@pytest.fixture
def world() -> World:
    """Registries on virtual time, and all that they tell."""
    return World()
