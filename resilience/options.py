"""What a view of a provider does differently from the provider's settings."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypedDict

from resilience._core.words import Priority, Usage
from resilience.context import check_key
from resilience.errors import ConfigurationError
from resilience.plan import Accept, Options
from resilience.policies.deadline import Deadline
from resilience.settings import RetrySettings
from resilience.settings._types import likely

PriorityName: TypeAlias = Literal["critical", "default", "sheddable"]


class ViewOptions(TypedDict, total=False):
    """The keywords of `with_options`; what each one means stands there."""

    timeout: float | None
    attempt_timeout: float | None
    deadline: Deadline | None
    operation: str
    idempotent: bool | None
    retry: RetrySettings | bool
    refresh: Callable[[], Awaitable[object]] | None
    priority: Priority | PriorityName
    reserve: Usage
    usage: Callable[[Any], Usage] | None
    accept: Accept | None
    coalesce: str | None
    idempotency_key: str | bool
    propagate: bool
    commit: Callable[[Any], object] | None
    complete: Callable[[Any], object] | None


def changed(options: Options, given: Mapping[str, Any]) -> Options:
    """
    Return *options* with what was *given* in place.

    Raises:
        ConfigurationError: A value makes no sense.
        TypeError: There is no such option.
    """
    for name, value in given.items():
        if name not in _CHECKS:
            raise TypeError(f"with_options() got an unexpected keyword argument {name!r}{likely(name, _CHECKS)}")
        _CHECKS[name](name, value)
    priority = {"priority": Priority(given["priority"])} if "priority" in given else {}
    return replace(options, **{**given, **priority})


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
