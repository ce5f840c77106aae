"""Which call meets which fault."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal, Protocol, TypeAlias, cast, final

from resilience.testing.fault import Fault, FaultKind, MakeError, check_seconds, kind_of

Step: TypeAlias = Fault | str | float | BaseException | type[BaseException]
"""What happens to one call: a fault, its word, a latency in seconds, or an error."""

_OK: Final = Fault(FaultKind.OK)


class Schedule(Protocol):
    """Decides by a call's number alone."""

    def fault(self, number: int) -> Fault:
        """Return what happens to call *number*, counted from 0."""
        ...


@final
class Shares:
    """Each fault happens to its share of the calls."""

    def __init__(self, seed: int, latency: float | tuple[float, float], shares: Sequence[tuple[Fault, float]]) -> None:
        for fault, share in shares:
            if not (isinstance(share, (int, float)) and 0 <= share <= 1):
                raise ValueError(f"{fault.kind.value}={share!r} is no share: expected 0 to 1, such as 0.05 for 5 %")
        if sum(share for _, share in shares) > 1 + 1e-9:
            together = ", ".join(f"{fault.kind.value}={share:g}" for fault, share in shares if share)
            raise ValueError(f"{together}: each call meets one fault, so the shares add up to 1 at most")
        self._seed = seed
        self._shares = shares
        self._least, self._most = _range(latency)

    def fault(self, number: int) -> Fault:
        """Draw what happens to call *number*."""
        rng = random.Random(f"{self._seed}/{number}")
        latency = rng.uniform(self._least, self._most)
        draw = rng.random()
        for fault, share in self._shares:
            if draw < share:
                return _held_up(fault, latency)
            draw -= share
        return _held_up(_OK, latency)


@final
class Script:
    """Each call has its step."""

    def __init__(self, steps: Iterable[Step], then: Literal["ok", "last", "repeat"]) -> None:
        if isinstance(steps, str):
            raise TypeError(f"a script is a list of steps, not one text: [{steps!r}]")
        self._faults = [fault_of(step) for step in steps]
        if not self._faults:
            raise ValueError("a script without steps: what is going to happen? Faults() does nothing")
        if then not in ("ok", "last", "repeat"):
            raise ValueError(f'then={then!r}: expected "ok", "last" or "repeat"')
        self._then = then

    def fault(self, number: int) -> Fault:
        """Look up what happens to call *number*."""
        faults = self._faults
        if number < len(faults):
            return faults[number]
        if self._then == "repeat":
            return faults[number % len(faults)]
        return faults[-1] if self._then == "last" else _OK


def fault_of(step: Step) -> Fault:
    """
    Return the fault that a step of a script stands for.

    Raises:
        ValueError: It names no kind of fault, or is a latency that makes no sense.
        TypeError: It is something else.
    """
    if isinstance(step, Fault):
        return step
    if isinstance(step, str):
        return Fault(kind_of(step))
    if isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
        return Fault(FaultKind.ERROR, error=cast("BaseException | MakeError", step))
    if isinstance(step, bool) or not isinstance(step, (int, float)):
        raise TypeError(f"{step!r} is no step: expected a kind of fault, a Fault, a number of seconds or an exception")
    return Fault(FaultKind.OK, latency=step)


def _range(latency: float | tuple[float, float]) -> tuple[float, float]:
    least, most = latency if isinstance(latency, tuple) else (latency, latency)
    check_seconds("latency", least, finite=True)
    check_seconds("latency", most, finite=True)
    if least > most:
        raise ValueError(f"latency={latency!r}: the least comes first")
    return least, most


def _held_up(fault: Fault, seconds: float) -> Fault:
    return replace(fault, latency=seconds) if seconds else fault
