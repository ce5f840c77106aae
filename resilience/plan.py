"""What one kind of call is entitled to: the settings of its operation and the options of its view, worked out once."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypedDict, Unpack, final

from resilience._core.words import UNSET, Priority, Unset, Usage
from resilience.failure import Failure, FailureKind
from resilience.policies.deadline import Deadline
from resilience.policies.retry import RetryHandler
from resilience.settings import HedgeSettings, ProviderSettings, RetrySettings, StreamSettings

Accept: TypeAlias = Callable[[Any], bool | FailureKind | Failure]
"""Judges a result: True if it is one, False or what it is a failure of if it is not."""


class PlanOptions(TypedDict, total=False):
    """What a view of a provider changes."""

    retry: RetrySettings | None
    attempt_timeout: float | Unset | None
    total: float | Unset | None
    idempotent: bool | Unset | None
    deadline: Deadline | None
    refresh: Callable[[], Awaitable[object]] | None
    priority: Priority
    reserve: Usage
    usage: Callable[[Any], Usage] | None
    accept: Accept | None
    coalesce: str | None
    idempotency_key: str | bool
    propagate: bool
    commit: Callable[[Any], object] | None
    complete: Callable[[Any], object] | None
    may_wait: bool


NOTHING: Final = Usage()


@final
class Plan:
    """
    The terms of a call.

    Attributes:
        operation: What is being called, or an empty string.
        idempotent: Whether repeating it is harmless; None if nobody said.
        limit: How long one attempt may last, in seconds.
        total: How long the whole call may last, in seconds.
        slow_after: From what age on an attempt is slow, in seconds.
        retry: Decides whether a failed attempt is followed by another.
        standard: Whether final errors come out as `ProviderError`.
        own_limit: Whether its limits are a view's own: such calls share no lane's timer.
        deadline: A moment that nothing may pass.
        refresh: Renews credentials.
        priority: How much it matters when there is no room for all.
        reserve: What it is going to use up, as far as anybody knows before.
        usage: Reads from a result what it has used up.
        accept: Judges results; None: every result is one.
        coalesce: Calls of the same key under way at the same time are one.
        commit: Says which item of a stream is the first that cannot be taken back; None: the first.
        complete: Says whether an item is a stream's proper last one; None: any is.
        idempotency_key: The key for all its attempts, True to make one, False for none.
        propagate: Whether the function can read the deadline.
        may_wait: Whether it may wait to be admitted; False: who has somewhere else to go is refused at once.
        hedge: When a second attempt starts beside the first; None: never.
        stream: How long the parts of a stream may take.
        tells: Whether the function can read anything of the call at all.
        fast: Whether such calls may take the fast path.
    """

    __slots__ = (
        "accept",
        "coalesce",
        "commit",
        "complete",
        "deadline",
        "fast",
        "hedge",
        "idempotency_key",
        "idempotent",
        "limit",
        "may_wait",
        "operation",
        "own_limit",
        "priority",
        "propagate",
        "refresh",
        "reserve",
        "retry",
        "slow_after",
        "standard",
        "stream",
        "tells",
        "total",
        "usage",
    )

    accept: Accept | None
    coalesce: str | None
    commit: Callable[[Any], object] | None
    complete: Callable[[Any], object] | None
    deadline: Deadline | None
    fast: bool
    hedge: HedgeSettings | None
    idempotency_key: str | bool
    may_wait: bool
    priority: Priority
    propagate: bool
    reserve: Usage
    stream: StreamSettings
    tells: bool
    usage: Callable[[Any], Usage] | None
    idempotent: bool | None
    limit: float
    operation: str
    own_limit: bool
    refresh: Callable[[], Awaitable[object]] | None
    retry: RetryHandler
    slow_after: float
    standard: bool
    total: float

    def __init__(
        self,
        settings: ProviderSettings,
        handler: Callable[[RetrySettings], RetryHandler],
        *,
        operation: str,
        **options: Unpack[PlanOptions],
    ) -> None:
        attempt_timeout, total = options.get("attempt_timeout", UNSET), options.get("total", UNSET)
        idempotent, retry = options.get("idempotent", UNSET), options.get("retry")
        merged = settings.for_operation(operation)
        attempt = merged.timeout.attempt if attempt_timeout is UNSET else attempt_timeout
        whole = merged.timeout.total if total is UNSET else total
        if attempt_timeout is not UNSET and total is UNSET and whole is not None:
            whole = max(whole, attempt) if attempt is not None else None  # whoever asks for a long attempt means it
        breaker = merged.breaker
        self.operation = operation
        self.idempotent = settings.idempotent(operation) if idempotent is UNSET else idempotent
        self.total = _or_never(whole)
        self.limit = min(_or_never(attempt), self.total)
        slow_after = breaker.slow_after if breaker.slow_after is not None else self.limit / 2
        self.slow_after = slow_after if breaker.slow_rate is not None else math.inf
        self.retry = handler(retry if retry is not None else merged.retry)
        self.standard = merged.errors == "standard"
        self.own_limit = attempt_timeout is not UNSET or total is not UNSET or options.get("deadline") is not None
        self.deadline = options.get("deadline")
        self.refresh = options.get("refresh")
        self.priority = options.get("priority", Priority.DEFAULT)
        self.reserve = options.get("reserve", NOTHING)
        self.usage = options.get("usage")
        self.accept = options.get("accept")
        self.coalesce = options.get("coalesce")
        self.idempotency_key = options.get("idempotency_key", False)
        self.propagate = options.get("propagate", False)
        self.commit = options.get("commit")
        self.complete = options.get("complete")
        self.may_wait = options.get("may_wait", True)
        self.hedge = merged.hedge if merged.hedge.enabled and self.idempotent is True else None
        self.stream = merged.stream
        self.tells = bool(self.idempotency_key) or self.propagate
        self.fast = not (self.own_limit or self._looks_closer())

    def _looks_closer(self) -> bool:
        """Whether such calls ask for something that the fast path does not know."""
        asked = (self.reserve != NOTHING, self.usage, self.accept, self.coalesce is not None, self.hedge)
        return any((*asked, self.idempotency_key, self.propagate, self.priority is not Priority.DEFAULT))

    @property
    def scope(self) -> str:
        """Which limit it is that an attempt of full length runs into."""
        return "total" if self.total <= self.limit else "attempt"


def _or_never(limit: float | None) -> float:
    return limit if limit is not None else math.inf
