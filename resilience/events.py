"""
What happened, as small frozen facts, and the one bus that carries them.

Policies emit events and import no telemetry. Listeners are called synchronously, after the state they tell of
has been left, so a listener may read snapshots and may call back. A listener that raises is logged, once a
call, and never harms the call it was told about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, final
from weakref import WeakSet

from resilience._core.states import CircuitState
from resilience._core.words import Reason
from resilience.failure import Failure
from resilience.settings import Change

_log = logging.getLogger("resilience.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    The base of every event.

    Args:
        provider: The provider's name (with ``/endpoint`` where one was given).
        operation: The operation's name, or an empty string.
        time: When it happened, in seconds since the Unix epoch.
        variant: Which arm of an experiment it happened in, ``a`` or ``b``; empty without one.
    """

    provider: str
    operation: str = ""
    time: float
    variant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitChanged(Event):
    """A circuit breaker changed its state. *figures* is the text of the evidence, such as "5 failures in a row"."""

    before: CircuitState
    after: CircuitState
    reason: str
    figures: str
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLost(Event):
    """A half-open probe did not come back within its lease; its slot was given to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWouldBeRejected(Event):
    """A policy in shadow mode let a call through that it would have refused."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWasRejected(Event):
    """A call was refused before it left."""

    reason: Reason
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateClosed(Event):
    """The provider asked for a pause of *seconds*; *hinted* tells whether it named the length itself."""

    seconds: float
    hinted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(Event):
    """One attempt failed. *duration* is in seconds."""

    failure: Failure
    attempt: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTimedOut(Event):
    """One attempt was interrupted by our own deadline. *limit* and *duration* are in seconds."""

    attempt: int
    scope: str
    limit: float
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOverdue(Event):
    """An attempt was interrupted *overdue* seconds ago and still has not ended: it swallows cancellation."""

    overdue: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """Attempt number *attempt* of at most *max_attempts* will start in *delay* seconds."""

    failure: Failure
    attempt: int
    max_attempts: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed(Event):
    """
    A call gave up and its last error went to the caller.

    *reason* says why it was not tried (again). *error* is the exception itself, for listeners that log its
    traceback; they must not keep it.
    """

    failure: Failure
    attempts: int
    duration: float
    reason: Reason
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecovered(Event):
    """A call succeeded after *attempts* attempts, the failed ones included. *duration* is in seconds."""

    attempts: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimitChanged(Event):
    """An adaptive limit moved from *before* to *after* concurrent attempts."""

    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitTightened(Event):
    """The provider's own headers left less than we had counted: *remaining* in *window*, full again in *reset* s."""

    window: str
    remaining: float
    reset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeLaunched(Event):
    """A second attempt was started *delay* seconds after the first."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeWon(Event):
    """The second attempt was the first to answer, *duration* seconds after the call began."""

    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(Event):
    """A call goes on with *to*, because of *reason*."""

    to: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEjected(Event):
    """A member of a pool did so much worse than the others that it is left out for *seconds*."""

    member: str
    seconds: float
    figures: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberReturned(Event):
    """A member of a pool is asked again."""

    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCoalesced(Event):
    """A call waits for an identical one that is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownBegan(Event):
    """A registry admits no call any more. *in_flight* attempts have *grace* seconds; *waiting* calls are sent away."""

    grace: float
    in_flight: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownEnded(Event):
    """
    A registry is shut down, *seconds* after that began.

    *finished* attempts ended by themselves, *interrupted* ones did not, and *abandoned* ones still run; *refused*
    calls never left. *closed* adapters were closed, and *unclosed* names those that failed or took too long.
    """

    finished: int
    interrupted: int
    refused: int
    abandoned: int
    closed: int
    unclosed: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsReloaded(Event):
    """A registry took other settings from *source*. *changes* tells what holds in place of what; secrets are masked."""

    source: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsRefused(Event):
    """Settings from *source* make no sense, because of *problem*; the running ones stay in force."""

    source: str
    problem: str


Listener: TypeAlias = Callable[[Event], None]


class _Subscription(NamedTuple):
    """A listener and the classes of events it wants; its identity is the subscription."""

    listener: Listener
    kinds: tuple[type[Event], ...]


@final
class EventBus:
    """
    Carries events to listeners, its own and those of its *parent*.

    A provider's bus hangs below its registry's, and that below the process-wide one, so each listener subscribes
    at the level it cares about. What a bus has to do is worked out when somebody subscribes: an event that nobody
    asked for costs one test.
    """

    __slots__ = ("__weakref__", "_children", "_own", "_parent", "_rerouted", "_routes", "hears_rejections", "variant")

    hears_rejections: bool
    variant: str  # the arm of an experiment that speaks here: its events say so

    def __init__(self, parent: EventBus | None = None, *, rerouted: Callable[[], None] | None = None) -> None:
        self._own: tuple[_Subscription, ...] = ()
        self._parent = parent
        self._rerouted: Callable[[], None] | None = None
        self._children: WeakSet[EventBus] | None = None  # most buses are leaves
        self._routes: tuple[_Subscription, ...] = ()
        self.hears_rejections = False
        self.variant = ""
        if parent is not None:
            parent._adopt(self)
        self._reroute()
        self._rerouted = rerouted

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> Callable[[], None]:
        """
        Call *listener* with every event from now on.

        Args:
            listener: A function that takes one event. It runs in the call it is told about: keep it short.
            *kinds: The classes of events it wants. Default: all.

        Returns:
            A function that ends the subscription; calling it twice is harmless.

        Raises:
            TypeError: *listener* cannot be called, or a kind is not a class of events.
        """
        if not callable(listener):
            raise TypeError(f"a listener is a function that takes one event, not {listener!r}")
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise TypeError(f"a listener asks for classes of events, such as CircuitChanged, not {kind!r}")
        subscription = _Subscription(listener, kinds or (Event,))
        self._own = (*self._own, subscription)
        self._reroute()

        def unsubscribe() -> None:
            self._own = tuple(one for one in self._own if one is not subscription)
            self._reroute()

        return unsubscribe

    def hears(self, kind: type[Event]) -> bool:
        """Whether anybody wants events of *kind*: an event need not be made for nobody."""
        return any(issubclass(kind, one.kinds) for one in self._routes)

    def emit(self, event: Event) -> None:
        """Tell every listener of this bus and of its parents that wants events of this kind."""
        if self.variant:
            event = replace(event, variant=self.variant)
        for one in self._routes:
            if isinstance(event, one.kinds):
                try:
                    one.listener(event)
                except Exception:
                    _log.exception("a listener failed", extra={"component": "events", "provider": event.provider})

    def _adopt(self, child: EventBus) -> None:
        if self._children is None:
            self._children = WeakSet()
        self._children.add(child)

    def _reroute(self) -> None:
        self._routes = self._own if self._parent is None else self._own + self._parent._routes
        self.hears_rejections = self.hears(CallWasRejected)
        if self._rerouted is not None:
            self._rerouted()
        for child in tuple(self._children or ()):
            child._reroute()


process_bus: EventBus = EventBus()
"""The bus at the root: it hears of every provider of every registry in this process."""


def subscribe(listener: Listener, *kinds: type[Event]) -> Callable[[], None]:
    """
    Call *listener* with every event of every provider in this process.

    Args:
        listener: A function that takes one event. It runs in the call it is told about: keep it short.
        *kinds: The classes of events it wants. Default: all.

    Returns:
        A function that ends the subscription.

    Raises:
        TypeError: *listener* cannot be called, or a kind is not a class of events.
    """
    return process_bus.subscribe(listener, *kinds)
