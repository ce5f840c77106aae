"""
Trouble on order: what goes wrong with which call, decided by shares and a seed, or by a script.

`Faults` puts it around an async function, into a provider, or between an httpx client and its transport. A provider
that only pretends to be one is the other tool: see `resilience.testing.MisbehavingProvider`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, final

from resilience.provider import ResilientProvider
from resilience.streaming.stream import Stream
from resilience.testing import _around
from resilience.testing._schedule import Schedule, Script, Shares, Step, fault_of
from resilience.testing.fault import Fault, FaultKind, MakeError, check_items, check_seconds

if TYPE_CHECKING:
    from resilience.testing.faulty import AnyTransport, FaultyTransport

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class Injection:
    """
    One fault that was really injected.

    Args:
        call: The number of the call, counted from 0 over everything that the `Faults` are around.
        kind: What it was.
        target: What was called: the function's name, or method and URL of the request.
        latency: How many seconds the call was held up before anything else happened to it.
    """

    call: int
    kind: FaultKind
    target: str
    latency: float = 0.0


@final
class Faults:
    """
    What goes wrong, with which calls, and a record of it.

    ::

        faults = Faults(seed=7, error=0.1, rate_limit=0.05, latency=(0.1, 0.4))
        faults = Faults.script(["error", "rate_limit", "ok", Fault("cut", after=3)])

        with faults.inject(provider):        # every attempt of this provider, whoever makes it
            ...
        fetch = faults.wrap(fetch)           # every call of this function
        client = httpx.AsyncClient(transport=faults.transport(httpx.AsyncHTTPTransport()))

    What happens to a call depends on its number and the seed only, so a run can be repeated. Each call meets one
    fault at most: the shares, between 0 and 1, add up to 1 at most.

    Args:
        seed: What every draw starts from.
        latency: By how many seconds each call is held up: a number, or the least and the most.
        error: The share of calls whose connection is reset, or that raise what *raises* makes.
        timeout: The share of calls for which the client's own time-out comes, at once.
        server_error: The share of calls that are answered with status 500.
        rate_limit: The share of calls that are answered with status 429.
        hang: The share of calls that are never answered.
        partition: The share of calls that get no connection: a `TimeoutError` after *patience*.
        exhausted_pool: The share of calls that get none of the client's connections: httpx's `PoolTimeout`, after
            *patience*.
        lost_answer: The share of calls that arrive and take effect, and whose answer is lost.
        cut: The share of streams that break off. Default: all, if *cut_after* is given, else none.
        stall: The share of streams that come to a halt. Default: all, if *stall_after* is given, else none.
        retry_after: How long those with status 429 are told to stay away, in seconds. None: nothing is said.
        cut_after: After how many items a stream breaks off. Default: 1.
        stall_after: After how many items a stream comes to a halt. Default: 1.
        stall_for: For how many seconds. Default: for ever.
        patience: How long a client waits for a connection, in seconds. A request of httpx brings its own figures.
        raises: Makes the errors: a class of errors, or a function.

    Attributes:
        injected: What was injected so far, in order.
        calls: How many calls there were, with and without a fault.

    Raises:
        ValueError: A share is not between 0 and 1, the shares add up to more than 1, or a figure makes no sense.
        TypeError: *raises* cannot be called.
    """

    __slots__ = ("_always", "_numbers", "_schedule", "calls", "injected")

    calls: int
    injected: list[Injection]

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: float | tuple[float, float] = 0.0,
        error: float = 0.0,
        timeout: float = 0.0,
        server_error: float = 0.0,
        rate_limit: float = 0.0,
        hang: float = 0.0,
        partition: float = 0.0,
        exhausted_pool: float = 0.0,
        lost_answer: float = 0.0,
        cut: float | None = None,
        stall: float | None = None,
        retry_after: float | None = 1.0,
        cut_after: int | None = None,
        stall_after: int | None = None,
        stall_for: float | None = None,
        patience: float = 5.0,
        raises: MakeError | None = None,
    ) -> None:
        for name, seconds in (("retry_after", retry_after), ("stall_for", stall_for), ("patience", patience)):
            check_seconds(name, seconds)
        for name, count in (("cut_after", cut_after), ("stall_after", stall_after)):
            check_items(name, count)
        if raises is not None and not callable(raises):
            raise TypeError(f"raises={raises!r}: expected a class of errors, or a function that makes one")
        shares = (
            (Fault(FaultKind.ERROR, error=raises), error),
            (Fault(FaultKind.TIMEOUT), timeout),
            (Fault(FaultKind.SERVER_ERROR), server_error),
            (Fault(FaultKind.RATE_LIMIT, retry_after=retry_after), rate_limit),
            (Fault(FaultKind.HANG), hang),
            (Fault(FaultKind.PARTITION, seconds=patience), partition),
            (Fault(FaultKind.EXHAUSTED_POOL, seconds=patience), exhausted_pool),
            (Fault(FaultKind.LOST_ANSWER), lost_answer),
            (Fault(FaultKind.CUT, after=cut_after, error=raises), _of_streams(cut, cut_after)),
            (Fault(FaultKind.STALL, after=stall_after, seconds=stall_for), _of_streams(stall, stall_after)),
        )
        self._begin(Shares(seed, latency, shares))

    def _begin(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._always: list[Fault] = []
        self._numbers = itertools.count()
        self.injected = []
        self.calls = 0

    @classmethod
    def script(cls, steps: Iterable[Step], *, then: Literal["ok", "last", "repeat"] = "ok") -> Faults:
        """
        Make faults that follow a script: one step for each call.

        Args:
            steps: What happens to the calls: a kind such as ``"error"``, ``"hang"`` or ``"ok"``, a `Fault` for the
                details, a number of seconds by which an otherwise successful call is held up, or an exception, or a
                class of exceptions, that the call raises.
            then: What happens after the last step: ``"ok"``, nothing more; ``"last"``, the last step for ever;
                ``"repeat"``, everything again.

        Raises:
            ValueError: A step names no kind of fault, there are none, or *then* is something else.
            TypeError: A step is something else.
        """
        faults = cls()
        faults._begin(Script(steps, then))
        return faults

    # -- where they go ---------------------------------------------------------------------------------------------

    def wrap(self, func: _F) -> _F:
        """
        Put the faults around *func*; its signature stays.

        It is an async function, an async generator function, or one that returns an async context manager. A call that
        meets an error, or hangs, does not reach it. Streams that are cut, or come to a halt, are those that it returns
        or yields.

        Raises:
            TypeError: *func* cannot be called; or, when it is called, it turns out to be synchronous.
        """
        if not callable(func):
            raise TypeError(f"wrap() takes an async function, not {type(func).__name__}")
        return cast("_F", _around.wrap(func, self._turn))

    def items(self, source: AsyncIterable[_T]) -> AsyncIterator[_T]:
        """Put the faults around a stream that is already there: one step of the schedule for all of it."""
        return _around.items(source, self._turn(type(source).__name__))

    @contextmanager
    def inject(self, provider: ResilientProvider | str) -> Generator[Faults]:
        """
        Let every attempt of *provider* meet the faults while the ``with`` block runs, whoever makes the call.

        Every handle of the provider is meant, with whatever options; an endpoint is a provider of its own. Blocks
        inside `ResilientProvider.attempts` are not reached: wrap what they call.

        Args:
            provider: A handle, or a name in the process's default registry.

        Raises:
            TypeError: *provider* is something else.
        """
        if isinstance(provider, str):
            provider = ResilientProvider(provider)
        if not isinstance(provider, ResilientProvider):
            raise TypeError(f"inject() takes a ResilientProvider or a name, not {type(provider).__name__}")
        runtime = provider._current()

        def layer(func: Any) -> Any:
            # A stream is opened by a function of its own, which asks for the layers around what the user gave it.
            opens = isinstance(getattr(func, "__self__", None), Stream)
            return func if opens else _around.wrap(func, self._turn)

        runtime.disturb((*runtime.chaos, layer))
        try:
            yield self
        finally:
            runtime.disturb(tuple(one for one in runtime.chaos if one is not layer))

    def transport(self, inner: AnyTransport) -> FaultyTransport:
        """
        Put the faults between an httpx client and *inner*, its transport, where they come as httpx's own errors.

        Statuses are responses. Whoever waits in vain does so for as long as the request's own time-outs say. Clients
        of httpx2 can use it, too.
        """
        from resilience.testing.faulty import FaultyTransport

        return FaultyTransport(inner, self._turn)

    @contextmanager
    def always(self, step: Step) -> Generator[Faults]:
        """
        Let the same thing happen to every call while the ``with`` block runs, such as ``"partition"``.

        Args:
            step: As in `script`.

        Raises:
            ValueError: It names no kind of fault.
            TypeError: It is something else.
        """
        fault = fault_of(step)
        self._always.append(fault)
        try:
            yield self
        finally:
            self._always.remove(fault)

    # -- what they did ---------------------------------------------------------------------------------------------

    @property
    def kinds(self) -> list[str]:
        """What was injected so far, in order, in words: ``["error", "rate_limit"]``."""
        return [injection.kind.value for injection in self.injected]

    def __repr__(self) -> str:
        counts = ", ".join(f"{kind}: {count}" for kind, count in Counter(self.kinds).items())
        return f"<Faults [{self.calls} calls, injected: {counts or 'none'}]>"

    def _turn(self, target: str) -> _around.Turn:
        number = next(self._numbers)
        self.calls = number + 1
        fault = self._always[-1] if self._always else self._schedule.fault(number)

        def record(kind: FaultKind) -> None:
            self.injected.append(Injection(number, kind, target, fault.latency))

        return _around.Turn(fault, number, record)


def _of_streams(share: float | None, after: int | None) -> float:
    return share if share is not None else 0.0 if after is None else 1.0
