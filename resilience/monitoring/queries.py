"""
Queries for Prometheus, made from the names of the metrics: a query cannot ask for what is not measured.

Whoever asks for a metric, or tells its series apart by an attribute, names both by the constants of
`resilience.telemetry.names`. An attribute that the metric does not have is refused while the query is being made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from resilience.telemetry.names import PROVIDER, Instrument, Metric, label

JOB: Final = "job"
INSTANCE: Final = "instance"
_FROM_PROMETHEUS: Final = (JOB, INSTANCE)  # added to every series when it is scraped

Values: TypeAlias = str | tuple[str, ...]
Match: TypeAlias = Mapping[str, Values]
"""By attribute: the value that it must have, or several of which it must have one."""

NOTHING: Final[Match] = {}


@final
@dataclass(frozen=True, slots=True)
class Queries:
    """
    Writes queries that have their scope and their window in common.

    Args:
        window: How far rates look back, such as ``"5m"``.
        by: The labels that every sum keeps apart, beside those that it is asked for.
        ago: How long ago the window ended. Default: it ends now.
        scope: Matchers of every series.
        scope_of_providers: Further matchers, of every series that belongs to a provider.
    """

    window: str
    ago: str = ""
    by: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    scope_of_providers: tuple[str, ...] = ()

    def series(self, metric: Metric, only: Match = NOTHING, unless: Match = NOTHING, suffix: str = "") -> str:
        """
        Return what selects the series of *metric*.

        Args:
            metric: What was measured.
            only: Attributes, and the values that they must have.
            unless: Attributes, and the values that they must not have.
            suffix: The part of a histogram: ``_bucket``, ``_sum`` or ``_count``.
        """
        _check(metric, (*only, *unless))
        if (metric.instrument is Instrument.HISTOGRAM) != bool(suffix):
            raise ValueError(f"{metric.name}: a histogram is asked for by one of its parts, and nothing else is")
        matchers = [*self.scope, *(self.scope_of_providers if PROVIDER in metric.attributes else ())]
        matchers += [_matcher(attribute, values, "=") for attribute, values in only.items()]
        matchers += [_matcher(attribute, values, "!") for attribute, values in unless.items()]
        return f"{metric.prometheus}{suffix}{{{','.join(matchers)}}}"

    def rate(self, metric: Metric, *by: str, only: Match = NOTHING, unless: Match = NOTHING, suffix: str = "") -> str:
        """Return how often a second what *metric* counts happened, summed, the attributes *by* kept apart."""
        return self._folded("sum", metric, by, f"rate({self.series(metric, only, unless, suffix)}{self._range})")

    def increase(self, metric: Metric, *by: str, only: Match = NOTHING, unless: Match = NOTHING) -> str:
        """Return how often what *metric* counts happened within the window, likewise."""
        return self._folded("sum", metric, by, f"increase({self.series(metric, only, unless)}{self._range})")

    def happened(self, metric: Metric, *by: str, only: Match = NOTHING) -> str:
        """
        Return how often something rare happened within the window.

        A counter whose first value is 1 has not grown, says Prometheus; here, what appears within the window counts.
        """
        series = self.series(metric, only)
        return self._folded("sum", metric, by, f"({series} - {series} offset {self.window}) >= 0 or {series}")

    def worst(self, metric: Metric, *by: str, only: Match = NOTHING) -> str:
        """Return the highest value that any process has for a gauge."""
        return self._folded("max", metric, by, self.series(metric, only))

    def least(self, metric: Metric, *by: str, only: Match = NOTHING) -> str:
        """Return the lowest value that any process has for a gauge."""
        return self._folded("min", metric, by, self.series(metric, only))

    def total(self, metric: Metric, *by: str, only: Match = NOTHING) -> str:
        """Return the sum of a gauge over all processes."""
        return self._folded("sum", metric, by, self.series(metric, only))

    def lately(self, metric: Metric, *by: str, only: Match = NOTHING) -> str:
        """Return the highest value that a gauge had in any process within the window."""
        return self._folded("max", metric, by, f"max_over_time({self.series(metric, only)}{self._range})")

    def quantile(self, share: float, metric: Metric, *by: str, unless: Match = NOTHING) -> str:
        """Return the seconds within which *share* of what a histogram measured was done; nothing if nothing was."""
        buckets = self.series(metric, unless=unless, suffix="_bucket")
        summed = self._folded("sum", metric, by, f"rate({buckets}{self._range})", extra=("le",))
        return f"histogram_quantile({share:g}, {summed}) >= 0"

    def mean(self, metric: Metric, *by: str) -> str:
        """Return how many seconds what a histogram measured took on average; nothing if there was nothing."""
        return share(self.rate(metric, *by, suffix="_sum"), self.rate(metric, *by, suffix="_count"))

    def code(self, metric: Metric, attribute: str, codes: Sequence[tuple[str, int]], *by: str) -> str:
        """
        Return the worst state that any process is in, as a number.

        Args:
            metric: A gauge that has a series for each state: 1 for the one that holds, 0 for the others.
            attribute: What tells the states apart.
            codes: A number for each state, the worst with the highest.
            by: The attributes that are kept apart.
        """
        states = " or ".join(f"({self.series(metric, {attribute: state})} == 1) * {code}" for state, code in codes)
        return self._folded("max", metric, by, states)

    @property
    def _range(self) -> str:
        return f"[{self.window}] offset {self.ago}" if self.ago else f"[{self.window}]"

    def _folded(self, how: str, metric: Metric, by: tuple[str, ...], what: str, extra: tuple[str, ...] = ()) -> str:
        _check(metric, by)
        labels = ",".join(dict.fromkeys((*self.by, *map(label, by), *extra)))
        return f"{how} by ({labels}) ({what})" if labels else f"{how}({what})"


def share(part: str, whole: str, *, on: tuple[str, ...] = ()) -> str:
    """
    Return *part* divided by *whole*: 0 where there is nothing of the part, nothing where there is no whole.

    Args:
        part: What is counted.
        whole: What it is a part of.
        on: What the two have in common, where the part is told apart by more. Such a part has no zeros.
    """
    if on:
        labels = ",".join(map(label, on))
        return f"({part}) / on ({labels}) group_left () ({whole} > 0)"
    return f"(({part}) or 0 * {whole}) / ({whole} > 0)"


def _check(metric: Metric, attributes: tuple[str, ...]) -> None:
    for attribute in attributes:
        if attribute not in (*metric.attributes, *_FROM_PROMETHEUS):
            raise ValueError(
                f"{metric.name} is not told apart by {attribute!r}; it is by {', '.join(metric.attributes)}"
            )


def _matcher(attribute: str, values: Values, sign: str) -> str:
    if isinstance(values, str):
        return f'{label(attribute)}{sign if sign == "=" else "!="}"{values}"'
    return f'{label(attribute)}{sign}~"{"|".join(values)}"'
