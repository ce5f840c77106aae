"""What policies share that stand around calls: three ways to use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

from anyio import get_current_task

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E")


class Decorates(ABC):
    """A policy that calls functions, and so can decorate them."""

    __slots__ = ()  # so that a policy can have another base too

    _what: ClassVar[str]
    """How it is named in a sentence, with its article."""

    @abstractmethod
    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``func(*args, **kwargs)``, in the way of this policy."""

    def __call__(self, func: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """
        Decorate *func* so that each call of it goes through `call`.

        Raises:
            TypeError: *func* cannot be called.
        """
        if not callable(func):
            raise TypeError(f"{self._what} decorates an async function, not {type(func).__name__}")

        @wraps(func)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.call(func, *args, **kwargs)

        return guarded


class Around(Decorates, Generic[E]):
    """A policy that lets a call begin, and hears how it ended. What it needs to know in between is an *E*."""

    __slots__ = ()

    _entered: dict[int, list[E]]
    name: str

    @abstractmethod
    async def _begin(self) -> E:
        """Let a call begin, or raise why not."""

    @abstractmethod
    def _end(self, entry: E, error: BaseException | None) -> None:
        """Take note that the call which *entry* stands for has ended."""

    async def call(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(*args, **kwargs)`` if the call is admitted.

        Raises:
            CallRejected: It is not.
        """
        entry = await self._begin()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            self._end(entry, error)
            raise
        self._end(entry, None)
        return result

    async def __aenter__(self) -> None:
        # The policy is shared, so what it handed out is kept by task; one task leaves in the reverse order.
        entry = await self._begin()
        self._entered.setdefault(get_current_task().id, []).append(entry)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = get_current_task().id
        entries = self._entered.get(task)
        if not entries:
            raise RuntimeError(f"{self.name}: `async with` was left in another task than the one that entered it")
        entry = entries.pop()
        if not entries:
            del self._entered[task]
        self._end(entry, error)
