"""The settings of one provider: every setting, its default and its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, final

from pydantic import Field, field_validator

from resilience.failure import FailureKind
from resilience.settings._checks import Contradiction, is_written, ordered
from resilience.settings._limits import (
    BulkheadSettings,
    CostSettings,
    HedgeSettings,
    RateLimitSettings,
    StreamSettings,
    ThrottleSettings,
)
from resilience.settings._operations import TelemetrySettings
from resilience.settings._places import entry
from resilience.settings._tables import Table, merged, merged_mapping
from resilience.settings._types import (
    Count,
    CountOrZero,
    Duration,
    Errors,
    Factor,
    Frozen,
    FrozenDict,
    Growth,
    IgnoreList,
    Jitter,
    Kind,
    Mode,
    OptionalBool,
    OptionalCount,
    OptionalPositive,
    OptionalProfile,
    OptionalShare,
    Positive,
    Rate,
    ShareOrZero,
    Spread,
)

CUT_BACK_OFF = "every back-off would be cut"
CUT_GROWTH = "open times that grow would be longer than their end from the start"
NO_RATE = "the window would never hold enough calls for a rate"


@final
class RetryRule(Table):
    """How one kind of failure departs from the other retry settings."""

    max_attempts: OptionalCount = None
    """At most so many attempts when the failure is of this kind, the first included. None: no rule of its own."""
    delay_factor: Factor = 1.0
    """The back-off is multiplied by this."""


def _built_in(*, max_attempts: int | None = None, delay_factor: float = 1.0) -> RetryRule:
    """Make a rule that counts as not written: it never hides another when tables are merged."""
    return RetryRule.model_construct(_fields_set=set(), max_attempts=max_attempts, delay_factor=delay_factor)


# The network recovers at once, name servers take a little longer. New credentials are worth one more attempt, and
# somebody has to supply them (a refresh hook). What is set up wrongly stays wrong.
_RULES: FrozenDict[FailureKind, RetryRule] = FrozenDict(
    {
        FailureKind.CONNECTION_ERROR: _built_in(delay_factor=0.5),
        FailureKind.DNS_ERROR: _built_in(delay_factor=2.0),
        FailureKind.AUTHENTICATION_ERROR: _built_in(max_attempts=2),
        FailureKind.CONFIGURATION_ERROR: _built_in(max_attempts=1),
        FailureKind.CERTIFICATE_ERROR: _built_in(max_attempts=1),
    }
)


@final
class RetrySettings(Table):
    """When, how often and how patiently a failed call is tried again."""

    enabled: bool = True
    """Whether failed calls are tried again at all."""
    max_attempts: Count = 3
    """Attempts per call, the first included: 1 means no retry."""
    base_delay: Duration = 1.0
    """The back-off before the first retry, in seconds, before jitter."""
    max_delay: Duration = 60.0
    """No back-off is longer than this, in seconds."""
    exponential_base: Growth = 2.0
    """Each back-off is so many times the one before."""
    jitter: Jitter = "full"
    """How back-offs are spread: full, none, equal, decorrelated, proportional or constant."""
    per_kind: Annotated[Mapping[Kind, RetryRule], Frozen] = Field(default_factory=lambda: _RULES)
    """Rules for single kinds of failure. What is not written keeps its built-in rule."""

    @field_validator("per_kind", mode="after")
    @classmethod
    def _keep_built_in_rules(cls, rules: Mapping[FailureKind, RetryRule]) -> Mapping[FailureKind, RetryRule]:
        return merged_mapping(_RULES, rules)

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from ordered(self, "base_delay <= max_delay", CUT_BACK_OFF)


@final
class BreakerSettings(Table):
    """When a provider's circuit opens, how long it stays open and how it closes again."""

    enabled: bool = True
    """Whether the provider has a circuit breaker at all."""
    mode: Mode = "enforce"
    """enforce; shadow (admit, and record what would have been refused); disabled (admit); forced_open (refuse)."""
    enforced: ShareOrZero = 1.0
    """In mode enforce, this share of the refusals is in earnest; the rest is as in mode shadow."""
    failure_threshold: OptionalCount = 5
    """So many failures in a row open the circuit. None: not for failures in a row."""
    success_threshold: Count = 2
    """So many successful probes close it again."""
    timeout: Positive = 60.0
    """How long it stays open before a probe is let through, in seconds."""
    half_open_max_calls: Count = 1
    """So many probes at a time."""
    failure_rate: OptionalShare = 0.5
    """It also opens when this share of the calls in the window failed. None: not for a failure rate."""
    slow_rate: OptionalShare = 0.8
    """It also opens when this share of the calls in the window was slow. None: not for slowness."""
    minimum_calls: Count = 20
    """Rates are not looked at below so many calls in the window."""
    window: Positive = 30.0
    """How far the window for rates looks back, in seconds."""
    window_calls: OptionalCount = None
    """The window holds the last so many calls, whenever they were, in place of the last *window* seconds."""
    slow_after: OptionalPositive = None
    """A call is slow from this age on, in seconds. None: half the attempt timeout."""
    jitter: Spread = 0.1
    """Open times are drawn from *timeout* times (1 - jitter) to *timeout*."""
    growth: Growth = 1.0
    """Each opening in a row lasts so many times the one before. 1: all alike."""
    max_timeout: Positive = 600.0
    """Growing open times end here, in seconds."""
    probe_lease: OptionalPositive = None
    """A probe that takes longer gives its place to another, in seconds. None: twice the attempt timeout."""
    per_kind: Annotated[Mapping[Kind, Count], Frozen] = Field(default_factory=FrozenDict[FailureKind, int])
    """So many failures of one kind in a row open the circuit, beside the other rules."""
    ignore: IgnoreList = ()
    """What is no evidence against the provider: kinds, exception types or predicates (only kinds outside code)."""

    def _contradictions(self) -> Iterator[Contradiction]:
        if self.has_rates:
            yield from ordered(self, "minimum_calls <= window_calls", NO_RATE)
        if self.slow_rate is not None and self.window_calls is None:
            yield from ordered(self, "slow_after <= window", "slow calls would count when the window has moved on")
        if self.growth > 1:
            yield from ordered(self, "timeout <= max_timeout", CUT_GROWTH)

    @property
    def has_rates(self) -> bool:
        """Whether a failure rate or a slow rate can open the circuit."""
        return self.failure_rate is not None or self.slow_rate is not None


