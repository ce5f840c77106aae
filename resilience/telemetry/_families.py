"""
What is done with the metrics of Prometheus once they are there: chosen, given other names, added up over workers.

All of it is plain functions over what `prometheus_client` collects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from prometheus_client import Metric as Family
from prometheus_client.samples import Sample

from resilience.telemetry import names
from resilience.telemetry.names import Instrument, Merged

_Labels: TypeAlias = tuple[tuple[str, str], ...]
_Series: TypeAlias = tuple[str, _Labels]

_RULES: Final = {one.prometheus: one.merged for one in names.METRICS if one.instrument is Instrument.GAUGE}
_GROWING: Final = ("counter", "histogram", "summary")
_ONE_FOR_ALL: Final = ("target", "python_info")
_WORKER: Final = "pid"


class Worker(NamedTuple):
    """What one worker has told. *pid* is empty if it is not alive any more."""

    pid: str
    families: Sequence[Family]


# -- choosing --------------------------------------------------------------------------------------------------------


def chosen(families: Iterable[Family], wanted: Sequence[str]) -> Iterator[Family]:
    """Return the families that are *wanted*, by their own name or that of a sample; all if none is named."""
    for family in families:
        if not wanted or family.name in wanted:
            yield family
        elif samples := [sample for sample in family.samples if sample.name in wanted]:
            yield _like(family, samples)


# -- other names -----------------------------------------------------------------------------------------------------

_CLOSED, _OPEN, _HALF_OPEN = 0.0, 1.0, 2.0
_WORST: Final = ("open", "forced_open", "half_open")
_AS_NUMBER: Final = {"open": _OPEN, "forced_open": _OPEN, "half_open": _HALF_OPEN}
_RESULTS: Final = {"success_after_retry": "success"}


def aliases(families: Sequence[Family]) -> list[Family]:
    """
    Return the set of metrics that circuit breakers are often watched by.

    ======================================================  ========================================================
    name                                                    value
    ======================================================  ========================================================
    ``circuitbreaker_state{name}``                          0 closed, 1 open, 2 half-open; the worst of all workers
    ``circuitbreaker_requests_total{name,result}``          calls: success, failure, rejected, cancelled
    ``circuitbreaker_state_changes_total{name,from,to}``    changes of state
    ======================================================  ========================================================
    """
    calls = Family("circuitbreaker_requests", "Calls by result.", "counter")
    for (name, result), count in _summed(families, names.CALLS, names.PROVIDER, names.OUTCOME).items():
        calls.add_sample("circuitbreaker_requests_total", {"name": name, "result": result}, count)
    changes = Family("circuitbreaker_state_changes", "Changes of state.", "counter")
    for (name, before, after), count in _summed(
        families, names.TRANSITIONS, names.PROVIDER, names.FROM, names.TO
    ).items():
        labels = {"name": name, "from": before, "to": after}
        changes.add_sample("circuitbreaker_state_changes_total", labels, count)
    return [_states(families), calls, changes]


def _states(families: Sequence[Family]) -> Family:
    found: dict[str, set[str]] = {}
    for sample in _samples(families, names.BREAKER_STATE):
        states = found.setdefault(sample.labels[names.label(names.PROVIDER)], set())
        if sample.value:
            states.add(sample.labels[names.label(names.STATE)])
    family = Family("circuitbreaker_state", "0 closed, 1 open, 2 half-open.", "gauge")
    for name, states in found.items():
        worst = next((_AS_NUMBER[state] for state in _WORST if state in states), _CLOSED)
        family.add_sample("circuitbreaker_state", {"name": name}, worst)
    return family


def _summed(families: Sequence[Family], metric: names.Metric, *attributes: str) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for sample in _samples(families, metric):
        values = [sample.labels.get(names.label(attribute), "") for attribute in attributes]
        key = tuple(_RESULTS.get(value, value) for value in values)
        found[key] = found.get(key, 0.0) + sample.value
    return found


def _samples(families: Sequence[Family], metric: names.Metric) -> Iterator[Sample]:
    wanted = metric.prometheus
    for family in families:
        yield from (sample for sample in family.samples if sample.name == wanted)


# -- workers ---------------------------------------------------------------------------------------------------------


def merged(workers: Iterable[Worker]) -> list[Family]:
    """
    Add up what *workers* have told.

    ========================================  =======================================================================
    what                                      becomes
    ========================================  =======================================================================
    counters and histograms                   the sum, with those of workers that are gone
    our gauges                                the sum or the largest, as their `names.Metric` says, of the living
    what describes the service                the same once
    other gauges: processes, your own         one series for each living worker, with its ``pid``
    ========================================  =======================================================================
    """
    found: dict[str, Family] = {}
    numbers: dict[str, dict[_Series, float]] = {}
    for worker in workers:
        for family in worker.families:
            if not worker.pid and family.type not in _GROWING:
                continue
            into = numbers.setdefault(family.name, {})
            found.setdefault(family.name, _like(family, []))
            for sample in family.samples:
                _add(into, family, sample, worker.pid)
    for name, series in numbers.items():
        found[name].samples = [Sample(sample, dict(labels), value) for (sample, labels), value in series.items()]
    return list(found.values())


def _add(into: dict[_Series, float], family: Family, sample: Sample, pid: str) -> None:
    adds = family.type in _GROWING and not sample.name.endswith("_created")
    rule = Merged.SUM if adds else _RULES.get(sample.name, Merged.MAX)
    alone = family.type not in _GROWING and sample.name not in _RULES and family.name not in _ONE_FOR_ALL
    labels = {**sample.labels, _WORKER: pid} if alone else sample.labels
    series = sample.name, tuple(sorted(labels.items()))
    known = into.get(series)
    if known is None:
        into[series] = sample.value
    else:
        into[series] = known + sample.value if rule is Merged.SUM else max(known, sample.value)


def dumped(families: Iterable[Family]) -> Any:
    """Return *families* as JSON can hold them."""
    return [
        [one.name, one.documentation, one.type, [[sample.name, sample.labels, sample.value] for sample in one.samples]]
        for one in families
    ]


def loaded(dump: Any) -> list[Family]:
    """Return the families that were `dumped`."""
    families: list[Family] = []
    for name, documentation, kind, samples in dump:
        family = Family(name, documentation, kind)
        family.samples = [Sample(sample, labels, value) for sample, labels, value in samples]
        families.append(family)
    return families


def _like(family: Family, samples: list[Sample]) -> Family:
    copy = Family(family.name, family.documentation, family.type)
    copy.samples = samples
    return copy
