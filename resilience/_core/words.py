"""The words that decisions are made in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, final


class Verdict(Enum):
    """
    What one attempt says about the provider's health: the ternary outcome.

    Anything that is not evidence, such as a caller's cancellation, is `IGNORED`: it returns the permit and
    counts as nothing.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"


class Reason(StrEnum):
    """Why a call was refused, or why it was not tried again. The values are metric attributes."""

    CIRCUIT_OPEN = "circuit_open"
    HALF_OPEN_SATURATED = "half_open_saturated"
    FORCED_OPEN = "forced_open"
    PROVIDER_GATED = "provider_gated"
    DEADLINE_WOULD_PASS = "deadline_would_pass"
    RETRY_DISABLED = "retry_disabled"
    NOT_RETRYABLE = "not_retryable"
    NOT_IDEMPOTENT = "not_idempotent"
    ATTEMPTS_SPENT = "attempts_spent"
    ALREADY_RETRIED = "already_retried"
    HINT_BEYOND_CAP = "hint_beyond_cap"
    RETRY_BUDGET_EXHAUSTED = "retry_budget_exhausted"
    HEDGED = "hedged"
    BULKHEAD_FULL = "bulkhead_full"
    BULKHEAD_TIMEOUT = "bulkhead_timeout"
    SHED = "shed"
    PENDING_FULL = "pending_full"
    RATE_LIMITED = "rate_limited"
    RATE_OVERSIZED = "rate_oversized"
    THROTTLED = "throttled"
    COST_EXHAUSTED = "cost_budget_exhausted"
    STREAM_COMMITTED = "stream_committed"
    SHUTTING_DOWN = "shutting_down"


class Priority(StrEnum):
    """
    How much a call matters when there is no room for all.

    *sheddable* calls are refused first, and *critical* ones last.
    """

    CRITICAL = "critical"
    DEFAULT = "default"
    SHEDDABLE = "sheddable"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What a call uses up besides time.

    Args:
        tokens: Weighted units of the rate limit, such as an LLM's tokens. None: not known.
        cost: Money, in the unit of the cost limit. None: not known.
    """

    tokens: int | None = None
    cost: float | None = None


def many(count: int, what: str) -> str:
    """Return *count* of *what*, as people write it."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class Unset(Enum):
    """The type of `UNSET`, which tells "not given" from None, "no limit"."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
