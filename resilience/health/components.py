"""
What health is made of, and how the health of the whole follows from that of its components.

==========================================================================  ===========  ==============
what                                                                        the whole    ready
==========================================================================  ===========  ==============
the process is shutting down                                                fail         no (503)
a critical component fails, or nobody knows yet how it is                   fail         no (503)
not more than ``health.minimum_healthy`` of the components pass             fail         no (503)
any other component does not pass                                           warn         yes (200)
otherwise                                                                   pass         yes (200)
==========================================================================  ===========  ==============
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias, final

from resilience._core.words import many

Kind: TypeAlias = Literal["provider", "check"]


@final
class Status(StrEnum):
    """How something is. The values are those of the health format, and metric attributes."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


BADNESS: Final = {Status.PASS: 0, Status.WARN: 1, Status.FAIL: 2}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """
    How one component is.

    Args:
        name: Its name; a provider's holds ``/endpoint`` where there is one.
        kind: What it is: a provider of the registry, or a check that somebody added.
        status: How it is, as it counts.
        observed: How it was seen last; it differs from *status* while damping holds news back.
        critical: Whether the whole fails with it.
        known: Whether anybody knows yet how it is.
        output: Why, in a sentence; empty if there is nothing to say.
        component_id: What it is called elsewhere; empty if nowhere.
        component_type: ``component``, ``datastore`` or ``system``, or a URI.
        value: What was measured: the state of a circuit, or the seconds that a check took. None: nothing yet.
        time: When it was seen so, in seconds since the Unix epoch. None: never.
        bad_for: For how many seconds it has been seen unwell. None: it is well.
    """

    name: str
    kind: Kind
    status: Status
    observed: Status
    critical: bool
    known: bool = True
    output: str = ""
    component_id: str = ""
    component_type: str = "component"
    value: str | float | None = None
    time: float | None = None
    bad_for: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    How everything is.

    Args:
        status: How the whole is.
        reason: Which rule decided that, with figures; empty if all is well.
        components: What it was made of.
        minimum_healthy: The share of them that must be exceeded; None if there is no such rule.
        draining: Whether the process is shutting down.
        time: When, in seconds since the Unix epoch.
    """

    status: Status
    reason: str
    components: tuple[Component, ...]
    minimum_healthy: float | None
    draining: bool
    time: float

    @property
    def total(self) -> int:
        """How many components there are."""
        return len(self.components)

    @property
    def healthy(self) -> int:
        """How many pass."""
        return self._count(Status.PASS)

    @property
    def degraded(self) -> int:
        """How many warn."""
        return self._count(Status.WARN)

    @property
    def failing(self) -> int:
        """How many fail."""
        return self._count(Status.FAIL)

    @property
    def healthy_share(self) -> float | None:
        """Which share passes; None if there are no components."""
        return self.healthy / self.total if self.components else None

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.status is not Status.FAIL

    def _count(self, status: Status) -> int:
        return sum(one.status is status for one in self.components)


def aggregate(
    components: tuple[Component, ...], *, minimum_healthy: float | None, draining: bool, time: float
) -> Report:
    """Return how the whole is, by the rules above: the first that applies decides."""
    decided = _decide(components, minimum_healthy, draining)
    status, reason = decided if decided is not None else (Status.PASS, "")
    return Report(
        status=status,
        reason=reason,
        components=components,
        minimum_healthy=minimum_healthy,
        draining=draining,
        time=time,
    )


def _decide(
    components: tuple[Component, ...], minimum_healthy: float | None, draining: bool
) -> tuple[Status, str] | None:
    if draining:
        return Status.FAIL, "shutting down"
    failing = [one.name for one in components if one.critical and (one.status is Status.FAIL or not one.known)]
    if failing:
        return Status.FAIL, f"critical and not healthy: {', '.join(failing)}"
    unwell = [one.name for one in components if one.status is not Status.PASS]
    healthy, total = len(components) - len(unwell), len(components)
    # A quotient of whole numbers is the same float as the share that somebody wrote; a product need not be.
    if minimum_healthy is not None and components and healthy / total <= minimum_healthy:
        share = f"{minimum_healthy * 100:g} %"
        return Status.FAIL, f"{healthy} of {many(total, 'component')} healthy, more than {share} must be"
    if unwell:
        return Status.WARN, f"{len(unwell)} of {many(total, 'component')} not healthy: {', '.join(unwell)}"
    return None


def rules(minimum_healthy: float | None) -> tuple[str, ...]:
    """Return the rules in words, as they stand in every answer."""
    ratio = "" if minimum_healthy is None else f"; unless more than {minimum_healthy * 100:g} % of the components pass"
    return (
        f"fail: while shutting down; if a critical component fails or is not known yet{ratio}",
        "warn: if any component does not pass",
        "pass: otherwise",
    )
