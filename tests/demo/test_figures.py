"""The demo's figures, picture and progress mean what they say."""

from __future__ import annotations

import io
import json

import anyio
import httpx
import pytest

from providers.demo import report
from providers.demo.figures import Transition, figures
from providers.demo.progress import Progress
from providers.demo.report import Pass
from providers.demo.run import perform
from providers.demo.scenario import Job, Record, Scenario, demo_settings, misbehaviour
from providers.demo.timeline import ASCII, circuit_line, load_line, provider_line
from providers.http import client
from resilience import ProviderSettings, RetrySettings
from resilience.testing import MisbehavingProvider, MisbehavingTransport, Misbehaviour, ProviderStatistics, run


def record(*jobs: Job, behaviour: Misbehaviour | None = None) -> Record:
    scenario = Scenario(duration=10.0, rate=1.0, behaviour=behaviour or Misbehaviour())
    return Record(scenario=scenario, settings=None, jobs=list(jobs))


def job(number: int, *, began: float = 0.0, ended: float = 1.0, stored: bool = True) -> Job:
    return Job(
        name=f"file-{number}",
        body=b"",
        began=began,
        ended=ended,
        stored=stored,
        attempts=1,
        error="" if stored else "X",
    )


SITE = ProviderStatistics(received=5, received_in_outage=1, stored=3, behaviours={})


class Careless(httpx.AsyncBaseTransport):
    """Confirms every upload, but loses one and spoils another."""

    def __init__(self, site: MisbehavingProvider) -> None:
        self._site = site
        self._honest = MisbehavingTransport(site)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._honest.handle_async_request(request)
        if request.method == "PUT" and request.url.path.endswith("3"):
            del self._site.files["file-00003"]
        if request.method == "PUT" and request.url.path.endswith("7"):
            self._site.files["file-00007"] += b"!"
        return response


def perform_carelessly() -> Pass:
    async def main() -> Pass:
        site = MisbehavingProvider(clock=anyio.current_time)
        async with client(base_url="http://uploads", transport=Careless(site)) as http:
            scenario = Scenario(duration=1.0, rate=10.0, behaviour=site.behaviour)
            return await perform(scenario, site, http, ProviderSettings())

    return run(main)


def test_lost_and_spoilt_files_are_found() -> None:
    """A file that was confirmed and is not there, or is not what was sent, breaks the promise."""
    found = perform_carelessly().figures
    assert (found.success_rate, found.missing, found.corrupted, found.promises_kept) == (1.0, 1, 1, False)


def test_a_broken_promise_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command fails, and says why, if a confirmed file is missing."""
    careless = perform_carelessly()

    async def on_loopback(*_: object) -> Pass:
        return careless

    monkeypatch.setattr("providers.demo.run.on_loopback", on_loopback)
    from providers.demo.run import run as demo

    assert demo(seed=1, duration=1.0, rate=10.0, json=False, headless=True) == 1
    assert "BROKEN PROMISE" in capsys.readouterr().out


def test_success_is_told_with_and_without_the_outage() -> None:
    """Files that came during the outage count for the whole, not for the share outside it."""
    jobs = [job(1), job(2, began=5.0, stored=False), job(3, began=7.0), job(4, began=8.0, stored=False)]
    found = figures(record(*jobs, behaviour=Misbehaviour(outages=((4.0, 6.0),))), SITE, {})
    assert (found.success_rate, found.success_rate_outside) == (0.5, pytest.approx(2 / 3))
    assert (found.requests, found.extra_requests, found.requests_in_outage) == (5, 0.25, 1)
    assert found.errors == {"X": 2}


def test_recovery_counts_from_the_end_of_the_outage() -> None:
    """The first success that ends after the outage is when recovery was noticed; earlier ones do not count."""
    behaviour = Misbehaviour(outages=((4.0, 6.0),))
    found = figures(record(job(1, ended=5.5), job(2, ended=9.0), job(3, ended=7.5), behaviour=behaviour), SITE, {})
    assert found.recovery == 1.5
    assert figures(record(job(1, ended=5.5), behaviour=behaviour), SITE, {}).recovery is None


def test_quantiles_are_of_stored_files_only() -> None:
    """A file that was given up quickly does not make the others look fast."""
    jobs = [job(number, ended=float(number)) for number in range(1, 101)]
    found = figures(record(*jobs, job(101, ended=0.0, stored=False)), SITE, {})
    assert (found.p50, found.p99) == (51.0, 100.0)


def test_the_picture_shows_what_happened_when() -> None:
    """Each row of the timeline has its events in the right columns."""
    behaviour = Misbehaviour(outages=((2.0, 4.0),), pauses=((6.0, 7.0),))
    transitions = [
        Transition(time=2.5, before="closed", after="open", figures=""),
        Transition(time=4.2, before="open", after="half_open", figures=""),
        Transition(time=4.3, before="half_open", after="closed", figures=""),
    ]
    assert provider_line(behaviour, 10.0, 10, ASCII) == "--##--~---"
    assert circuit_line(transitions, 10.0, 10, ASCII) == "--##?-----"
    assert load_line([0.1, 0.2, 3.5, 99.0], 10.0, 10, ASCII) == "#  =      "


def test_settings_that_differ_are_named() -> None:
    """The introduction names each setting that is not at its default, with both values."""
    scenario = Scenario(duration=10.0, rate=40.0, behaviour=misbehaviour(1, 10.0))
    settings = ProviderSettings(breaker=demo_settings(10.0).breaker, retry=RetrySettings(max_attempts=4))
    assert dict(report.changed(settings)) == {"breaker.timeout": 0.5, "retry.max_attempts": 4}
    text = report.introduction(scenario, settings)
    assert "breaker.timeout = 0.5 (default: 60.0)" in text
    assert "retry.max_attempts = 4 (default: 3)" in text
    assert "none" in report.introduction(scenario, ProviderSettings())


def test_the_report_stands_in_plain_ascii(rehearse) -> None:
    """Where the terminal knows no Unicode, everything is still there."""
    scenario = Scenario(duration=3.0, rate=20.0, behaviour=misbehaviour(1, 3.0))
    settings = demo_settings(3.0)
    bare, guarded = rehearse(scenario), rehearse(scenario, settings)
    assert report.as_text(scenario, bare, guarded, unicode=False).isascii()
    assert "closed -> open (5 failures in a row)" in report.as_text(scenario, bare, guarded, unicode=True)
    document = json.loads(report.as_json(scenario, settings, bare, guarded))
    assert document["promises_kept"] is True
    assert document["settings"] == {"breaker.timeout": 0.15}


def test_progress_writes_over_itself_in_a_terminal_only() -> None:
    """A terminal gets one line that changes; a pipe gets a plain line every two seconds."""
    live, plain = io.StringIO(), io.StringIO()
    told = record(job(1), job(2, stored=False))
    for stream in (live, plain):
        progress = Progress("unprotected", stream, live=stream is live)
        for tenth in range(50):
            progress(told, tenth / 10)
        progress.done(told)
    assert live.getvalue().count("\r") > 40
    assert live.getvalue().count("\n") == 1
    lines = plain.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["0.0", "2.0", "4.0", "1.0"]
    assert "1 of 10 stored, 1 failed" in lines[0]
    assert "\r" not in plain.getvalue()
