"""Running a coroutine function on virtual time, inside pytest or outside."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar, TypeVarTuple, Unpack, cast

import anyio

from resilience.testing.clock import DeadlockError, VirtualTimeLoop

Backend: TypeAlias = Literal["asyncio", "trio"]

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


def virtual_backend(backend: Backend) -> tuple[str, dict[str, object]]:
    """
    Give what anyio's pytest plugin needs to run a test on virtual time.

    Return it from the fixture ``anyio_backend``, made anew for each test: clocks are not shared.

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
        try:
            return anyio.run(func, *args, backend=name, backend_options=options)
        except BaseException:
            if deadlock := deadlock_in(options):
                raise deadlock from None
            raise


def deadlock_in(options: Mapping[str, object]) -> DeadlockError | None:
    """
    Tell whether a run ended in a deadlock, from the *options* that `virtual_backend` gave for it.

    trio cannot be made to raise the error where it happened: the run's tasks are cancelled instead.
    """
    watches = options.get("instruments", ())
    found = (getattr(watch, "deadlock", None) for watch in cast("Iterable[object]", watches))
    return next((error for error in found if isinstance(error, DeadlockError)), None)


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
