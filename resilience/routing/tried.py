"""What came of asking one provider after the other, and whether another one may be asked."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, cast, final

import anyio

from resilience._core.words import Reason, Verdict
from resilience.classify import attach
from resilience.errors import (
    AllProvidersFailed,
    CallRejected,
    ConfigurationError,
    StreamInterrupted,
    UnacceptableResult,
    annotate,
)
from resilience.events import FellBack
from resilience.failure import Category, Delivery, Failure, FailureKind
from resilience.guard import here, outer_deadline
from resilience.lane import SLACK
from resilience.outcome import Outcome
from resilience.policies._breaker import matches
from resilience.policies.deadline import Deadline
from resilience.provider import ResilientProvider
from resilience.results import dispose

_log = logging.getLogger("resilience.fallback")

ErrorRule: TypeAlias = FailureKind | type[BaseException] | Callable[[BaseException], bool]
"""An error that leads on: by kind, by class, or by a predicate."""

On: TypeAlias = ErrorRule | tuple[ErrorRule, ...] | None
"""Which errors lead on: one rule, or any of several; None: the usual ones."""

# Classifying our own refusals would only find this.
_REFUSED = Failure(
    kind=FailureKind.REJECTED, category=Category.FATAL, error_type="CallRejected", delivery=Delivery.UNSENT
)
# A provider that says no in these ways has done nothing: asking another one does nothing twice.
_NOTHING_DONE = frozenset(
    {
        FailureKind.AUTHENTICATION_ERROR,
        FailureKind.PERMISSION_DENIED,
        FailureKind.QUOTA_EXHAUSTED,
        FailureKind.RATE_LIMIT,
    }
)
# Answers to this request, which is no better elsewhere, and what is nobody's failure.
_ANSWERS = frozenset({FailureKind.BAD_REQUEST, FailureKind.NOT_FOUND, FailureKind.CANCELLED})
# Refusals that time alone can end.
_PASSING = frozenset({Reason.PROVIDER_GATED, Reason.RATE_LIMITED, Reason.BULKHEAD_FULL, Reason.BULKHEAD_TIMEOUT})


def variant(provider: ResilientProvider, **changes: Any) -> ResilientProvider:
    """Return a view of *provider* with options that users cannot ask for."""
    return provider._viewed(replace(provider._plan().options, **changes))


def rules_of(on: On) -> tuple[ErrorRule, ...] | None:
    """
    Return what *on* means.

    Raises:
        ConfigurationError: It is neither a kind, nor a class of errors, nor a predicate, nor several of these.
    """
    if on is None:
        return None
    rules: tuple[ErrorRule, ...] = cast("Any", on) if isinstance(on, tuple) else (on,)
    for rule in rules:
        if not callable(rule) and not isinstance(rule, FailureKind):
            raise ConfigurationError(
                f"on={rule!r}: expected a FailureKind, a class of errors, a predicate, or a tuple of these"
            )
    return rules


def is_trouble(error: Exception, failure: Failure) -> bool:
    """Whether another provider may do better: not if the request, or the caller's own code, is at fault."""
    if isinstance(error, ConfigurationError | StreamInterrupted):
        return False
    if failure.category is Category.INVALID_INPUT or failure.kind in _ANSWERS:
        return False
    ours = failure.kind is FailureKind.PERMISSION_DENIED and failure.verdict is Verdict.IGNORED  # a file of ours
    return not ours


