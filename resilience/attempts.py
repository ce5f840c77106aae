"""The attempts of one call as an iteration, for a body that is a block and not a function."""

from __future__ import annotations

from types import TracebackType
from typing import final

from resilience.call import Call
from resilience.context import Entered, enter, leave
from resilience.guard import Guard
from resilience.plan import Plan
from resilience.runtime import ProviderRuntime


@final
class _Course:
    """
    How far an iteration has come.

    The attempts know this and not their iterator, so that the iterator dies with its loop, even while an error's
    traceback keeps the loop's last attempt alive.
    """

    __slots__ = ("call", "finished", "untouched")

    finished: bool
    untouched: bool

    def __init__(self) -> None:
        self.call: Call | None = None
        self.finished = False
        self.untouched = False

    def finish(self) -> None:
        """End the iteration: the call is over."""
        self.finished = True
        if self.call is not None:
            self.call.abandoned()
            self.call.forget()


@final
class Attempts:
    """
    Iterates over the attempts of one call. Made by `ResilientProvider.attempts`, used once.

    No scope stays open between iterations: a permit is taken when an attempt's block is entered and returned when it
    is left, whichever way.
    """

    __slots__ = ("_course", "_plan", "_runtime")

    def __init__(self, runtime: ProviderRuntime, plan: Plan) -> None:
        self._runtime = runtime
        self._plan = plan
        self._course = _Course()

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Attempt:
        course = self._course
        if course.finished:
            raise StopAsyncIteration
        if course.untouched:
            raise RuntimeError("the attempt was not entered: write `async with attempt:` inside the loop")
        course.untouched = True
        if course.call is None and not self._runtime.enabled:
            return Attempt(course)
        if course.call is None:
            course.call = Call(self._runtime, self._plan, self._runtime.clock())
        else:
            try:
                await course.call.pause()
            except BaseException:
                course.finish()
                raise
        return Attempt(course)

    def __del__(self) -> None:
        # Left by `break` after a failure: the retry that was paid for never leaves.
        call = self._course.call
        if call is not None:
            call.charge_back()
            call.abandoned(call._began)  # there may be no loop any more, whose clock it is
            call.forget()


@final
class Attempt:
    """One attempt: an asynchronous context manager around its body."""

    __slots__ = ("_call", "_course", "_entered", "_guard")

    def __init__(self, course: _Course) -> None:
        self._course = course
        self._call = course.call
        self._entered: Entered | None = None
        self._guard: Guard | None = None

    @property
    def number(self) -> int:
        """Which attempt this is, counted from 1. Known inside its block."""
        return self._call.attempt if self._call is not None else 1

    async def __aenter__(self) -> Attempt:
        self._course.untouched = False
        if self._call is not None:
            try:
                self._guard = await self._call.enter()
            except BaseException:
                self._course.finish()
                raise
            self._guard.__enter__()
            if self._call._seen is not None:
                self._call._seen.enter()
            if self._call.plan.tells:
                self._entered = enter(self._call.told(self._guard))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        call, guard = self._call, self._guard
        if call is None or guard is None:
            self._course.finish()
            return False
        if self._entered is not None:
            leave(self._entered)
        if call._seen is not None:
            call._seen.leave()
        raised = error
        try:
            try:
                guard.__exit__(kind, error, traceback)
            except BaseException as replaced:
                raised = replaced
            if raised is None:
                call.succeeded(guard.began)
            elif call.failed(raised, guard.began, guard.limit, expired=guard.expired):
                return True
            self._course.finish()
            if raised is not None:
                call.raise_as_asked(raised)
            if raised is not None and raised is not error:
                raise raised
            return False
        finally:
            del raised, error  # they hold this frame
