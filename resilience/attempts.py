"""The attempts of one call as an iteration, for a body that is a block and not a function."""

from __future__ import annotations

from types import TracebackType
from typing import final

from resilience.call import Call
from resilience.guard import Guard
from resilience.plan import Plan
from resilience.runtime import ProviderRuntime


@final
class Attempts:
    """
    Iterates over the attempts of one call. Made by `ResilientProvider.attempts`, used once.

    No scope stays open between iterations: a permit is taken when an attempt's block is entered and returned when it
    is left, whichever way.
    """

    __slots__ = ("_call", "_finished", "_plan", "_runtime", "untouched")

    def __init__(self, runtime: ProviderRuntime, plan: Plan) -> None:
        self._runtime = runtime
        self._plan = plan
        self._call: Call | None = None
        self._finished = False
        self.untouched = False

    def __aiter__(self) -> Attempts:
        return self

    async def __anext__(self) -> Attempt:
        if self._finished:
            raise StopAsyncIteration
        if self.untouched:
            raise RuntimeError("the attempt was not entered: write `async with attempt:` inside the loop")
        self.untouched = True
        if not self._runtime.enabled:
            return Attempt(self, None)
        if self._call is None:
            self._call = Call(self._runtime, self._plan, self._runtime.clock())
        elif self._call.scheduled:
            await self._call.pause()
        return Attempt(self, self._call)

    def finish(self) -> None:
        """End the iteration: the call is over."""
        self._finished = True
        if self._call is not None:
            self._call.forget()

    def __del__(self) -> None:
        # Left by `break` after a failure: the retry that was paid for never leaves.
        if self._call is not None:
            self._call.charge_back()


@final
class Attempt:
    """One attempt: an asynchronous context manager around its body."""

    __slots__ = ("_attempts", "_call", "_guard")

    def __init__(self, attempts: Attempts, call: Call | None) -> None:
        self._attempts = attempts
        self._call = call
        self._guard: Guard | None = None

    @property
    def number(self) -> int:
        """Which attempt this is, counted from 1. Known inside its block."""
        return self._call.attempt if self._call is not None else 1

    async def __aenter__(self) -> Attempt:
        self._attempts.untouched = False
        if self._call is not None:
            try:
                self._guard = await self._call.enter()
            except BaseException:
                self._attempts.finish()
                raise
            self._guard.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        call, guard = self._call, self._guard
        if call is None or guard is None:
            self._attempts.finish()
            return False
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
            self._attempts.finish()
            if raised is not None:
                call.raise_as_asked(raised)
            if raised is not None and raised is not error:
                raise raised
            return False
        finally:
            del raised, error  # they hold this frame
