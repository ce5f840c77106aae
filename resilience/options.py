"""What a view of a provider does differently from the provider's settings."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

from resilience._core.words import UNSET, Priority, Unset, Usage
from resilience.context import check_key
from resilience.errors import ConfigurationError
from resilience.plan import NOTHING, Accept, Plan
from resilience.policies.deadline import Deadline
from resilience.runtime import ProviderRuntime
from resilience.settings import RetrySettings


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one view. `UNSET` is "as the settings have it"."""

    timeout: float | Unset | None = UNSET
    attempt_timeout: float | Unset | None = UNSET
    deadline: Deadline | None = None
    operation: str = ""
    idempotent: bool | Unset | None = UNSET
    retry: RetrySettings | bool = True
    refresh: Callable[[], Awaitable[object]] | None = None
    priority: Priority = Priority.DEFAULT
    reserve: Usage = NOTHING
    usage: Callable[[Any], Usage] | None = None
    accept: Accept | None = None
    coalesce: str | None = None
    idempotency_key: str | bool = False
    propagate: bool = False
    commit: Callable[[Any], object] | None = None
    complete: Callable[[Any], object] | None = None
    may_wait: bool = True

    def changed(self, **given: Any) -> Options:
        """
        Return these options with what was *given* in place.

        Raises:
            ConfigurationError: A value makes no sense.
        """
        written = {name: value for name, value in given.items() if value is not UNSET}
        for name, value in written.items():
            _CHECKS[name](name, value)
        if "priority" in written:
            written["priority"] = Priority(written["priority"])
        return replace(self, **written)

    def plan(self, runtime: ProviderRuntime) -> Plan:
        """Return what a call under these options is entitled to."""
        if self == Options(operation=self.operation):
            return runtime.plan_for(self.operation)
        retry = None
        if self.retry is False:
            retry = RetrySettings(enabled=False)
        elif isinstance(self.retry, RetrySettings):
            retry = self.retry
        return runtime.make_plan(
            operation=self.operation,
            retry=retry,
            attempt_timeout=self.attempt_timeout,
            total=self.timeout,
            idempotent=self.idempotent,
            deadline=self.deadline,
            refresh=self.refresh,
            priority=self.priority,
            reserve=self.reserve,
            usage=self.usage,
            accept=self.accept,
            coalesce=self.coalesce,
            idempotency_key=self.idempotency_key,
            propagate=self.propagate,
            commit=self.commit,
            complete=self.complete,
            may_wait=self.may_wait,
        )


class View(NamedTuple):
    """The options of a view, and what they mean for its runtime."""

    options: Options
    plan: Plan


def _refuse(name: str, value: object, expected: str, slip: str = "") -> None:
    raise ConfigurationError(f"with_options({name}={value!r}): expected {expected}" + (f"; {slip}" if slip else ""))


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        _refuse(name, value, "a positive, finite number of seconds", "None means no limit")


def _check_deadline(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Deadline):
        _refuse(name, value, "a Deadline", "a number of seconds goes into timeout=, or write Deadline(seconds)")


def _check_operation(name: str, value: object) -> None:
    if not isinstance(value, str):
        _refuse(name, value, "a name")


def _check_idempotent(name: str, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        _refuse(name, value, "True, False or None")


def _check_retry(name: str, value: object) -> None:
    if not isinstance(value, bool | RetrySettings):
        _refuse(
            name, value, "RetrySettings(...), False or True", "a number of attempts is RetrySettings(max_attempts=n)"
        )


def _check_refresh(name: str, value: object) -> None:
    if value is not None and not callable(value):
        _refuse(name, value, "an async function without arguments", "was the function called already?")


def _check_priority(name: str, value: object) -> None:
    if value not in tuple(Priority):
        _refuse(name, value, "one of " + ", ".join(repr(str(each)) for each in Priority))


def _check_reserve(name: str, value: object) -> None:
    if not isinstance(value, Usage):
        _refuse(name, value, "Usage(tokens=..., cost=...)")
    for part in ("tokens", "cost"):
        amount: object = getattr(value, part)
        wrong = isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf
        if amount is not None and wrong:
            _refuse(name, value, f"{part} to be a finite number that is not negative")


def _check_function(name: str, value: object) -> None:
    if value is not None and not callable(value):
        _refuse(name, value, "a function that takes a result", "was the function called already?")


def _check_item_function(name: str, value: object) -> None:
    if value is not None and not callable(value):
        _refuse(name, value, "a function that takes an item of a stream", "was the function called already?")


def _check_coalesce(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        _refuse(name, value, "a text that is the same for calls that are the same")


def _check_key(name: str, value: object) -> None:
    check_key(value, f"with_options({name}=...)")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        _refuse(name, value, "True or False")


_CHECKS = {
    "timeout": _check_seconds,
    "attempt_timeout": _check_seconds,
    "deadline": _check_deadline,
    "operation": _check_operation,
    "idempotent": _check_idempotent,
    "retry": _check_retry,
    "refresh": _check_refresh,
    "priority": _check_priority,
    "reserve": _check_reserve,
    "usage": _check_function,
    "accept": _check_function,
    "coalesce": _check_coalesce,
    "idempotency_key": _check_key,
    "propagate": _check_bool,
    "commit": _check_item_function,
    "complete": _check_item_function,
}
