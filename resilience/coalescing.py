"""Calls of a provider that are the same: those under way at the same time are made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from resilience.plan import Plan
from resilience.policies.coalesce import Coalescer
from resilience.runtime import ProviderRuntime

T = TypeVar("T")


async def coalesced(runtime: ProviderRuntime, plan: Plan, run: Callable[[], Awaitable[T]]) -> T:
    """
    Return what a call of the same key under way brings, or make it by *run*.

    Raises:
        Exception: As *run* does.
    """
    coalescer = runtime.coalescer
    if coalescer is None:
        coalescer = runtime.coalescer = Coalescer(runtime.name, wall_clock=runtime.wall_clock, bus=runtime.bus)
    patience = plan.total
    if plan.options.deadline is not None:
        patience = min(patience, plan.options.deadline.remaining())
    return await coalescer.share(
        (plan.operation, plan.options.coalesce),  # the same text may mean something else in another operation
        run,
        patience=patience,
        operation=plan.operation,
        is_own=coalescer.tells_of_deadline,
    )
