"""
The process's metrics, as Prometheus reads them.

`exposition` is what a ``/metrics`` page answers with; `resilience.health` serves one. Nothing has to be set up before,
but a worker among others tells what it has counted from `begin` on.
`resilience.telemetry.configure` makes this part of one SDK together with the application's own metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from resilience.settings import MetricsSettings
from resilience.telemetry import metrics
from resilience.telemetry._collect import collector
from resilience.telemetry._extras import needs

if TYPE_CHECKING:
    from resilience.telemetry._exposition import Exposition

__all__ = ["begin", "exposition"]

_lock: Final = threading.Lock()
_current: list[Exposition] = []


def exposition(names: Sequence[str] = (), accept: str = "") -> tuple[bytes, str]:
    """
    Return the metrics of this process, or of all its workers, as text.

    Args:
        names: Only these, as in Prometheus's ``name[]``: names of metrics or of single series (``.._bucket``).
            Default: all.
        accept: The request's ``Accept``. OpenMetrics is answered if it is asked for. Default: Prometheus's own format.

    Returns:
        The body of the answer and its ``Content-Type``.

    Raises:
        ImportError: The extra ``prometheus`` is not installed.
    """
    if isinstance(names, str):
        raise TypeError(f"names= takes a sequence of names, such as [{names!r}]")
    with _lock:
        current = _current[0] if _current else start()
    return current.text(names, accept)


def begin(settings: MetricsSettings | None = None) -> None:
    """
    Be ready to answer, if this process is not yet: durations count from now on, and workers tell each other.

    Args:
        settings: Under which names, and with which other workers. Default: those of the environment.

    Raises:
        ImportError: The extra ``prometheus`` is not installed.
        ConfigurationError: The directory that workers share cannot be used.
    """
    with _lock:
        if not _current:
            start(settings)


def start(settings: MetricsSettings | None = None, *, alone: bool = True) -> Exposition:
    """
    Be ready to answer, in place of what was.

    Args:
        settings: Under which names, and with which other workers. Default: those of the environment.
        alone: Whether to set up an SDK just for this. False: the reader is given to one.

    Raises:
        ImportError: The extra ``prometheus`` is not installed.
    """
    with needs("prometheus", "metrics for Prometheus"):
        from opentelemetry.sdk.metrics import MeterProvider

        from resilience.telemetry._exposition import Exposition
    made = Exposition(settings if settings is not None else _settings(), collector)
    if alone:
        made.provider = MeterProvider([made.reader], shutdown_on_exit=False)
        metrics.install(made.provider, instruments=False)
    stop()
    _current.append(made)
    return made


def stop() -> None:
    """Let go of what was set up; the other workers are told for the last time."""
    while _current:
        _current.pop().stop()


def _settings() -> MetricsSettings:
    from resilience.registry import default_registry

    return default_registry().settings.metrics
