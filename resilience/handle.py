"""What a handle on a provider is, whatever it calls: its name, its figures and its listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from resilience.classify import Rule
from resilience.events import Event, Listener
from resilience.lane import NO_LANE, Lane
from resilience.options import View
from resilience.plan import Plan
from resilience.policies.circuit_breaker import CircuitBreaker
from resilience.report import Explanation, ProviderSnapshot, explain, take_snapshot
from resilience.runtime import ProviderRuntime
from resilience.settings import ProviderSettings


class Handle:
    """A handle on one provider, without its calls."""

    __slots__ = ("_lane", "_runtime", "_view")

    _lane: Lane
    _runtime: ProviderRuntime
    _view: View | None

    @property
    def name(self) -> str:
        """The provider's name, with ``/endpoint`` where one was given."""
        return self._runtime.name

    @property
    def settings(self) -> ProviderSettings:
        """What holds for the provider, whatever a view of it changes."""
        return self._current().settings

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
        runtime = self._current()
        runtime.rules = (*runtime.rules, rule)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.explain().text}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a provider's handle lives in its process: send its name, and make a handle where it arrives")

    def _plan(self) -> Plan:
        return self._runtime.plan if self._view is None else self._view.plan

    def _current(self) -> ProviderRuntime:
        """Return the runtime, or its successor if the registry has forgotten it meanwhile."""
        while (successor := self._runtime.successor) is not None:
            self._runtime = runtime = successor()
            self._lane = NO_LANE
            if self._view is not None:
                self._view = View(self._view.options, self._view.options.plan(runtime))
        return self._runtime
