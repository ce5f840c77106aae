"""How the whole follows from its components."""

from __future__ import annotations

import pytest

from resilience.health import Component, Status
from resilience.health.components import aggregate

PASS, WARN, FAIL = Status


def component(status: Status, number: int = 0, *, critical: bool = False, known: bool = True) -> Component:
    return Component(name=f"c{number}", kind="check", status=status, observed=status, critical=critical, known=known)


def whole(statuses: list[Status], minimum: float | None = None, **options: bool) -> Status:
    components = tuple(component(status, number, **options) for number, status in enumerate(statuses))
    return aggregate(components, minimum_healthy=minimum, draining=False, time=0).status


@pytest.mark.parametrize(
    "statuses, critical, expected",
    [
        ([], False, PASS),
        ([PASS], False, PASS),
        ([PASS], True, PASS),
        ([WARN], False, WARN),
        ([WARN], True, WARN),
        ([FAIL], False, WARN),
        ([FAIL], True, FAIL),
        ([PASS, PASS, FAIL], False, WARN),
        ([PASS, PASS, FAIL], True, FAIL),
    ],
)
def test_only_what_is_critical_fails_the_whole(statuses: list[Status], critical: bool, expected: Status) -> None:
    """One component that others can do without takes nobody out of service."""
    assert whole(statuses, critical=critical) is expected


def test_what_is_critical_has_to_be_known() -> None:
    """A process is not ready before everything critical has answered once."""
    assert whole([WARN], critical=True, known=False) is FAIL
    assert whole([WARN], critical=False, known=False) is WARN


@pytest.mark.parametrize(
    "healthy, total, minimum, expected",
    [
        (0, 0, 0.5, PASS),
        (0, 1, 0.5, FAIL),
        (1, 2, 0.5, FAIL),
        (2, 3, 0.5, WARN),
        (2, 4, 0.5, FAIL),
        (3, 4, 0.5, WARN),
        (4, 4, 0.5, PASS),
        (0, 3, 0.0, FAIL),
        (1, 3, 0.0, WARN),
        (29, 100, 0.29, FAIL),
        (30, 100, 0.29, WARN),
        (7, 10, 0.7, FAIL),
        (8, 10, 0.7, WARN),
    ],
)
@pytest.mark.parametrize("other", [WARN, FAIL])
def test_more_than_the_minimum_must_be_healthy(
    healthy: int, total: int, minimum: float, expected: Status, other: Status
) -> None:
    """Exactly the minimum is not enough, to the last bit; what warns is not healthy."""
    assert whole([PASS] * healthy + [other] * (total - healthy), minimum) is expected


def test_a_process_that_shuts_down_is_not_ready() -> None:
    """Whatever the components say."""
    report = aggregate((component(PASS),), minimum_healthy=None, draining=True, time=0)
    assert (report.status, report.reason, report.ready) == (FAIL, "shutting down", False)


def test_a_report_counts() -> None:
    """How many components there are, and how they are."""
    components = tuple(component(status) for status in [PASS, PASS, PASS, WARN, WARN, FAIL])
    report = aggregate(components, minimum_healthy=None, draining=False, time=0)
    assert (report.total, report.healthy, report.degraded, report.failing) == (6, 3, 2, 1)
    assert report.healthy_share == 0.5
    assert aggregate((), minimum_healthy=None, draining=False, time=0).healthy_share is None
