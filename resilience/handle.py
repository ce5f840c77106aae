"""What a handle on a provider is, whatever it calls: its options, its figures and its listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Self, Unpack

from resilience.classify import Rule
from resilience.events import Event, Listener
from resilience.lane import NO_LANE, Lane
from resilience.options import ViewOptions, changed
from resilience.plan import Options, Plan
from resilience.policies.circuit_breaker import CircuitBreaker
from resilience.report import Explanation, ProviderSnapshot, explain, take_snapshot
from resilience.runtime import ProviderRuntime
from resilience.settings import ProviderSettings


class Handle:
    """A handle on one provider, without its calls."""

    __slots__ = ("_lane", "_runtime", "_view")

    _lane: Lane
    _runtime: ProviderRuntime
    _view: Plan | None  # what a view asks for, worked out; None: as the settings have it

    @classmethod
    def _made(cls, runtime: ProviderRuntime, view: Plan | None) -> Self:
        handle = object.__new__(cls)
        handle._runtime = runtime
        handle._lane = NO_LANE
        handle._view = view
        return handle

    def with_options(self, **given: Unpack[ViewOptions]) -> Self:
        """
        Return a view of this provider: the same state, other options. What is not given stays as it is.

        Args:
            **given: By name, any of these.
            timeout: The whole call, retries and waits included, in seconds. None: no limit.
            attempt_timeout: One attempt, in seconds. None: no limit.
            deadline: A `Deadline` that no attempt, wait or retry may pass. None: none.
            operation: What is being called, such as ``"embeddings"``: picks its settings, and names it in events.
            idempotent: Whether repeating the call is harmless. False: only what was surely not sent is sent again.
                None: every failure that is worth it is retried.
            retry: Other retry settings; False: none; True: as the settings have it.
            refresh: Renews credentials; awaited once before the one retry that an authentication error gets.
            priority: ``"critical"``, ``"default"`` or ``"sheddable"``: who is refused first when there is no room.
            reserve: What a call is expected to use up: tokens of the rate limit, money of the cost limit.
            usage: Reads from a result what it has really used up; the difference to *reserve* is settled.
            accept: Judges a result: True if it is one; False, a `FailureKind` or a `Failure` if it is a failure.
                It is then retried and counts against the provider, and the last one is raised as
                `UnacceptableResult`. Discarded results are closed.
            coalesce: Calls with the same text that are under way at the same time are made once.
            idempotency_key: True: make one key per call, the same on each attempt, for `idempotency_key` inside the
                function. A text: use that.
            propagate: Whether `deadline` tells the remaining time inside the function.
            commit: For streams: whether an item is the one from which on nothing can be repeated. None: the first is.
            complete: For streams: whether an item is a proper last one. None: any is.

        Raises:
            ConfigurationError: A value makes no sense.
            TypeError: There is no such option.
        """
        return self._viewed(changed(self._plan().options, given))

    def _viewed(self, options: Options) -> Self:
        runtime = self._current()
        return self._made(runtime, runtime.plan_for(options))

    @property
    def name(self) -> str:
        """The provider's name, with ``/endpoint`` where one was given."""
        return self._runtime.name

    @property
    def settings(self) -> ProviderSettings:
        """What holds for the provider, whatever a view of it changes."""
        return self._current().settings

    @property
    def alternative(self) -> Self | None:
        """A handle on the other arm of the provider's experiment alone, to look at or to call; None without one."""
        rival = self._current().rival
        return self._made(rival, None) if rival is not None else None

    @property
    def breaker(self) -> CircuitBreaker:
        """The provider's circuit breaker: its state, and `open`, `close` and `reset` by hand."""
        return self._current().breaker

    def snapshot(self) -> ProviderSnapshot:
        """Return the provider's figures as they are now."""
        return take_snapshot(self._current())

    def explain(self) -> Explanation:
        """Return what would happen to a call now, and why, with figures. Changes nothing."""
        return explain(self._current(), self._plan())

    def subscribe(self, listener: Listener, *kinds: type[Event]) -> Callable[[], None]:
        """
        Call *listener* with every event of this provider, or with those of *kinds*.

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: *listener* cannot be called, or a kind is not a class of events.
        """
        return self._current().bus.subscribe(listener, *kinds)

    def add_rule(self, rule: Rule) -> None:
        """
        Let *rule* classify this provider's errors before the built-in rules do.

        Args:
            rule: A function from an error to a `Failure`, a `FailureKind`, or None to pass it on.

        Raises:
            TypeError: *rule* cannot be called.
        """
        if not callable(rule):
            raise TypeError(f"a rule is a function from an error to a Failure, a FailureKind or None, not {rule!r}")
        for arm in self._current().arms:
            arm.rules = (*arm.rules, rule)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.explain().text}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a provider's handle lives in its process: send its name, and make a handle where it arrives")

    def _plan(self) -> Plan:
        view, runtime = self._view, self._runtime
        if view is None:
            return runtime.plan
        if view.edition is not runtime.edition:
            self._view = view = runtime.plan_for(view.options)
        return view

    def _plan_in(self, lane: Lane) -> Plan:
        """Return what a call in *lane* is entitled to: it ends under the settings that it began with."""
        plan = self._plan()
        return plan if lane.edition is plan.edition else lane.edition.plan_for(plan.options)

    def _plan_of(self, runtime: ProviderRuntime) -> Plan:
        """Return what a call is entitled to that *runtime* makes: this handle's, or its rival in an experiment."""
        if runtime is self._runtime:
            return self._plan()
        return runtime.plan if self._view is None else runtime.plan_for(self._view.options)

    def _current(self) -> ProviderRuntime:
        """Return the runtime, or its successor if the registry has forgotten it meanwhile."""
        while (successor := self._runtime.successor) is not None:
            self._runtime = runtime = successor()
            self._lane = NO_LANE
            if self._view is not None:
                self._view = runtime.plan_for(self._view.options)
        return self._runtime
