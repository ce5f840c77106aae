"""The settings of what a provider may do to more than one call: limits, hedges and streams. All are off by default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from resilience.settings._checks import Contradiction, ordered
from resilience.settings._tables import Table
from resilience.settings._types import (
    Adaptive,
    Count,
    CountOrZero,
    Duration,
    Latency,
    LimitMode,
    Multiple,
    OptionalAmount,
    OptionalCount,
    OptionalPositive,
    Order,
    Oversized,
    Positive,
    Share,
    ShareOrZero,
    SmallShare,
)


@final
class BulkheadSettings(Table):
    """How many attempts may run at once, and who waits for a place."""

    max_concurrent: OptionalCount = None
    """So many attempts at once. None: no limit of our own (an adaptive one may still hold)."""
    max_queue: CountOrZero = 64
    """So many callers wait for a place; the next one is refused."""
    max_wait: Duration = 5.0
    """A caller waits so long for a place, in seconds."""
    order: Order = "fifo"
    """fifo; adaptive_lifo (newest first while the line does not empty: those who waited longest have given up)."""
    max_pending: OptionalCount = None
    """So many callers may be waiting in any way, asleep in back-off included. None: no limit."""
    adaptive: Adaptive = "off"
    """off; aimd (on refusals and timeouts); vegas (on a latency). Finds the limit by itself, up to *max_concurrent*."""
    min_limit: Count = 1
    """An adaptive limit never falls below this."""
    max_limit: Count = 200
    """An adaptive limit never rises above this."""
    initial_limit: Count = 20
    """Where an adaptive limit starts."""
    latency: Latency = "attempt"
    """What vegas looks at: attempt (all of it), or first_item (of a stream)."""
    mode: LimitMode = "enforce"
    """enforce; shadow (admit, and tell who would have been refused); disabled."""
    enforced: ShareOrZero = 1.0
    """In mode enforce, this share of the refusals is in earnest; the rest is as in mode shadow."""

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from ordered(self, "min_limit <= max_limit", "an adaptive limit would have no room")
        yield from ordered(self, "min_limit <= initial_limit", "the limit would start below its own floor")
        yield from ordered(self, "initial_limit <= max_limit", "the limit would start above its own end")

    @property
    def limits(self) -> bool:
        """Whether attempts at once are limited in any way."""
        return self.mode != "disabled" and (self.max_concurrent is not None or self.adaptive != "off")


@final
class RateLimitSettings(Table):
    """How many requests, and how many tokens, may be sent in a time."""

    requests_per_second: OptionalAmount = None
    """Requests in a second. None: no such limit."""
    requests_per_minute: OptionalAmount = None
    """Requests in a minute. None: no such limit."""
    requests_per_day: OptionalAmount = None
    """Requests in a day. None: no such limit."""
    tokens_per_minute: OptionalAmount = None
    """Weighted units, such as an LLM's tokens, in a minute. None: no such limit."""
    tokens_per_day: OptionalAmount = None
    """Weighted units in a day. None: no such limit."""
    burst: OptionalCount = None
    """So many requests at once, within the shortest window of requests. None: all that this window allows."""
    token_estimate: CountOrZero = 0
    """Tokens to reserve for a call that does not say."""
    oversized: Oversized = "refuse"
    """A call that needs more tokens than ever fit: refuse it, or clamp what it reserves."""
    max_wait: Duration = 5.0
    """A caller waits so long for its turn, in seconds."""
    max_queue: CountOrZero = 1024
    """So many callers wait; the next one is refused."""
    follow_headers: bool = True
    """Whether the provider's own headers may tighten the limit."""
    mode: LimitMode = "enforce"
    """enforce; shadow (admit, and tell who would have waited or been refused); disabled."""
    enforced: ShareOrZero = 1.0
    """In mode enforce, this share of the refusals is in earnest; the rest is as in mode shadow."""

    @property
    def limits(self) -> bool:
        """Whether there is a limit of any kind."""
        return self.mode != "disabled" and any(
            getattr(self, name) is not None for name in type(self).model_fields if "_per_" in name
        )


@final
class ThrottleSettings(Table):
    """Whether to send fewer calls while the provider refuses many (adaptive throttling)."""

    enabled: bool = False
    """Whether calls are held back at all."""
    ratio: Multiple = 2.0
    """Up to so many calls are sent for each one that the provider accepts."""
    window: Positive = 120.0
    """How far it looks back, in seconds."""
    max_reject: Share = 0.9
    """At most this share of the calls is held back, so that recovery is noticed."""
    minimum_calls: Count = 10
    """Nothing is held back below so many calls in the window."""
    mode: LimitMode = "enforce"
    """enforce; shadow (admit, and tell who would have been refused); disabled."""
    enforced: ShareOrZero = 1.0
    """In mode enforce, this share of the refusals is in earnest; the rest is as in mode shadow."""

    @property
    def limits(self) -> bool:
        """Whether it is at work."""
        return self.enabled and self.mode != "disabled"


@final
class CostSettings(Table):
    """How much money may be spent in a time."""

    limit: OptionalAmount = None
    """So much, in any unit, in each *window*. None: no limit."""
    window: Positive = 86400.0
    """How long money counts as spent, in seconds."""
    mode: LimitMode = "enforce"
    """enforce; shadow (admit, and tell who would have been refused); disabled."""
    enforced: ShareOrZero = 1.0
    """In mode enforce, this share of the refusals is in earnest; the rest is as in mode shadow."""

    @property
    def limits(self) -> bool:
        """Whether there is a limit."""
        return self.mode != "disabled" and self.limit is not None


@final
class HedgeSettings(Table):
    """Whether a call that takes unusually long gets a second attempt beside it. Only for what is idempotent."""

    enabled: bool = False
    """Whether calls are hedged. Hedging takes the place of retries."""
    max_extra_load: SmallShare = 0.05
    """At most this share of calls gets a second attempt: 0.05 hedges beyond the 95th percentile."""
    min_delay: Duration = 0.0
    """The second attempt never starts earlier than this, in seconds."""
    max_delay: OptionalPositive = None
    """The second attempt never starts later than this, in seconds, if it starts. None: no bound."""
    warm_up: Count = 50
    """No hedging before so many latencies are known."""
    latency_window: Positive = 60.0
    """How far the latencies look back, in seconds."""

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from ordered(self, "min_delay <= max_delay", "no delay would be allowed")


@final
class StreamSettings(Table):
    """How long the parts of a stream may take. No attempt timeout holds beside these."""

    connect: OptionalPositive = None
    """Until the stream is open, in seconds. None: as for an attempt."""
    first_item: OptionalPositive = None
    """From then to the first item, in seconds. None: as for an attempt."""
    idle: OptionalPositive = 30.0
    """Between two items, in seconds. None: no limit."""
    total: OptionalPositive = None
    """The whole stream, in seconds. None: no limit."""
    keep: CountOrZero = 0
    """So many of the last items are kept for `StreamInterrupted`."""
