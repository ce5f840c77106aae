"""
Somewhere else to go: other providers in order, and at last a value or a function.

======================  ===========================================================================================
a provider              what follows
======================  ===========================================================================================
answers                 that is the answer
refuses                 the next, at once: nobody waits for one while another is free
fails                   the next, if it is for such errors; the caller's own mistakes are for nobody
======================  ===========================================================================================

When nobody could answer, the one that would have admitted the call after a short wait, the soonest of them, is asked
again and waited for: a call must not fail because it has a fallback.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from copy import copy
from functools import wraps
from types import TracebackType
from typing import Any, Generic, NamedTuple, Never, ParamSpec, TypeAlias, TypeVar, cast, final, overload

from resilience.errors import ConfigurationError
from resilience.outcome import Outcome
from resilience.policies.deadline import Deadline
from resilience.provider import ResilientProvider
from resilience.results import dispose
from resilience.routing.tried import ErrorRule, On, Tried, rules_of, variant
from resilience.streaming.stream import Stream, Streamable

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")
T_co = TypeVar("T_co", covariant=True)
U_co = TypeVar("U_co", covariant=True)


class _Step(NamedTuple):
    """A provider, with and without patience, and what is called there instead of the first one's function."""

    provider: ResilientProvider
    hasty: ResilientProvider
    func: Callable[..., Awaitable[Any]] | None
    rules: tuple[ErrorRule, ...] | None


class _Resort(NamedTuple):
    """What answers when no provider does."""

    name: str
    answer: Callable[[Exception], Any]
    rules: tuple[ErrorRule, ...] | None


_Ask: TypeAlias = Callable[[ResilientProvider, Callable[..., Any]], Awaitable[Outcome[Any]]]
"""Asks one provider, with one function."""


