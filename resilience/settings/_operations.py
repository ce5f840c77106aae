"""The settings of what stands around the calls: health, metrics, logs, traces, reloading and shutting down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from resilience.settings._checks import Contradiction, is_written, ordered
from resilience.settings._tables import Table
from resilience.settings._types import (
    Duration,
    Host,
    LogFormat,
    LogLevel,
    OptionalDirectory,
    OptionalPart,
    Port,
    Positive,
    Spans,
    UrlPath,
)


@final
class HealthSettings(Table):
    """Where the health of this process is told, and how its checks run."""

    host: Host = "127.0.0.1"
    """The address that `resilience serve` listens on. The default is reached from this machine only."""
    port: Port = 8080
    """The port that it listens on. 0: any that is free."""
    path: UrlPath = "/health"
    """Where the whole is told; what else there is lies below it."""
    interval: Positive = 10.0
    """A check runs at most once in this time, in seconds, however many ask."""
    timeout: Positive = 1.0
    """One check may take so long, in seconds."""
    grace: Duration = 0.0
    """Bad news counts once it has lasted so long, in seconds."""
    minimum_healthy: OptionalPart = None
    """Not ready (503) unless more than this share of the components is healthy. None: only for what is critical."""

    def _contradictions(self) -> Iterator[Contradiction]:
        yield from ordered(self, "timeout <= interval", "a check would still run when the next one is due")


@final
class MetricsSettings(Table):
    """How metrics leave this process."""

    enabled: bool = True
    """Whether metrics are collected and served."""
    path: UrlPath = "/metrics"
    """Where Prometheus finds them."""
    aliases: bool = False
    """Whether the ``circuitbreaker_*`` names are served too, for alerts that exist already."""
    directory: OptionalDirectory = None
    """Pre-fork workers add up their metrics in this directory. None: each worker for itself."""
    interval: Positive = 5.0
    """How often a worker writes there, and how often metrics are sent over OTLP, in seconds."""


def crossed(health: HealthSettings, metrics: MetricsSettings) -> Iterator[Contradiction]:
    """Find out whether metrics would stand where health is told."""
    base, path = health.path.rstrip("/"), metrics.path.rstrip("/")
    taken = {base, *(f"{base}/{page}" for page in ("live", "ready", "providers")), "/livez", "/readyz"}
    if path not in taken and not path.startswith(f"{base}/providers/"):
        return
    both = [("metrics", "path"), ("health", "path")]
    values = [metrics.path, health.path]
    written = [is_written(metrics, ("path",)), is_written(health, ("path",))]
    mine, other = (0, 1) if written[0] else (1, 0)
    reason = "one of them would hide the other"
    yield Contradiction(
        both[mine], values[mine], "does not go with", both[other], values[other], written[other], reason
    )


@final
class LoggingSettings(Table):
    """How `resilience serve` writes its log."""

    format: LogFormat = "console"
    """console (for people); json (one object a line)."""
    level: LogLevel = "INFO"
    """DEBUG, INFO, WARNING, ERROR or CRITICAL, and what is above it."""
    tracebacks: bool = True
    """Whether calls that gave up are told with their traceback. Its last line is the text of a foreign error."""


@final
class ReloadSettings(Table):
    """Whether settings are read anew while the process runs."""

    watch: bool = False
    """Whether the settings file is watched."""
    interval: Positive = 2.0
    """How often it is looked at, in seconds. A change counts when two looks in a row find the same."""


@final
class ShutdownSettings(Table):
    """How a process goes down: no new calls, then *grace*, then *cancel*, then *close*."""

    grace: Duration = 20.0
    """Calls under way may take so long to finish, in seconds."""
    cancel: Duration = 5.0
    """Then they are cancelled, and have so long to clean up, in seconds."""
    close: Duration = 5.0
    """Then adapters are closed, and have so long for it, in seconds."""


@final
class TelemetrySettings(Table):
    """What of a provider is traced."""

    spans: Spans = "sampled"
    """off; sampled (only inside a span that is being recorded); always."""
