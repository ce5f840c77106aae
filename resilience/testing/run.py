"""Running a coroutine function on virtual time, inside pytest or outside."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, TypeVarTuple, Unpack, cast, final

import anyio

from resilience.testing.clock import VirtualTimeLoop

Backend: TypeAlias = Literal["asyncio", "trio"]

_GUARDED = "__resilience_guarded__"

_P = ParamSpec("_P")
_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


def virtual_backend(backend: Backend) -> tuple[str, dict[str, object]]:
    """
    Give what anyio's pytest plugin needs to run a test on virtual time.

    Return it from the fixture ``anyio_backend``, made anew for each test: clocks are not shared. See also `guarded`.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.

    Raises:
        ValueError: It is neither.
    """
    if backend == "asyncio":
        return backend, {"loop_factory": VirtualTimeLoop}
    if backend == "trio":
        from resilience.testing import _trio

        return backend, _trio.options()
    raise ValueError(f'backend={backend!r} is unknown: expected "asyncio" or "trio"')


def run(func: Callable[[Unpack[_Ts]], Awaitable[_T]], *args: *_Ts, backend: Backend = "asyncio", seed: int = 0) -> _T:
    """
    Run ``func(*args)`` on virtual time and return its result.

    Args:
        func: A coroutine function.
        args: Its arguments.
        backend: ``"asyncio"`` or ``"trio"``. Default: ``"asyncio"``.
        seed: What the global random generator, and trio's scheduler, start from; the former is put back
            afterwards. Default: 0.

    Raises:
        DeadlockError: Nothing could happen any more.
    """
    name, options = virtual_backend(backend)
    with _seeded(seed, backend):
        return anyio.run(guarded(func, options), *args, backend=name, backend_options=options)


def guarded(func: Callable[_P, Awaitable[_T]], options: Mapping[str, object]) -> Callable[_P, Awaitable[_T]]:
    """
    Make a deadlock end *func* with a `DeadlockError` on trio, too.

    asyncio needs no help. trio has no means to tell the task that is stuck; without this, all tasks of the run are
    cancelled instead, which is harder to read, and more than anyio's pytest plugin can bear.

    Args:
        func: What is going to be run.
        options: What `virtual_backend` gave for that run.
    """
    if getattr(func, _GUARDED, False):  # by a plugin, and by a conftest.py that did so before there was one
        return func
    guards = [watch.guard for watch in cast("Iterable[Any]", options.get("instruments", ())) if hasattr(watch, "guard")]
    if not guards:
        return func

    @functools.wraps(func)
    async def guarded_func(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        result: _T = await guards[0](func, *args, **kwargs)
        return result

    setattr(guarded_func, _GUARDED, True)
    return guarded_func


@final
class VirtualClock:
    """
    The time of the event loop that runs, as a clock for a registry; where none runs, the time stands still.

    `anyio.current_time` is the same inside an event loop, and an error outside of one.
    """

    __slots__ = ("_now",)

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds since the loop began."""
        with contextlib.suppress(RuntimeError):
            self._now = anyio.current_time()
        return self._now


def is_virtual(backend: object) -> bool:
    """Tell whether *backend*, as a fixture ``anyio_backend`` gives it, comes from `virtual_backend`."""
    if not isinstance(backend, tuple):
        return False
    options = cast("tuple[str, dict[str, Any]]", backend)[1]
    watched = any(hasattr(watch, "guard") for watch in options.get("instruments", ()))
    return watched or options.get("loop_factory") is VirtualTimeLoop


@contextmanager
def _seeded(seed: int, backend: Backend) -> Generator[None]:
    before = random.getstate()
    random.seed(seed)
    try:
        if backend == "trio":
            from resilience.testing import _trio

            with _trio.seeded(seed):
                yield
        else:
            yield
    finally:
        random.setstate(before)
