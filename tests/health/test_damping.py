"""Flapping components: what is reported, on virtual time, against a model that looks at the whole history."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import ProviderRegistry, Settings
from resilience.health import Health, Status
from resilience.settings import HealthSettings
from resilience.testing import run
from resilience.testing.run import Backend

INTERVAL = 10.0
ORDER = list(Status)


def modelled(history: Sequence[Status], *, grace: float, good_answers: int) -> Status:
    """Return what counts after the last answer of a history, one answer per interval."""
    for level in (Status.FAIL, Status.WARN):
        bad = [ORDER.index(answer) >= ORDER.index(level) for answer in history]
        calm = [end for end in range(good_answers, len(bad) + 1) if not any(bad[end - good_answers : end])]
        spell = bad[max(calm, default=0) :]
        if any(spell) and (len(spell) - 1 - spell.index(True)) * INTERVAL >= grace:
            return level
    return Status.PASS


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    history=st.lists(st.sampled_from(ORDER), min_size=1, max_size=25),
    grace=st.sampled_from([0.0, 10.0, 20.0, 35.0, 50.0]),
    good_answers=st.integers(1, 4),
)
@settings(max_examples=40)
def test_news_counts_as_documented(backend: Backend, history: list[Status], grace: float, good_answers: int) -> None:
    """Bad news counts once it has lasted for the grace period, and ends after so many good answers in a row."""

    async def live() -> list[Status]:
        health = Health(
            ProviderRegistry(Settings()), settings=HealthSettings(interval=INTERVAL), clock=anyio.current_time
        )
        answers = iter(history)

        async def check() -> Status:
            return next(answers)

        health.add("database", check, grace=grace, good_answers=good_answers)
        seen = []
        for _ in history:
            report = await health.refresh()
            seen.append(report.components[0].status)
            await anyio.sleep(INTERVAL)
        return seen

    expected = [modelled(history[: n + 1], grace=grace, good_answers=good_answers) for n in range(len(history))]
    assert run(live, backend=backend) == expected


@pytest.mark.anyio
async def test_an_answer_tells_of_news_that_does_not_count_yet() -> None:
    """An operator sees that something is about to fail, and when it will count."""
    health = Health(ProviderRegistry(Settings()), settings=HealthSettings(grace=30), clock=anyio.current_time)
    health.add("database", lambda_failing, critical=True)
    await health.refresh()
    await anyio.sleep(12)
    (component,) = (await health.refresh()).components
    assert (component.status, component.observed, component.bad_for) == (Status.PASS, Status.FAIL, 12)
    assert component.output == "unwell for 12.0 s, which counts from 30 s on"
    assert health.report().ready
    await anyio.sleep(18)
    assert not health.report().ready


async def lambda_failing() -> bool:
    return False
