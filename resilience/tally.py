"""
What a provider's calls came to, in plain numbers that whoever wants to know reads when he wants to.

Successes are counted elsewhere, in the lanes, as cheaply as can be. Here is what is rarer, and what is only asked for
while somebody measures: how long calls and attempts took.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable
from typing import Final, NamedTuple, TypeAlias, TypeVar, final

from resilience._core.histogram import BOUNDS, Histogram, summed
from resilience.failure import Failure
from resilience.watching import End

# Names of operations come from the user: who makes them from request data must not fill the memory.
_MAX_OPERATIONS: Final = 64
OTHER_OPERATIONS: Final = "_other"
"""What operations are called beyond those that are told apart."""

Durations: TypeAlias = dict[tuple[str, End], Histogram]
"""By operation and end."""

Key = TypeVar("Key", bound=Hashable)


class Last(NamedTuple):
    """The last thing that went wrong: a kind of failure or a reason, the operation, and when (seconds since 1970)."""

    reason: str
    operation: str
    time: float


@final
class Tally:
    """
    The numbers of one provider.

    Attributes:
        failures: Calls that failed, by kind and category of their last failure.
        cancelled: Calls that their callers cancelled.
        rejections: Calls refused, by reason; those that the fast path refused are not among them.
        retries: What followed failed attempts, by the failure's kind and ``retried`` or the reason why not.
        delays: How long calls slept before retries.
        last: The last thing that went wrong.
    """

    __slots__ = ("_attempts", "_calls", "_swift", "cancelled", "delays", "failures", "last", "rejections", "retries")

    cancelled: int
    delays: Histogram
    failures: dict[tuple[str, str], int]
    last: Last | None
    rejections: dict[str, int]
    retries: dict[tuple[str, str], int]

    def __init__(self) -> None:
        self.failures = {}
        self.cancelled = 0
        self.rejections = {}
        self.retries = {}
        self.delays = Histogram()
        self.last = None
        self._swift: dict[str, Histogram] = {}  # on the fast path a call is its attempt, and succeeds
        self._calls: Durations = {}
        self._attempts: Durations = {}

    def failed(self, failure: Failure | None) -> None:
        """Count a call that failed; None: nobody said how."""
        if failure is None:
            _count(self.failures, ("", ""))
        else:
            _count(self.failures, (failure.kind.value, failure.category.value))
            self.last = Last(failure.kind.value, failure.operation, failure.time)

    def rejected(self, reason: str, operation: str, time: float) -> None:
        """Count a call that was refused."""
        _count(self.rejections, reason)
        self.last = Last(reason, operation, time)

    def followed(self, kind: str, decision: str) -> None:
        """Count what followed a failed attempt."""
        _count(self.retries, (kind, decision))

    # -- durations, measured only while somebody wants to know -----------------------------------------------------

    def swift(self, operation: str, seconds: float) -> None:
        """Count a call that was one attempt, all of it, and succeeded. Each frame would cost it a tenth of a floor."""
        found = self._swift.get(operation)
        if found is None:
            if len(self._swift) >= _MAX_OPERATIONS:
                operation = OTHER_OPERATIONS
            found = self._swift.setdefault(operation, Histogram())
        found.counts[bisect_left(BOUNDS, seconds)] += 1
        found.total += seconds

    def call_took(self, operation: str, end: End, seconds: float) -> None:
        """Count how long a call took."""
        _durations(self._calls, operation, end).record(seconds)

    def attempt_took(self, operation: str, end: End, seconds: float) -> None:
        """Count how long an attempt took."""
        _durations(self._attempts, operation, end).record(seconds)

    def calls(self) -> Durations:
        """Return how long calls took."""
        return _merged(self._succeeded_swiftly(), self._calls)

    def attempts(self) -> Durations:
        """Return how long attempts took."""
        return _merged(self._succeeded_swiftly(), self._attempts)

    def _succeeded_swiftly(self) -> Durations:
        return {(operation, End.SUCCESS): taken for operation, taken in list(self._swift.items())}


NO_TALLY: Final = Tally()
"""What a provider has before there is anything to count: one for all of them, and never written to."""


class Numbers:
    """
    The numbers that every provider has from its beginning.

    Attributes:
        exhausted: Calls that gave up although their last error was worth a retry.
        recovered: Calls that succeeded after a retry.
        refused: Calls that the fast path refused; the other refusals are in the tally.
        retries: Retries scheduled.
        succeeded: Calls that succeeded.
        tally: What is rarer.
        timeouts: Attempts that our own deadline interrupted.
    """

    __slots__ = ("exhausted", "recovered", "refused", "retries", "succeeded", "tally", "timeouts")

    exhausted: int
    recovered: int
    refused: int
    retries: int
    succeeded: int
    tally: Tally
    timeouts: int

    def zero(self) -> None:
        """Begin to count."""
        self.retries = self.recovered = self.exhausted = self.timeouts = self.refused = self.succeeded = 0
        self.tally = NO_TALLY

    @property
    def rejected(self) -> int:
        """How many calls were refused before they left."""
        return self.refused + sum(list(self.tally.rejections.values()))


def _durations(durations: Durations, operation: str, end: End) -> Histogram:
    found = durations.get((operation, end))
    if found is None:
        known = {name for name, _ in list(durations)}
        if operation not in known and len(known) >= _MAX_OPERATIONS:
            operation = OTHER_OPERATIONS
        found = durations.setdefault((operation, end), Histogram())
    return found


def _merged(one: Durations, other: Durations) -> Durations:
    found = [*list(one.items()), *list(other.items())]
    return {key: summed(taken for its, taken in found if its == key) for key, _ in found}


def _count(counts: dict[Key, int], key: Key) -> None:
    if key not in counts:
        counts.setdefault(key, 0)
    counts[key] += 1  # no call between reading and writing, where another thread could count
