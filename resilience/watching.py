"""
Hooks for those who follow calls from their beginning to their end, such as tracing.

Events tell what has happened; a trace has to be there before it does, so that what the user's function does lies
within it. There is at most one watcher in a process. Where there is none, or where it does not record what goes on at
the moment, a call pays nothing, or one look.

======================================  ===========================================================================
what happens                            what is told, each exactly once and in this order
======================================  ===========================================================================
a call begins                           `Watcher.call`, and around its work `Watch.enter` and `leave`
an attempt has its permit               `Watch.attempt`, and around the user's function `enter` and `leave`
the attempt is over                     `AttemptWatch.ended`
the call is over                        `Watch.ended`
======================================  ===========================================================================

A held attempt (a stream, a response) is left when the function has returned, and is over when it is let go.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Protocol, final

from resilience._core.words import Reason
from resilience.failure import Failure


@final
class End(StrEnum):
    """How a call or an attempt ended. The values are those of the attribute ``resilience.outcome``."""

    SUCCESS = "success"
    SUCCESS_AFTER_RETRY = "success_after_retry"
    FAILURE = "failure"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class AttemptWatch(Protocol):
    """Follows one attempt."""

    def enter(self) -> None:
        """The user's function begins, in the context of this very task."""

    def leave(self) -> None:
        """It has returned, raised or been cancelled, in the same context."""

    def ended(self, end: End, /, *, failure: Failure | None, error: BaseException | None) -> None:
        """The attempt is over. Neither *failure* nor *error* may be kept."""


class Watch(Protocol):
    """Follows one call."""

    def enter(self) -> None:
        """The call goes to work, in the context of this very task."""

    def leave(self) -> None:
        """It has a result or an error, in the same context. It may still be held open."""

    def attempt(self, number: int, /) -> AttemptWatch:
        """An attempt is about to leave: the call's *number*-th, counted from 1."""
        ...

    def ended(
        self,
        end: End,
        /,
        *,
        attempts: int,
        failure: Failure | None,
        reason: Reason | None,
        error: BaseException | None,
    ) -> None:
        """The call is over after *attempts* attempts. *reason*: why it was refused, or not tried again."""


class Watcher(Protocol):
    """Decides which calls are followed."""

    def recording(self) -> bool:
        """Whether what goes on in the current context is being recorded. Asked before each call: it must be quick."""
        ...

    def call(self, provider: str, operation: str, *, variant: str) -> Watch | None:
        """A call begins, in the current context. None: it is not followed."""
        ...


@final
class Observed:
    """
    What this process wants to know of its calls beyond the numbers that are always there.

    Attributes:
        metered: Whether durations are counted.
        watcher: Who follows calls; None: nobody.
    """

    __slots__ = ("metered", "watcher")

    metered: bool
    watcher: Watcher | None

    def __init__(self) -> None:
        self.metered = False
        self.watcher = None


observed: Final = Observed()
"""Read by every call that looks closer. It is set by those who also tell the lanes (see `resilience.runtime`)."""