def _calling(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Ask:
    return lambda provider, func: provider.try_execute(func, *args, **kwargs)


def _check_function(name: str, func: object) -> None:
    if inspect.iscoroutine(func):
        func.close()
        raise TypeError(f"{name} takes a function, not a coroutine: hand it over without calling it")
    if not callable(func):
        raise TypeError(f"{name} takes a function, not {func!r}")


@final
class FallbackChain(Generic[U_co]):
    """
    Providers in order, each under its own policies. Made by `ResilientProvider.fallback_to`; it never changes.

    ::

        chain = ResilientProvider("openai").fallback_to("anthropic", ask_claude).fallback_value("Try again later.")
        answer = await chain.execute(ask_gpt, prompt)

    Args:
        first: The provider that is asked first. A deadline among its options holds for the whole chain.

    Raises:
        TypeError: *first* is not a `ResilientProvider`.
    """

    __slots__ = ("_deadline", "_first", "_resort", "_steps")

    _deadline: Deadline | None
    _first: ResilientProvider
    _resort: _Resort | None
    _steps: tuple[_Step, ...]

    def __init__(self: FallbackChain[Never], first: ResilientProvider) -> None:
        if not isinstance(first, ResilientProvider):
            raise TypeError(f"a chain begins with a ResilientProvider, not {first!r}")
        self._deadline = first._plan().options.deadline
        self._steps = (_Step(first, variant(first, may_wait=False), None, None),)
        self._first = first  # it has to be patient while there is nobody else
        self._resort = None

    # -- building --------------------------------------------------------------------------------------------------

    @overload
    def fallback_to(
        self, provider: str | ResilientProvider, func: None = None, *, on: On = None
    ) -> FallbackChain[U_co]: ...

    @overload
    def fallback_to(
        self,
        provider: str | ResilientProvider,
        func: Callable[..., Awaitable[V]],
        *,
        on: On = None,
    ) -> FallbackChain[U_co | V]: ...

    def fallback_to(
        self,
        provider: str | ResilientProvider,
        func: Callable[..., Awaitable[Any]] | None = None,
        *,
        on: On = None,
    ) -> FallbackChain[Any]:
        """
        Return a chain that asks *provider* when those before it refuse or fail.

        Args:
            provider: A provider, or the name of one in the registry of the first one.
            func: What to await there, with the same arguments. Default: None, the same function.
            on: Which errors lead here, as a `FailureKind`, a class of errors, a predicate or a tuple of these. Default:
                None, all but those that would be the same anywhere: mistakes in the caller's own code or input, and
                ``not_found``. After a failure of a call that is not idempotent no other provider is asked, whatever
                this says, unless nothing can have been done.

        Raises:
            ConfigurationError: A name is not one, *on* makes no sense, or the chain already ends in a value or a
                function.
            TypeError: *provider* or *func* is something else.
        """
        self._refuse_more("provider")
        if func is not None:
            _check_function("fallback_to(provider, func)", func)
        if isinstance(provider, str):
            provider = self._neighbour(provider)
        if not isinstance(provider, ResilientProvider):
            raise TypeError(f"fallback_to() takes a provider or its name first, not {provider!r}")
        if self._deadline is not None and provider._plan().options.deadline is None:
            provider = provider.with_options(deadline=self._deadline)
        step = _Step(provider, variant(provider, may_wait=False), func, rules_of(on))
        return self._with((*self._steps, step), None)

    def fallback_value(self, value: V, *, on: On = None) -> FallbackChain[U_co | V]:
        """
        Return a chain that answers with *value* when no provider does.

        Args:
            value: The answer.
            on: Which errors lead here; the last one counts. Default: None, as in `fallback_to`.

        Raises:
            ConfigurationError: *on* makes no sense, or the chain already ends in a value or a function.
        """
        self._refuse_more("value")

        def answer(_: Exception) -> V:
            return value

        return self._with(self._steps, _Resort("<value>", answer, rules_of(on)))

    @overload
    def fallback_with(
        self, function: Callable[[Exception], Awaitable[V]], *, on: On = None
    ) -> FallbackChain[U_co | V]: ...

    @overload
    def fallback_with(self, function: Callable[[Exception], V], *, on: On = None) -> FallbackChain[U_co | V]: ...

    def fallback_with(self, function: Callable[[Exception], Any], *, on: On = None) -> FallbackChain[Any]:
        """
        Return a chain that answers with what *function* returns when no provider answers.

        Args:
            function: It gets the error that would have come out. Synchronous or asynchronous.
            on: Which errors lead here; the last one counts. Default: None, as in `fallback_to`.

        Raises:
            ConfigurationError: *on* makes no sense, or the chain already ends in a value or a function.
            TypeError: *function* cannot be called.
        """
        self._refuse_more("function")
        _check_function("fallback_with(function)", function)
        return self._with(self._steps, _Resort("<function>", function, rules_of(on)))

    def _refuse_more(self, what: str) -> None:
        if self._resort is not None:
            raise ConfigurationError(
                f"this chain ends in a {self._resort.name.strip('<>')}, which always answers: "
                f"no other {what} can follow it"
            )

    def _neighbour(self, name: str) -> ResilientProvider:
        found: ResilientProvider = self._steps[0].provider._current().common._tools.neighbour(name)
        return found

    def _with(self, steps: tuple[_Step, ...], resort: _Resort | None) -> FallbackChain[Any]:
        chain: FallbackChain[Any] = copy(self)
        alone = len(steps) == 1
        chain._first = steps[0].provider if alone else steps[0].hasty
        chain._steps = steps
        chain._resort = resort
        return chain

    def __repr__(self) -> str:
        names = [repr(step.provider.name) for step in self._steps]
        return f"<FallbackChain {' -> '.join([*names, *([self._resort.name] if self._resort else [])])}>"

    # -- calling ---------------------------------------------------------------------------------------------------

    async def execute(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T | U_co:
        """
        Await ``func(*args, **kwargs)`` through the first provider, and go on with the others if need be.

        Raises:
            AllProvidersFailed: Several were asked and none answered; it tells what each one said.
            Exception: The error of the only one that was asked, or an error that is for nobody else.
        """
        try:
            return await self._first.execute(func, *args, **kwargs)
        except Exception as error:
            outcome: Outcome[Any] = Outcome(None, error)
        try:
            outcome = await self._go_on(outcome, func, _calling(args, kwargs))
            if outcome.error is not None:
                raise outcome.error
            return cast("T | U_co", outcome.value)
        finally:
            del outcome  # its error holds this frame

    async def try_execute(
        self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[T | U_co]:
        """Like `execute`, but return how the call ended as a value."""
        outcome: Outcome[Any] = await self._first.try_execute(func, *args, **kwargs)
        try:
            return outcome if outcome.ok else await self._go_on(outcome, func, _calling(args, kwargs))
        finally:
            del outcome  # its error holds the frames below, and from 3.12 on those hold this one

    def stream(
        self, func: Callable[P, Streamable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> FallbackStream[T | U_co]:
        """
        Open a stream at the first provider, and at the others if need be: ``async with chain.stream(...) as items:``.

        It goes on elsewhere only until the first item (or the first that ``commit`` says yes to) has come. What breaks
        later is `StreamInterrupted`, as ever. A value or a function at the end of the chain stands for all the items:
        it is, or returns, something to iterate over.

        Raises:
            TypeError: *func* is no function.
        """
        _check_function("stream()", func)
        return FallbackStream(self, func, args, kwargs)

    def wrap(self, func: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T | U_co]]:
        """
        Decorate *func* so that each call of it goes through `execute`.

        Raises:
            TypeError: *func* cannot be called.
        """
        _check_function("wrap()", func)

        @wraps(func)
        async def protected(*args: P.args, **kwargs: P.kwargs) -> T | U_co:
            return await self.execute(func, *args, **kwargs)

        return protected

    async def _go_on(self, outcome: Outcome[Any], func: Callable[..., Any], ask: _Ask) -> Outcome[Any]:
        """Ask the others, now that the first one has not answered."""
        tried, free = Tried(self._deadline), None
        try:
            tried.add(self._steps[0], self._steps[0].provider, outcome)
            for step in self._steps[1:]:
                if not (tried.last.is_for(step.rules) and tried.last.repeatable):
                    continue
                if tried.ends:
                    break
                if not tried.last.pays_for(step.provider):
                    continue
                await tried.leave_for(step.provider.name)
                outcome = await ask(step.hasty, step.func or func)
                if outcome.ok:
                    return outcome
                tried.add(step, step.provider, outcome)
            if len(self._steps) > 1 and (free := tried.soonest()) is not None:
                step = next(step for step in self._steps if step is free.place)
                outcome = await ask(step.provider, step.func or func)
                if outcome.ok:
                    return outcome
                tried.add(step, step.provider, outcome)
            return await self._end(tried)
        finally:
            del outcome, tried, free  # their errors hold the frames below, and from 3.12 on those hold this one

    async def _end(self, tried: Tried) -> Outcome[Any]:
        resort, error = self._resort, tried.result()
        try:
            if resort is None or not tried.last.is_for(resort.rules):
                return Outcome(None, error)
            await tried.leave_for(resort.name)
            value = resort.answer(error)
            return Outcome(await value if resort.name == "<function>" and inspect.isawaitable(value) else value)
        except Exception as raised:
            if raised is not error and raised.__context__ is None:
                raised.__context__ = error
            return Outcome(None, raised)
        finally:
            del error, tried


@final
class FallbackStream(Generic[T_co]):
    """An ``async with`` block around one stream of one of several providers. Made by `FallbackChain.stream`."""

    __slots__ = ("_args", "_chain", "_func", "_given", "_kwargs", "_stream")

    def __init__(
        self, chain: FallbackChain[Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._chain = chain
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._stream: Stream[Any] | None = None
        self._given: AsyncIterator[Any] | None = None

    async def __aenter__(self) -> AsyncIterator[T_co]:
        outcome = await self._open(self._chain._first, self._func)
        try:
            if not outcome.ok:
                outcome = await self._chain._go_on(outcome, self._func, self._open)
            if outcome.error is not None:
                raise outcome.error
            if self._stream is None:
                self._given = _items_of(outcome.value)
                return self._given
            return cast("AsyncIterator[T_co]", outcome.value)
        finally:
            del outcome  # its error holds this frame

    async def _open(self, provider: ResilientProvider, func: Callable[..., Any]) -> Outcome[Any]:
        stream: Stream[Any] = provider.stream(func, *self._args, **self._kwargs)
        try:
            items = await stream.__aenter__()
        except Exception as error:
            return Outcome(None, error)
        self._stream = stream
        return Outcome(items)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            stream, self._stream = self._stream, None
            if stream is not None:
                await stream.__aexit__(kind, error, traceback)
            else:
                await dispose(self._given)
        finally:
            del error  # it holds this frame


def _items_of(given: object) -> AsyncIterator[Any]:
    """
    Return what stands for the items of a stream, to be iterated over.

    Raises:
        TypeError: It cannot be.
    """
    if isinstance(given, AsyncIterable):
        return aiter(cast("Any", given))
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return _each(cast("Any", given))
    raise TypeError(f"a stream's fallback is something to iterate over, such as a list of items, not {given!r}")


async def _each(items: Iterable[object]) -> AsyncIterator[object]:
    for item in items:
        yield item
