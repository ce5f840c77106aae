"""What `resilience top` knows: the last two looks at every process, and what they say about its providers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from resilience.cli.ask import Document, is_document

_BAD: Final = {"fail": 3, "warn": 2}
_STATES: Final = {"open": 3, "forced_open": 3, "half_open": 2}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One provider of one process. None: not known, or not yet.

    Args:
        url: Which process.
        provider: Its name.
        status: pass, warn or fail.
        state: The circuit's, or gated when nothing but the gate is closed.
        since: When the circuit came into it, in seconds since the Unix epoch.
        unwell_for: How long it has not been well, in seconds; a circuit may have opened several times in it.
        calls: Calls that ended, per second since the last look; so are retries and rejections.
        retries: Retries.
        rejected: Calls refused.
        totals: The same three since the process began.
        failures: The calls that failed since then, by kind.
        rejections: The calls that were refused, by reason.
        p50: What half of the calls took at most, in seconds.
        p99: What 99 % of them took at most.
        failing: The share of the calls that failed lately.
        budget: Retries that the budget allows.
        last: The last thing that went wrong.
        last_at: When, in seconds since the Unix epoch.
        reason: What would happen to a call, and why.
        fresh: Whether the process has answered when it was asked last.
    """

    url: str
    provider: str
    status: str
    state: str
    since: float | None
    unwell_for: float | None
    calls: float | None
    retries: float | None
    rejected: float | None
    totals: Mapping[str, int]
    failures: Mapping[str, int]
    rejections: Mapping[str, int]
    p50: float | None
    p99: float | None
    failing: float | None
    budget: float | None
    last: str
    last_at: float | None
    reason: str
    fresh: bool

    @property
    def trouble(self) -> tuple[float, ...]:
        """How much is wrong, the most important first."""
        return (_BAD.get(self.status, 0), _STATES.get(self.state, 0), self.rejected or 0.0, self.failing or 0.0)


@final
@dataclass(slots=True)
class Process:
    """One process, as it was seen last. *problem* says why it did not answer, and *lost* since when."""

    url: str
    document: Document | None = None
    before: Document | None = None
    problem: str = ""
    lost: float | None = None

    @property
    def pid(self) -> int | None:
        """Its number, if it has told it."""
        found = (self.document or {}).get("pid")
        return found if isinstance(found, int) else None

    @property
    def status(self) -> str:
        """The worst of its providers' statuses; empty if nobody knows."""
        return printable((self.document or {}).get("status") or "")

    def answered(self, document: Document) -> None:
        """Take what it said. Whatever it said before it went away is no measure for what it says now."""
        same = self.lost is None and self.document is not None and self.document.get("pid") == document.get("pid")
        self.before = self.document if same else None
        self.document, self.problem, self.lost = document, "", None

    def silent(self, problem: str, now: float) -> None:
        """Take that it did not answer, at *now*."""
        self.problem = problem
        if self.lost is None:
            self.lost = now

    def rows(self) -> list[Row]:
        """Return its providers, as they were when it answered last."""
        if self.document is None:
            return []
        seconds = _number(self.document, "time", 0.0) - _number(self.before, "time", math.inf)
        earlier = _part(self.before or {}, "providers")
        found = _part(self.document, "providers")
        return [
            _row(self, name, entry, _rates(entry, earlier.get(name), seconds))
            for name, entry in found.items()
            if is_document(entry)
        ]


@final
@dataclass(slots=True)
class Board:
    """Every process that is watched, by its address."""

    processes: dict[str, Process] = field(default_factory=dict[str, Process])

    @classmethod
    def of(cls, urls: list[str]) -> Board:
        """Return a board on which nobody has been seen yet."""
        return cls({url: Process(url) for url in urls})

    def rows(self) -> list[Row]:
        """Return every provider of every process, the worst first."""
        found = [row for process in self.processes.values() for row in process.rows()]
        return sorted(found, key=lambda row: ([-part for part in row.trouble], row.provider, row.url))


def printable(value: object) -> str:
    """Return the text that a process told, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def _row(process: Process, name: str, entry: Document, rates: dict[str, float]) -> Row:
    snapshot = _part(entry, "snapshot")
    breaker, latency = _part(snapshot, "breaker"), _part(snapshot, "latency")
    state = printable(breaker.get("state") or "?")
    lately = _number(breaker, "calls", 0.0)
    fresh = process.lost is None
    return Row(
        url=process.url,
        provider=printable(name),
        status=printable(entry.get("status") or "?"),
        state="gated" if state == "closed" and _number(snapshot, "gate_closed_for", 0.0) > 0 else state,
        since=_known(breaker, "since"),
        unwell_for=_known(entry, "unwellFor"),
        calls=rates.get("calls") if fresh else None,
        retries=rates.get("retries") if fresh else None,
        rejected=rates.get("rejected") if fresh else None,
        totals={key: int(value) for key, value in _totals(entry).items()},
        failures=_counts(snapshot, "failures"),
        rejections=_counts(snapshot, "rejections"),
        p50=_known(latency, "p50"),
        p99=_known(latency, "p99"),
        failing=_number(breaker, "failed", 0.0) / lately if lately else None,
        budget=_known(snapshot, "retries_available"),
        last=printable(snapshot.get("last_reason") or ""),
        last_at=_known(snapshot, "last_at"),
        reason=printable(entry.get("reason") or ""),
        fresh=fresh,
    )


def _totals(entry: Document) -> dict[str, float]:
    """Return what is counted since the process began."""
    snapshot = _part(entry, "snapshot")
    ended = [_known(snapshot, key) for key in ("succeeded", "failed", "cancelled")]
    calls = sum(ended_ or 0.0 for ended_ in ended) if ended[0] is not None else _number(snapshot, "calls", 0.0)
    return {"calls": calls, **{key: _number(snapshot, key, 0.0) for key in ("retries", "rejected")}}


def _rates(entry: Document, earlier: object, seconds: float) -> dict[str, float]:
    """Return what happened per second between two looks; nothing for a provider that was not there before."""
    if not is_document(earlier) or not 0 < seconds < math.inf:
        return {}
    before = _totals(earlier)
    return {key: max(0.0, value - before[key]) / seconds for key, value in _totals(entry).items()}


def _part(document: Document, key: str) -> Document:
    found = document.get(key)
    return found if is_document(found) else {}


def _counts(document: Document, key: str) -> dict[str, int]:
    """Return what was counted by some name, the most frequent first."""
    found = _part(document, key)
    counts = {printable(name): int(_number(found, name, 0.0)) for name in found}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _known(document: Document | None, key: str) -> float | None:
    found = (document or {}).get(key)
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _number(document: Document | None, key: str, default: float) -> float:
    found = _known(document, key)
    return default if found is None else found
