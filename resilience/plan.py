"""What one kind of call is entitled to: the settings of its operation and the options of its view, worked out once."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, final

from resilience._core.words import UNSET, Priority, Unset, Usage
from resilience.failure import Failure, FailureKind
from resilience.policies.deadline import Deadline
from resilience.policies.retry import RetryHandler
from resilience.settings import HedgeSettings, ProviderSettings, RetrySettings, StreamSettings

Accept: TypeAlias = Callable[[Any], bool | FailureKind | Failure]
"""Judges a result: True if it is one, False or what it is a failure of if it is not."""


NOTHING: Final = Usage()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What a view of a provider asks for. `UNSET` is "as the settings have it".

    Args:
        timeout: How long the whole call may last, in seconds.
        attempt_timeout: How long one attempt may last, in seconds.
        deadline: A moment that nothing may pass.
        operation: What is being called, or an empty string.
        idempotent: Whether repeating it is harmless; None if nobody said.
        retry: Other retry settings, or whether there are retries.
        refresh: Renews credentials.
        priority: How much it matters when there is no room for all.
        reserve: What it is going to use up, as far as anybody knows before.
        usage: Reads from a result what it has used up.
        accept: Judges results; None: every result is one.
        coalesce: Calls of the same key under way at the same time are one.
        idempotency_key: The key for all its attempts, True to make one, False for none.
        propagate: Whether the function can read the deadline.
        commit: Says which item of a stream is the first that cannot be taken back; None: the first.
        complete: Says whether an item is a stream's proper last one; None: any is.
        may_wait: Whether it may wait to be admitted; False: who has somewhere else to go is refused at once.
    """

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

    @property
    def looks_closer(self) -> bool:
        """Whether such calls ask for something that the fast path does not know."""
        asked = (self.reserve != NOTHING, self.usage, self.accept, self.coalesce is not None)
        return any((*asked, self.idempotency_key, self.propagate, self.priority is not Priority.DEFAULT))


USUAL: Final = Options()
"""What everybody asks for who asks for nothing: one object for all providers."""


@final
class Plan:
    """
    The terms of a call.

    Attributes:
        edition: The version of the settings that it was worked out from.
        options: What the view asks for.
        operation: What is being called, or an empty string.
        idempotent: Whether repeating it is harmless; None if nobody said.
        limit: How long one attempt may last, in seconds.
        total: How long the whole call may last, in seconds.
        slow_after: From what age on an attempt is slow, in seconds.
        retry: Decides whether a failed attempt is followed by another.
        standard: Whether final errors come out as `ProviderError`.
        own_limit: Whether its limits are a view's own: such calls share no lane's timer.
        hedge: When a second attempt starts beside the first; None: never.
        stream: How long the parts of a stream may take.
        tells: Whether the function can read anything of the call at all.
        fast: Whether such calls may take the fast path.
    """

    __slots__ = (
        "edition",
        "fast",
        "hedge",
        "idempotent",
        "limit",
        "operation",
        "options",
        "own_limit",
        "retry",
        "slow_after",
        "standard",
        "stream",
        "tells",
        "total",
    )

    edition: Edition
    fast: bool
    hedge: HedgeSettings | None
    idempotent: bool | None
    limit: float
    operation: str
    options: Options
    own_limit: bool
    retry: RetryHandler
    slow_after: float
    standard: bool
    stream: StreamSettings
    tells: bool
    total: float

    def __init__(self, edition: Edition, options: Options) -> None:
        self.edition = edition
        settings, operation = edition.settings, options.operation
        merged = settings.for_operation(operation)
        attempt = merged.timeout.attempt if options.attempt_timeout is UNSET else options.attempt_timeout
        whole = merged.timeout.total if options.timeout is UNSET else options.timeout
        if options.attempt_timeout is not UNSET and options.timeout is UNSET and whole is not None:
            whole = max(whole, attempt) if attempt is not None else None  # whoever asks for a long attempt means it
        breaker = merged.breaker
        self.options = options
        self.operation = operation
        self.idempotent = settings.idempotent(operation) if options.idempotent is UNSET else options.idempotent
        self.total = _or_never(whole)
        self.limit = min(_or_never(attempt), self.total)
        slow_after = breaker.slow_after if breaker.slow_after is not None else self.limit / 2
        self.slow_after = slow_after if breaker.slow_rate is not None else math.inf
        self.retry = edition.maker.retry_handler(_retry_settings(merged.retry, options.retry), settings.gate.hint_cap)
        self.standard = merged.errors == "standard"
        own = (options.attempt_timeout is not UNSET, options.timeout is not UNSET, options.deadline is not None)
        self.own_limit = any(own)
        self.hedge = merged.hedge if merged.hedge.enabled and self.idempotent is True else None
        self.stream = merged.stream
        self.tells = bool(options.idempotency_key) or options.propagate
        self.fast = not (self.own_limit or options.looks_closer or self.hedge)

    @property
    def scope(self) -> str:
        """Which limit it is that an attempt of full length runs into."""
        return "total" if self.total <= self.limit else "attempt"


class RetryMaker(Protocol):
    """A provider's runtime, as far as its plans know it."""

    def retry_handler(self, settings: RetrySettings, hint_cap: float) -> RetryHandler:
        """Return what decides about retries by *settings*, and obeys hints of up to *hint_cap* seconds."""
        ...


@final
class Edition:
    """
    One version of a provider's settings, and what calls under it are entitled to.

    A call that began under one ends under it, whatever is read anew meanwhile.

    Args:
        settings: What holds for the provider.
        maker: Makes what decides about retries.
    """

    __slots__ = ("_plans", "maker", "settings")

    maker: RetryMaker
    settings: ProviderSettings

    def __init__(self, settings: ProviderSettings, maker: RetryMaker) -> None:
        self.settings = settings
        self.maker = maker
        self._plans: dict[str, Plan] = {}

    def plan_for(self, options: Options) -> Plan:
        """Return what a call under *options* is entitled to."""
        operation = options.operation
        usual = options == Options(operation=operation)
        plan = self._plans.get(operation) if usual else None
        if plan is None:
            plan = Plan(self, options)
            if usual and (not operation or operation in self.settings.operations):  # other names are not collected
                self._plans[operation] = plan
        return plan


def _retry_settings(usual: RetrySettings, asked: RetrySettings | bool) -> RetrySettings:
    if isinstance(asked, RetrySettings):
        return asked
    return usual if asked else RetrySettings(enabled=False)


def _or_never(limit: float | None) -> float:
    return limit if limit is not None else math.inf
