"""What a pass amounts to, in figures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from providers.demo.scenario import Job, Record
from resilience import CircuitState
from resilience.testing import ProviderStatistics


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of the breaker's state, in seconds after the start of the pass."""

    time: float
    before: str
    after: str
    figures: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    One pass, in figures. Rates are between 0 and 1, times in seconds; None means that there is nothing to measure.

    Args:
        files: How many files there were.
        success_rate: The share of all files that were reported as stored.
        success_rate_outside: The share of those that arrived while the provider was not down.
        requests: How many requests reached the provider.
        extra_requests: How many more than files, as a share of the files.
        requests_in_outage: How many reached it while it was down.
        refusals: How often we refused a request in its place.
        p50: The median time from a file's arrival until it was stored.
        p99: The time within which 99 % of the stored files were stored.
        added_seconds: What was added, on average, to a call that had no trouble: one attempt, no refusal, no pause.
        added_share: The same in proportion to the time the provider took.
        untroubled: How many calls that was measured on.
        recovery: From the end of the last outage to the first success after it.
        unlucky_probes: How often the circuit opened again because a probe failed although the outage was over.
        retries_per_call: Retries, in proportion to the files.
        false_opens: How often the circuit opened, from closed, without an outage.
        missing: Files that were reported as stored and are not there.
        corrupted: Files that are there, but not as they were sent.
        errors: How many files were given up, by the class of the last error.
        transitions: The breaker's changes of state.
    """

    files: int
    success_rate: float
    success_rate_outside: float
    requests: int
    extra_requests: float
    requests_in_outage: int
    refusals: int
    p50: float | None
    p99: float | None
    added_seconds: float | None
    added_share: float | None
    untroubled: int
    recovery: float | None
    unlucky_probes: int
    retries_per_call: float
    false_opens: int
    missing: int
    corrupted: int
    errors: Mapping[str, int]
    transitions: Sequence[Transition]

    @property
    def promises_kept(self) -> bool:
        """Whether everything that was reported as stored really is."""
        return not self.missing and not self.corrupted


def figures(record: Record, site: ProviderStatistics, stored: Mapping[str, str]) -> Figures:
    """
    Sum up a pass.

    Args:
        record: What happened.
        site: What reached the provider.
        stored: The SHA-256 of every file that the provider holds, as it told afterwards.
    """
    jobs = record.jobs
    down = record.scenario.behaviour.down
    durations = sorted(job.ended - job.began for job in jobs if job.stored)
    untroubled = _untroubled(record)
    added = sum(job.outside for job in untroubled)
    inside = sum(job.inside for job in untroubled)
    recovery = _recovery(record)
    return Figures(
        files=len(jobs),
        success_rate=_success_rate(jobs),
        success_rate_outside=_success_rate([job for job in jobs if not down(job.began)]),
        requests=site.received,
        extra_requests=site.received / len(jobs) - 1,
        requests_in_outage=site.received_in_outage,
        refusals=sum(job.refusals for job in jobs),
        p50=_quantile(durations, 0.50),
        p99=_quantile(durations, 0.99),
        added_seconds=added / len(untroubled) if untroubled else None,
        added_share=added / inside if inside else None,
        untroubled=len(untroubled),
        recovery=recovery,
        unlucky_probes=_unlucky_probes(record),
        retries_per_call=len(record.events.retries) / len(jobs),
        false_opens=_false_opens(record),
        missing=sum(job.stored and job.name not in stored for job in jobs),
        corrupted=sum(job.name in stored and stored[job.name] != _digest(job) for job in jobs),
        errors=dict(Counter(job.error for job in jobs if job.error)),
        transitions=[
            Transition(time=one.time, before=str(one.before), after=str(one.after), figures=one.figures)
            for one in record.events.transitions
        ],
    )


def _success_rate(jobs: Sequence[Job]) -> float:
    return sum(job.stored for job in jobs) / len(jobs) if jobs else 1.0


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def _digest(job: Job) -> str:
    return hashlib.sha256(job.body).hexdigest()


def _untroubled(record: Record) -> list[Job]:
    """The calls on which nothing but our own overhead can have been added: the provider had no complaint."""
    pauses = [(pause.time, pause.time + pause.seconds) for pause in record.events.pauses]

    def paused(job: Job) -> bool:
        return any(begin <= job.began < end for begin, end in pauses)

    return [job for job in record.jobs if job.stored and job.attempts == 1 and not job.refusals and not paused(job)]


def _recovery(record: Record) -> float | None:
    end = _last_end(record)
    if end is None:
        return None
    return min((job.ended - end for job in record.jobs if job.stored and job.ended >= end), default=None)


def _unlucky_probes(record: Record) -> int:
    """How often a probe failed although the outage was over: the circuit cannot know that it was mere chance."""
    end = _last_end(record)
    return sum(
        change.before is CircuitState.HALF_OPEN and change.after is CircuitState.OPEN and change.time >= end
        for change in record.events.transitions
        if end is not None
    )


def _last_end(record: Record) -> float | None:
    return max((end for _, end in record.scenario.behaviour.outages), default=None)


def _false_opens(record: Record) -> int:
    """Openings from closed while no outage can be the cause, not even by requests that it caught in flight."""
    grace = 20 * record.scenario.behaviour.latency
    outages = record.scenario.behaviour.outages
    return sum(
        change.after is CircuitState.OPEN
        and change.before is CircuitState.CLOSED
        and not any(begin <= change.time < end + grace for begin, end in outages)
        for change in record.events.transitions
    )