@final
class TimeoutSettings(Table):
    """How long a call may take."""

    attempt: OptionalPositive = 30.0
    """One attempt, in seconds. None: no limit but *total*."""
    total: OptionalPositive = 120.0
    """The whole call with all attempts and waits, in seconds. None: no limit."""

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from ordered(self, "attempt <= total", "one attempt cannot outlast the whole call")


@final
class GateSettings(Table):
    """What happens when a provider asks everybody to stay away for a while."""

    enabled: bool = True
    """Whether such a request holds for all calls to the provider. If not, for the call that met it only."""
    max_wait: Duration = 5.0
    """A call waits so long for the gate to open, in seconds; a longer wait is refused at once."""
    hint_cap: Duration = 120.0
    """Providers are obeyed for at most so long, in seconds."""
    base_delay: Duration = 1.0
    """Without a hint the gate closes for so long, in seconds, and each time in a row for twice as long."""

    def _contradictions(self) -> Iterator[Contradiction]:
        for keys in ("max_wait <= hint_cap", "base_delay <= hint_cap"):
            yield from ordered(self, keys, "the gate is never closed for longer than hint_cap")


@final
class BudgetSettings(Table):
    """How much extra load retries may put on a provider, over all of its calls."""

    enabled: bool = True
    """Whether retries are limited over all calls."""
    ratio: ShareOrZero = 0.2
    """Retries for this share of the calls."""
    window: Positive = 10.0
    """How long a call counts towards the ratio, in seconds."""
    floor_per_second: Rate = 1.0
    """So many retries per second are always allowed."""
    floor_burst: CountOrZero = 10
    """So many of those at once."""


@final
class OperationSettings(Table):
    """What one operation of a provider does differently. What is not written is as for the provider."""

    timeout: TimeoutSettings = TimeoutSettings()
    """Limits for this operation."""
    retry: RetrySettings = RetrySettings()
    """Retries for this operation."""
    idempotent: OptionalBool = None
    """True: repeating it is harmless. False: only what was surely not sent is sent again. None: not known."""
    hedge: HedgeSettings = HedgeSettings()
    """A second attempt beside a slow one, for this operation. It takes the place of *retry*."""
    stream: StreamSettings = StreamSettings()
    """Limits for streams of this operation."""

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from hedged_and_retried(self)
        if self.hedge.enabled and self.idempotent is False:
            reason = "a second attempt beside the first is only harmless where repeating is"
            yield Contradiction(
                ("hedge", "enabled"), value=True, relation="contradicts", other=("idempotent",), other_value=False,
                other_written=True, reason=reason,
            )  # fmt: skip