class Answer(NamedTuple):
    """
    How one provider did not answer.

    Args:
        place: Where it stands among those that can be asked.
        provider: The provider.
        error: Its error, or the rejection.
        failure: The same, classified.
        rejected: Whether the call was refused before it left.
    """

    place: object
    provider: ResilientProvider
    error: Exception
    failure: Failure
    rejected: bool

    @property
    def reason(self) -> str:
        """Why not, in one word."""
        if self.rejected and isinstance(self.error, CallRejected):
            return self.error.reason.value
        return self.failure.kind.value

    @property
    def trouble(self) -> bool:
        """Whether another provider may do better."""
        return is_trouble(self.error, self.failure)

    @property
    def repeatable(self) -> bool:
        """Whether asking somebody else cannot do a thing twice that must be done once."""
        once = self.provider._plan().idempotent is False
        return not once or self.failure.delivery is Delivery.UNSENT or self.failure.kind in _NOTHING_DONE

    def is_for(self, rules: tuple[ErrorRule, ...] | None) -> bool:
        """Whether *rules* are for this error; None: the usual ones."""
        if rules is None:
            return self.trouble
        try:
            return any(matches(rule, self.error, self.failure) for rule in rules)
        except Exception:  # the error that led here is what the caller must see
            _log.exception("an on= rule failed", extra={"component": "fallback", "provider": self.provider.name})
            return False

    def pays_for(self, provider: ResilientProvider) -> bool:
        """Whether the budget allows to ask *provider* next: at the same one, whichever endpoint, it is a retry."""
        runtime = provider._current()
        same = self.provider._current().common is runtime.common
        if self.rejected or not same or not runtime.settings.budget.enabled:
            return True
        return runtime.common.charge(runtime.clock()) is not None

    @property
    def free_in(self) -> float:
        """In how many seconds the provider may admit the call if that is waited for; ``inf`` if waiting cannot help."""
        if self.rejected and isinstance(self.error, CallRejected):
            return (self.error.retry_after or 0.0) if self.error.reason in _PASSING else math.inf
        runtime = self.provider._current()
        left = runtime.common.gate_left(runtime.clock())
        return left if left > 0 and self.failure.retryable else math.inf


@final
class Tried:
    """Who was asked so far, and what came out."""

    __slots__ = ("_deadline", "answers")

    answers: list[Answer]

    def __init__(self, deadline: Deadline | None) -> None:
        self.answers = []
        self._deadline = deadline

    def add(self, place: object, provider: ResilientProvider, outcome: Outcome[Any]) -> Answer:
        """Note that *provider* did not answer at *place*; a second note of a place replaces the first."""
        error = outcome.error
        assert error is not None  # noqa: S101  # whoever answered ends it
        failure = _REFUSED if outcome.rejected else outcome.failure or provider._current().classify(error)
        answer = Answer(place, provider, error, failure, outcome.rejected)
        self.answers = [*(one for one in self.answers if one.place is not place), answer]
        return answer

    @property
    def last(self) -> Answer:
        """The one asked last."""
        return self.answers[-1]

    @property
    def ends(self) -> bool:
        """Whether nobody else is to be asked: the time that anybody set around this call is over."""
        runtime = self.last.provider._current()
        left = outer_deadline(*here()) - runtime.clock()
        left = min(left, anyio.current_effective_deadline() - anyio.current_time())
        if self._deadline is not None:
            left = min(left, self._deadline.remaining())
        return left <= SLACK

    async def leave_for(self, to: str) -> None:
        """Tell that the call goes on with *to*, and close a result that nobody wanted."""
        last = self.last
        runtime = last.provider._current()
        if runtime.bus.hears(FellBack):
            runtime.bus.emit(
                FellBack(
                    provider=runtime.name,
                    operation=last.provider._plan().operation,
                    time=runtime.wall_clock(),
                    to=to,
                    reason=last.reason,
                )
            )
        if isinstance(last.error, UnacceptableResult):
            await dispose(last.error.result)

    def soonest(self) -> Answer | None:
        """Return the one that is free soonest, if waiting can help with any."""
        if not (self.last.trouble and all(answer.repeatable for answer in self.answers)) or self.ends:
            return None
        best = min(self.answers, key=lambda answer: answer.free_in)
        return best if best.free_in < math.inf and best.pays_for(best.provider) else None

    def result(self) -> Exception:
        """Return what to raise: the one error there is, the caller's own mistake, or what each one said."""
        last = self.last
        if len(self.answers) == 1:
            return last.error
        if not last.trouble:
            for before in self.answers[:-1]:
                annotate(last.error, before.provider.name, f"was asked before ({before.reason})")
            return last.error
        return self._all_failed()

    def _all_failed(self) -> AllProvidersFailed:
        failed = AllProvidersFailed(tuple((answer.provider.name, answer.error) for answer in self.answers))
        real = [answer for answer in self.answers if not answer.rejected]
        if real:
            attach(failed, real[-1].failure)
        failed.__cause__ = (real or self.answers)[-1].error
        return failed
