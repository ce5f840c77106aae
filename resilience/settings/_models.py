"""The settings models: every setting, its default and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar, final

from pydantic import BeforeValidator, Field, field_validator

from resilience.settings._tables import Table, merged, merged_mapping
from resilience.settings._types import (
    Count,
    Duration,
    Frozen,
    FrozenDict,
    IgnoreList,
    Kind,
    Number,
    Positive,
    Share,
    Unlimited,
    lower_case,
    no_boolean,
)
from resilience.failure import FailureKind

V = TypeVar("V")


@final
class RetryRule(Table):
    """How one kind of failure departs from the other retry settings."""

    max_attempts: Annotated[Count | None, Unlimited] = None
    """At most so many attempts when the failure is of this kind, the first included. None: no rule of its own."""
    delay_factor: Annotated[Number, Field(ge=0)] = 1.0
    """The back-off is multiplied by this."""


# The network recovers at once, name servers take a little longer. New credentials are worth one more attempt, and
# somebody has to supply them (a refresh hook). What is set up wrongly stays wrong.
_RULES = {
    FailureKind.CONNECTION_ERROR: {"delay_factor": 0.5},
    FailureKind.DNS_ERROR: {"delay_factor": 2.0},
    FailureKind.AUTHENTICATION_ERROR: {"max_attempts": 2},
    FailureKind.CONFIGURATION_ERROR: {"max_attempts": 1},
    FailureKind.CERTIFICATE_ERROR: {"max_attempts": 1},
}
# They count as not written, so they never hide what the defaults say when a provider's entry is merged over them.
_DEFAULT_RULES: Mapping[FailureKind, RetryRule] = FrozenDict(
    {kind: RetryRule.model_construct(_fields_set=set(), **rule) for kind, rule in _RULES.items()}
)

JitterName = Literal["full", "none", "equal", "decorrelated", "proportional", "constant"]


def _jitter_word(value: object) -> object:
    """Read ``RETRY_JITTER=true`` and ``false`` too: full and none."""
    if isinstance(value, bool):
        return "full" if value else "none"
    word = lower_case(value)
    return {"true": "full", "false": "none"}.get(word, word) if isinstance(word, str) else word


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
    exponential_base: Annotated[Number, Field(ge=1)] = 2.0
    """Each back-off is so many times the one before."""
    jitter: Annotated[JitterName, BeforeValidator(_jitter_word)] = "full"
    """How back-offs are spread: full, none, equal, decorrelated, proportional or constant."""
    per_kind: Annotated[Mapping[Kind, RetryRule], Frozen] = _DEFAULT_RULES
    """Rules for single kinds of failure. Kinds that are not named keep their built-in rules."""

    @field_validator("per_kind", mode="after")
    @classmethod
    def _keep_built_in_rules(cls, rules: Mapping[FailureKind, RetryRule]) -> Mapping[FailureKind, RetryRule]:
        return merged_mapping(_DEFAULT_RULES, rules)


@final
class BreakerSettings(Table):
    """When a provider's circuit opens, how long it stays open and how it closes again."""

    enabled: bool = True
    """Whether the provider has a circuit breaker at all."""
    mode: Annotated[Literal["enforce", "shadow", "disabled", "forced_open"], BeforeValidator(lower_case)] = "enforce"
    """enforce; shadow (admit, and record what would have been refused); disabled (admit); forced_open (refuse)."""
    failure_threshold: Annotated[Count | None, Unlimited] = 5
    """So many failures in a row open the circuit. None: not for failures in a row."""
    success_threshold: Count = 2
    """So many successful probes close it again."""
    timeout: Positive = 60.0
    """How long it stays open before a probe is let through, in seconds."""
    half_open_max_calls: Count = 1
    """So many probes at a time."""
    failure_rate: Annotated[Share | None, Unlimited] = 0.5
    """It also opens when this share of the calls in the window failed. None: not for a failure rate."""
    slow_rate: Annotated[Share | None, Unlimited] = 0.8
    """It also opens when this share of the calls in the window was slow. None: not for slowness."""
    minimum_calls: Count = 20
    """Rates are not looked at below so many calls in the window."""
    window: Positive = 30.0
    """How far the window for rates looks back, in seconds."""
    window_calls: Annotated[Count | None, Unlimited] = None
    """The window holds the last so many calls, whenever they were, in place of the last *window* seconds."""
    slow_after: Annotated[Positive | None, Unlimited] = None
    """A call is slow from this age on, in seconds. None: half the attempt timeout."""
    jitter: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Open times are drawn from *timeout* times (1 - jitter) to *timeout*."""
    growth: Annotated[Number, Field(ge=1)] = 1.0
    """Each opening in a row lasts so many times the one before. 1: all alike."""
    max_timeout: Positive = 600.0
    """Growing open times end here, in seconds."""
    probe_lease: Annotated[Positive | None, Unlimited] = None
    """A probe that takes longer gives its place to another, in seconds. None: twice the attempt timeout."""
    per_kind: Annotated[Mapping[Kind, Count], Frozen] = FrozenDict()
    """So many failures of one kind in a row open the circuit, beside the other rules."""
    ignore: IgnoreList = ()
    """What is no evidence against the provider: kinds, exception types or predicates (only kinds outside code)."""


@final
class TimeoutSettings(Table):
    """How long a call may take."""

    attempt: Annotated[Positive | None, Unlimited] = 30.0
    """One attempt, in seconds. None: no limit but *total*."""
    total: Annotated[Positive | None, Unlimited] = 120.0
    """The whole call with all attempts and waits, in seconds. None: no limit."""


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


@final
class BudgetSettings(Table):
    """How much extra load retries may put on a provider, over all of its calls."""

    enabled: bool = True
    """Whether retries are limited over all calls."""
    ratio: Annotated[Number, Field(ge=0, le=1)] = 0.2
    """Retries for this share of the calls."""
    window: Positive = 10.0
    """How long a call counts towards the ratio, in seconds."""
    floor_per_second: Annotated[Number, Field(ge=0)] = 1.0
    """So many retries per second are always allowed."""
    floor_burst: Annotated[int, Field(ge=0), BeforeValidator(no_boolean)] = 10
    """So many of those at once."""


@final
class OperationSettings(Table):
    """What one operation of a provider does differently. Only what is written differs."""

    timeout: TimeoutSettings = TimeoutSettings()
    """Limits for this operation."""
    retry: RetrySettings = RetrySettings()
    """Retries for this operation."""
    idempotent: bool | None = None
    """True: repeating it is harmless. False: only what was surely not sent is sent again. None: not known."""


@final
class ProviderSettings(Table):
    """Everything about one provider."""

    enabled: bool = True
    """False turns every call to it into a plain await."""
    errors: Annotated[Literal["native", "standard"], BeforeValidator(lower_case)] = "native"
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
    operations: Annotated[Mapping[str, OperationSettings], Frozen] = FrozenDict()
    """What single operations do differently, by name."""

    def for_operation(self, name: str) -> ProviderSettings:
        """Return what holds for the operation *name*: these settings, with what the operation does differently."""
        operation = entry(self.operations, name)
        if operation is None:
            return self
        written = {part: getattr(operation, part) for part in ("timeout", "retry") if part in operation.model_fields_set}
        return merged(self, ProviderSettings.model_construct(_fields_set=set(written), **written))

    def idempotent(self, operation: str) -> bool | None:
        """Return whether repeating *operation* is harmless; None if nobody said."""
        found = entry(self.operations, operation)
        return None if found is None else found.idempotent


@final
class Settings(Table):
    """
    All settings of one registry.

    Args:
        enabled: False turns every call into a plain await. Default: True.
        defaults: What holds for every provider. Default: `ProviderSettings()`.
        providers: What single providers do differently, by name; what is not written there comes from *defaults*.
        max_providers: So many providers are kept at a time. Default: 1024.

    Raises:
        ConfigurationError: Something makes no sense; the text names the setting, its value, where it came from and
            the likely slip.
    """

    enabled: bool = True
    """False turns every call into a plain await."""
    defaults: ProviderSettings = ProviderSettings()
    """What holds for every provider."""
    providers: Annotated[Mapping[str, ProviderSettings], Frozen] = FrozenDict()
    """What single providers do differently, by name. What is not written comes from *defaults*."""
    max_providers: Count = 1024
    """So many providers are kept at a time; idle ones make room."""

    def for_provider(self, name: str) -> ProviderSettings:
        """Return what holds for the provider *name*: its own entry over the defaults."""
        own = entry(self.providers, name)
        found = self.defaults if own is None else merged(self.defaults, own)
        return found if self.enabled else merged(found, ProviderSettings(enabled=False))


def folded(name: str) -> str:
    """Spell a name as an environment variable can: lower case, with underscores for dots and dashes."""
    return name.lower().replace("-", "_").replace(".", "_")


def entry(entries: Mapping[str, V], name: str) -> V | None:
    """Find *name*, or its spelling in environment variables: ``my_api`` serves ``my-api`` too."""
    found = entries.get(name)
    return found if found is not None or not entries else entries.get(folded(name))
