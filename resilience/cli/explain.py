"""``resilience explain``: how a provider is, why, since when, and what is done about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from resilience.cli import options
from resilience.cli.ask import Document, NoAnswer, address, ask, label, providers
from resilience.cli.board import Process, Row, printable
from resilience.cli.drawing import age, clock
from resilience.cli.screen import align, complain, console, listed, say, tell_json
from resilience.settings import ProviderSettings, Settings

_TIMEOUT: Final = 2.0
_REFUSED: Final = 1
_NO_ANSWER: Final = 3
_NOT_FOUND: Final = 404


def explain(
    provider: Annotated[
        str, typer.Argument(help="Its name.", callback=options.named, autocompletion=options.provider_names)
    ],
    *,
    url: options.Url = None,
    json: options.AsJson = False,
) -> int:
    """
    Explain how a provider is, why, and what is done about it.

    A running process is asked over its health address. Exit code 1: it would refuse a call now. If no process answers,
    or it knows no such provider, the exit code is 3, and you are told what the settings say.
    """
    settings = Settings.from_environment()
    url = url or address(settings.health)
    try:
        row = _asked(url, provider)
    except NoAnswer as problem:
        return _from_settings(settings.for_provider(provider), provider, str(problem), json=json)
    if json:
        tell_json({"source": "process", **asdict(row), "refuses": _refuses(row), "action": _deed(row)})
    else:
        _draw(f"{provider} at {label(url)}", dict(_told(row)))
    return _REFUSED if _refuses(row) else 0


def _asked(url: str, provider: str) -> Row:
    status, entry = ask(url, f"/health/providers/{provider}", _TIMEOUT)
    if status == _NOT_FOUND:
        known = printable(", ".join(sorted(providers(url, _TIMEOUT)["providers"])) or "none yet")
        raise NoAnswer(f"the process at {label(url)} has not called {provider!r}; it knows: {known}")
    process = Process(url)
    process.answered({"providers": {provider: entry}})
    rows = process.rows()
    if "snapshot" not in entry or not rows:
        raise NoAnswer(f"{label(url)} answers with status {status}, and tells nothing about {provider!r}")
    return rows[0]


def _refuses(row: Row) -> bool:
    return row.status == "fail" or row.reason.startswith("refuses")


def _told(row: Row) -> Iterator[tuple[str, str]]:
    now = time.time()
    since = f" since {clock(row.since)}, for {age(now - row.since)}" if row.since is not None else ""
    unwell = row.unwell_for
    yield (
        "status",
        row.status + (f", unwell since {clock(now - unwell)}, for {age(unwell)}" if unwell is not None else ""),
    )
    yield "state", row.state.replace("_", "-") + since
    yield "a call now", row.reason
    yield "what is done", _deed(row)
    totals = row.totals
    failing = f", {row.failing:.0%} failed lately" if row.failing else ""
    yield "so far", f"{totals['calls']} calls, {totals['retries']} retries, {totals['rejected']} refused{failing}"
    for title, counts in (("failed", row.failures), ("refused", row.rejections)):
        if counts:
            yield title, ", ".join(f"{count} {name}" for name, count in counts.items())
    if row.last:
        yield "last trouble", row.last + (f", {age(now - row.last_at)} ago" if row.last_at is not None else "")


def _deed(row: Row) -> str:
    """Say what the framework does in this state."""
    match row.state:
        case "open" if row.reason.startswith("admits"):
            return "its time is over: the next call goes out as a probe"
        case "open":
            return "calls are refused at once; when the time is over, the next one goes out as a probe"
        case "half_open":
            return "single calls go out as probes, others are refused; successes close the circuit, a failure opens it"
        case "forced_open":
            return "every call is refused until somebody closes or resets the circuit"
        case "disabled":
            return "nothing: the circuit breaker is switched off"
        case "gated":
            return "the provider asked for a pause: calls wait for its end if that is soon, others are refused"
        case _ if row.failing:
            budget = f", {row.budget:.0f} retries are left" if row.budget is not None else ""
            return f"calls go out, and those that fail are retried within the budget{budget}"
        case _:
            return "calls go out"


def _from_settings(settings: ProviderSettings, provider: str, problem: str, *, json: bool) -> int:
    sentences = list(_sentences(settings))
    if json:
        document: Document = {"provider": provider, "source": "settings", "problem": problem, "settings": sentences}
        tell_json(document)
        return _NO_ANSWER
    complain(problem)
    say(f"what the settings say about {provider} (`resilience show {provider}` has all of them):", "bold")
    listed(sentences)
    return _NO_ANSWER


def _sentences(settings: ProviderSettings) -> Iterator[str]:
    """Say what would happen to calls, as far as that is settled beforehand."""
    if not settings.enabled:
        yield "every call is a plain await: enabled = false"
        return
    times, retry, gate = settings.timeout, settings.retry, settings.gate
    yield f"an attempt may take {_limit(times.attempt)}, a call with all its retries {_limit(times.total)}"
    if not retry.enabled or retry.max_attempts == 1:
        yield "a call is one attempt"
    else:
        yield f"a call is up to {retry.max_attempts} attempts, the second up to {retry.base_delay:g} s after the first"
    yield from _breaker(settings)
    if gate.enabled:
        yield f"when the provider asks for a pause, calls wait {gate.max_wait:g} s for its end, or are refused"
    if settings.critical:
        yield "this process is not ready while the provider is down"


def _breaker(settings: ProviderSettings) -> Iterator[str]:
    breaker = settings.breaker
    if not breaker.enabled or breaker.mode == "disabled":
        yield "no circuit breaker"
        return
    rules = [f"after {breaker.failure_threshold} failures in a row"] if breaker.failure_threshold is not None else []
    rates = {"failed": breaker.failure_rate, "were slow": breaker.slow_rate}
    rules += [
        f"after {rate:.0%} of at least {breaker.minimum_calls} calls {what}"
        for what, rate in rates.items()
        if rate is not None
    ]
    yield f"the circuit opens {', or '.join(rules) or 'by hand only'}"
    yield f"then it is open for {breaker.timeout:g} s, and {breaker.success_threshold} successful probes close it"
    if breaker.mode != "enforce":
        yield f"the breaker's mode is {breaker.mode}"


def _limit(seconds: float | None) -> str:
    return "as long as it likes" if seconds is None else f"{seconds:g} s"


def _draw(title: str, told: dict[str, str]) -> None:
    out = console()
    if not out.is_terminal:
        align([(title, ""), *told.items()])
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in told.items():
        grid.add_row(name, Text(text))
    say(title, "bold")
    out.print(grid)
