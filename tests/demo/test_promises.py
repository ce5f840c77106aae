"""What protection is worth, over twenty seeds on virtual time: the demo's own figures."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean

import pytest

from providers.demo.figures import Figures
from providers.demo.scenario import Scenario, demo_settings, misbehaviour
from resilience import ProviderSettings
from resilience.testing import Misbehaviour

DURATION = 20.0
SEEDS = range(20)
OPEN_FOR = DURATION / 20


def scenario(seed: int) -> Scenario:
    return Scenario(duration=DURATION, rate=40.0, behaviour=misbehaviour(seed, DURATION))


@pytest.fixture(scope="module")
def unprotected(rehearse) -> list[Figures]:
    return [rehearse(scenario(seed)).figures for seed in SEEDS]


@pytest.fixture(scope="module")
def protected(rehearse) -> list[Figures]:
    return [rehearse(scenario(seed), demo_settings(DURATION)).figures for seed in SEEDS]


def test_the_trouble_is_real(unprotected: list[Figures]) -> None:
    """About 85 % of unprotected uploads succeed."""
    assert fmean(figures.success_rate for figures in unprotected) == pytest.approx(0.85, abs=0.015)


def test_nearly_all_succeed_outside_the_outage(protected: list[Figures]) -> None:
    """With every seed, 99 % or more of the files that come outside the outage get through."""
    assert min(figures.success_rate_outside for figures in protected) >= 0.99


def test_nothing_is_reported_as_stored_that_is_not(unprotected: list[Figures], protected: list[Figures]) -> None:
    """What was confirmed is there, with the checksum of what was sent."""
    assert [figures for figures in unprotected + protected if not figures.promises_kept] == []


def test_the_provider_gets_few_extra_requests(protected: list[Figures]) -> None:
    """Retries and probes cost at most 25 % more requests than there are files."""
    assert max(figures.extra_requests for figures in protected) <= 0.25


def test_a_provider_that_is_down_is_left_alone(unprotected: list[Figures], protected: list[Figures]) -> None:
    """In the outage, less than a fifth of the requests reach the provider that would have without protection."""
    pairs = zip(unprotected, protected, strict=True)
    assert [1 for bare, guarded in pairs if guarded.requests_in_outage >= bare.requests_in_outage / 5] == []


def test_calls_without_trouble_are_not_slowed(protected: list[Figures]) -> None:
    """Calls that needed no retry and met no pause take less than 5 % longer than the provider needs."""
    assert min(figures.untroubled for figures in protected) > 500
    assert max(figures.added_share or 0.0 for figures in protected) < 0.05


def test_recovery_is_noticed_within_one_open_period(protected: list[Figures]) -> None:
    """
    The first success follows the end of the outage within one open period, and the time of one slow answer.

    A probe that fails by chance although the outage is over costs one period more.
    """
    slow_answer = 0.5
    late = [
        figures.recovery
        for figures in protected
        if figures.recovery is None or figures.recovery > (1 + figures.unlucky_probes) * OPEN_FOR + slow_answer
    ]
    assert late == []
    assert sum(figures.unlucky_probes == 0 for figures in protected) > 10


def test_circuits_open_for_the_outage_only(protected: list[Figures]) -> None:
    """Every circuit opened in the outage, and none without one."""
    assert [figures.false_opens for figures in protected] == [0] * len(SEEDS)
    assert all(any(change.after == "open" for change in figures.transitions) for figures in protected)


def test_the_default_settings_notice_recovery_within_a_minute(rehearse) -> None:
    """With the default settings, and an outage of a minute, the first success follows its end in under 60 s."""
    for seed in SEEDS:
        behaviour = Misbehaviour(seed=seed, latency=0.04, outages=((120.0, 180.0 + seed),))
        figures = rehearse(Scenario(duration=400.0, rate=1.0, behaviour=behaviour), ProviderSettings()).figures
        assert figures.recovery is not None
        assert figures.recovery < 60
        assert figures.success_rate_outside >= 0.99
        assert figures.promises_kept


def test_both_backends_tell_the_same_story(rehearse) -> None:
    """The scenario runs alike on asyncio and on trio: every figure is the same."""
    told = [
        asdict(rehearse(scenario(3), demo_settings(DURATION), backend=backend).figures)
        for backend in ("asyncio", "trio")
    ]
    assert told[0] == told[1]