@final
class ProviderSettings(Table):
    """Everything about one provider."""

    enabled: bool = True
    """False turns every call to it into a plain await."""
    critical: bool = False
    """Whether this process is not ready while the provider is down."""
    profile: OptionalProfile = None
    """What kind of service it is, which brings settings to start from. None: no such kind."""
    errors: Errors = "native"
    """native: the provider's own exceptions come out. standard: `ProviderError`, from the original."""
    retry: RetrySettings = RetrySettings()
    """Retries."""
    breaker: BreakerSettings = BreakerSettings()
    """The circuit breaker."""
    timeout: TimeoutSettings = TimeoutSettings()
    """Time limits."""
    gate: GateSettings = GateSettings()
    """Obedience to the provider's own requests to stay away."""
    budget: BudgetSettings = BudgetSettings()
    """The limit of retries over all calls."""
    rate_limit: RateLimitSettings = RateLimitSettings()
    """Requests and tokens in a time."""
    bulkhead: BulkheadSettings = BulkheadSettings()
    """Attempts at a time."""
    throttle: ThrottleSettings = ThrottleSettings()
    """Restraint while the provider refuses much."""
    cost: CostSettings = CostSettings()
    """Money in a time."""
    hedge: HedgeSettings = HedgeSettings()
    """A second attempt beside a slow one. It takes the place of *retry*."""
    stream: StreamSettings = StreamSettings()
    """Limits for streams."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Traces."""
    operations: Annotated[Mapping[str, OperationSettings], Frozen] = Field(
        default_factory=FrozenDict[str, OperationSettings]
    )
    """What single operations do differently, by name."""

    def for_operation(self, name: str) -> ProviderSettings:
        """Return what holds for the operation *name*: these settings, with what the operation does differently."""
        operation = entry(self.operations, name)
        return self if operation is None else with_operation(self, operation)

    def idempotent(self, operation: str) -> bool | None:
        """Return whether repeating *operation* is harmless; None if nobody said."""
        found = entry(self.operations, operation)
        return None if found is None else found.idempotent

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from hedged_and_retried(self)
        if self.breaker.slow_rate is not None:
            reason = "attempts would be cut before they count as slow"
            yield from ordered(self, "breaker.slow_after < timeout.attempt", reason)
        reason = "a probe would be given up while it may still be answered"
        yield from ordered(self, "timeout.attempt <= breaker.probe_lease", reason)


_PARTS = ("timeout", "retry", "hedge", "stream")


def hedged_and_retried(table: ProviderSettings | OperationSettings) -> Iterator[Contradiction]:
    """Find out whether *table* asks for hedging and for retries both."""
    if table.hedge.enabled and table.retry.enabled and is_written(table, ("retry", "enabled")):
        reason = "a hedged call is not retried; leave retry.enabled out"
        yield Contradiction(
            ("hedge", "enabled"), value=True, relation="contradicts", other=("retry", "enabled"), other_value=True,
            other_written=True, reason=reason,
        )  # fmt: skip


def with_operation(provider: ProviderSettings, operation: OperationSettings) -> ProviderSettings:
    """Lay what *operation* does differently over the settings of its *provider*."""
    written = {part: getattr(operation, part) for part in _PARTS if part in operation.model_fields_set}
    return merged(provider, ProviderSettings.model_construct(_fields_set=set(written), **written))


def overruled(
    written: ProviderSettings | OperationSettings, effective: ProviderSettings, at: tuple[str, ...]
) -> Iterator[Contradiction]:
    """
    Find what was *written* in an entry that would never come true, given what it is laid over.

    Other than for the timeouts, nothing gives way to these values, so a default stands against them too.
    """
    slip = f"{CUT_BACK_OFF}; durations are in seconds, and milliseconds are written 500ms"
    keys = "retry.base_delay <= retry.max_delay"
    yield from ordered(written, keys, slip, effective=effective, at=at, a_default_gives_way=False)
    if effective.breaker.growth > 1:
        keys = "breaker.timeout <= breaker.max_timeout"
        yield from ordered(written, keys, CUT_GROWTH, effective=effective, at=at, a_default_gives_way=False)


@final
class ExperimentSettings(Table):
    """A share of the calls to one provider that runs with other settings, side by side with the rest."""

    share: ShareOrZero = 0.0
    """This share of the calls. 0: none."""
    settings: ProviderSettings = ProviderSettings()
    """What is different for them. What is not written there is as for the provider."""
