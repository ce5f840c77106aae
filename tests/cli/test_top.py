"""What `resilience top` makes of what processes tell: rates, order, and the picture at different widths."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from resilience.cli import drawing
from resilience.cli.board import Board
from resilience.cli.top import watch

ONE, TWO = "http://127.0.0.1:8080", "http://127.0.0.1:8081"
NOW = 1_800_000_000.0


def entry(
    *,
    status: str = "pass",
    state: str = "closed",
    reason: str = "admits: circuit closed",
    breaker: dict[str, Any] | None = None,
    **figures: Any,
) -> dict[str, Any]:
    known = {"state": state, "since": None, "calls": 20, "failed": 0} | (breaker or {})
    snapshot = {
        "breaker": known, "gate_closed_for": 0.0, "retries_available": 10.0, "calls": 0, "retries": 0, "rejected": 0,
        "succeeded": 0, "failed": 0, "cancelled": 0, "latency": {"count": 9, "p50": 0.042, "p99": 1.5},
        "last_reason": None, "last_at": None,
    }  # fmt: skip
    return {"status": status, "reason": reason, "snapshot": snapshot | figures}


OPEN = entry(
    status="fail",
    state="open",
    reason="refuses: circuit_open, 5 failures in a row, next probe in 12.4 s",
    breaker={"since": NOW - 30, "calls": 20, "failed": 12},
    rejected=300,
    last_reason="circuit_open",
    last_at=NOW - 2,
)


def document(providers: dict[str, Any], *, time: float = NOW, pid: int = 7, status: str = "pass") -> dict[str, Any]:
    return {"status": status, "time": time, "pid": pid, "providers": providers}


def board(*documents: dict[str, Any], url: str = ONE) -> Board:
    found = Board.of([url])
    for one in documents:
        found.processes[url].answered(one)
    return found


def picture(what: Board, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False, color_system=None)
    console.print(drawing.draw(what, width=width, height=height, now=NOW))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


# -- figures ---------------------------------------------------------------------------------------------------------


def test_rates_are_those_between_two_looks() -> None:
    """Calls, retries and rejections per second, by the process's own clock."""
    (row,) = board(
        document({"s3": entry(succeeded=100, failed=5, retries=10, rejected=1)}, time=NOW - 2),
        document({"s3": entry(succeeded=140, failed=7, cancelled=2, retries=13, rejected=2)}),
    ).rows()
    assert (row.calls, row.retries, row.rejected) == (22.0, 1.5, 0.5)
    assert row.totals == {"calls": 149, "retries": 13, "rejected": 2}


def test_one_look_knows_no_rates() -> None:
    """A provider that was seen once only has totals."""
    (row,) = board(document({"s3": entry(succeeded=100)})).rows()
    assert row.calls is None
    assert row.totals["calls"] == 100


def test_another_process_at_the_address_begins_anew() -> None:
    """After a restart the counters are smaller; nothing is made of the difference."""
    (row,) = board(
        document({"s3": entry(succeeded=100)}, time=NOW - 2, pid=7), document({"s3": entry(succeeded=3)}, pid=8)
    ).rows()
    assert row.calls is None


def test_the_worst_come_first() -> None:
    """What fails is above what is unwell, an open circuit above a half-open one; then who refuses most; then names."""
    providers = {
        "a": entry(),
        "b": entry(status="warn", state="half_open"),
        "c": entry(status="warn", state="open"),
        "d": entry(status="fail", state="open"),
        "e": entry(status="warn", gate_closed_for=3.0),
        "f": entry(breaker={"failed": 4}),
    }
    assert [row.provider for row in board(document(providers)).rows()] == ["d", "c", "b", "e", "f", "a"]


def test_a_closed_gate_is_a_state() -> None:
    """A provider that asked for a pause is gated, although its circuit is closed."""
    (row,) = board(document({"s3": entry(gate_closed_for=3.0)})).rows()
    assert row.state == "gated"


@pytest.mark.parametrize(
    "providers",
    [
        {"s3": {}},
        {"s3": None},
        {"s3": {"snapshot": None, "status": None, "reason": None}},
        {"s3": {"snapshot": {"breaker": [], "latency": "none", "calls": "many", "retries": None}}},
    ],
)
def test_what_is_missing_is_not_known(providers: dict[str, Any]) -> None:
    """A process of another version, which tells less, is shown as far as it can be."""
    for width in (80, 120):
        assert picture(board(document(providers)), width)


def test_what_would_steer_the_terminal_is_left_out() -> None:
    """Whoever answers at an address cannot draw on the screen of those who look."""
    evil = entry(status="warn", reason="refuses: \x1b[2Jno\r\n", last_reason="\x1b]0;title\x07")
    for line in picture(board(document({"s3\x1b[31m": evil})), 120):
        assert line.isprintable()


# -- the picture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    """Every line fits, whatever the names and figures are."""
    providers = {"a-provider-with-quite-a-name/and-an-endpoint": OPEN} | {
        f"s{number}": entry(succeeded=10**7, retries=10**6, rejected=10**6) for number in range(40)
    }
    found = board(document({name: entry() for name in providers}, time=NOW - 1), document(providers, status="fail"))
    lines = picture(found, width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24
    assert any("more, less troubled" in line for line in lines)


def test_at_80_columns_every_figure_is_there() -> None:
    """State, rate, quantiles, retries, rejections, budget and the last reason, with nothing cut off."""
    before = document({"openai": entry(rejected=200, succeeded=50, retries=4)}, time=NOW - 10)
    now = dict(OPEN, snapshot=dict(OPEN["snapshot"], succeeded=73, retries=9))
    lines = picture(board(before, document({"openai": now, "s3": entry()}, status="fail")), 80)
    assert lines[0].startswith("● 127.0.0.1:8080  pid 7  ")
    assert lines[0].endswith("2 providers: 1 fail, 1 pass")
    assert lines[1].split() == ["PROVIDER", "STATE", "CALLS/S", "P50", "P99", "RETRY/S", "REJ/S", "BUDGET", "LAST"]
    assert lines[2].split() == ["openai", "open", "2.3", "42ms", "1.5s", "0.5", "10.0", "10", "circuit_open"]
    assert lines[3].split() == ["s3", "closed", "-", "42ms", "1.5s", "-", "-", "10"]
    text = " ".join(" ".join(lines[4:]).split())
    since = drawing.clock(NOW - 30)
    assert text == f"openai refuses: circuit_open, 5 failures in a row, next probe in 12.4 s (since {since})"


def test_at_120_columns_the_last_reason_has_its_age() -> None:
    """Where there is room, it is told how long ago the last trouble was."""
    assert "circuit_open, 2s ago" in picture(board(document({"openai": OPEN})), 120)[2]


def test_several_processes_side_by_side() -> None:
    """Each has its line on top, and every provider tells at which it is; also at 80 columns."""
    found = Board.of([ONE, TWO])
    for url in (ONE, TWO):
        found.processes[url].answered(document({"openai": OPEN if url == TWO else entry()}))
    for width, at in ((80, ":8081"), (120, "127.0.0.1:8081")):
        lines = picture(found, width)
        assert [line[:16] for line in lines[:2]] == ["● 127.0.0.1:8080", "● 127.0.0.1:8081"]
        assert at in lines[3]
        assert "circuit_open" in lines[3]
        assert max(map(len, lines)) <= width


def test_a_process_that_went_away_and_came_back() -> None:
    """Meanwhile its last figures stay, without rates, and the line on top says since when nobody answers."""
    found = board(document({"s3": entry()}, time=NOW - 1), document({"s3": entry(succeeded=8)}))
    process = found.processes[ONE]
    process.silent("127.0.0.1:8080 does not answer: connection refused", NOW - 65)
    process.silent("127.0.0.1:8080 does not answer: connection refused", NOW)
    lines = picture(found, 80)
    assert lines[0] == f"● 127.0.0.1:8080  no answer since {drawing.clock(NOW - 65)} (1m): connection refused"
    assert lines[2].split()[:3] == ["s3", "closed", "-"]
    (row,) = found.rows()
    assert (row.fresh, row.calls, row.retries, row.rejected) == (False, None, None, None)
    process.answered(document({"s3": entry(succeeded=9)}, time=NOW + 9))
    (row,) = found.rows()
    assert row.fresh
    assert row.calls is None  # what happened while nobody looked is no rate
    assert "1 provider: 1 pass" in picture(found, 80)[0]


def test_before_anybody_was_asked() -> None:
    """An empty board can be drawn."""
    assert picture(Board.of([ONE]), 80)[0] == "● 127.0.0.1:8080  not asked yet"
    assert "0 providers: none yet" in picture(board(document({})), 80)[0]


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "0s"), (59, "59s"), (90, "2m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    """A glance is enough."""
    assert drawing.age(seconds) == text


def test_the_view_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps drawing, also while nobody answers, until it is interrupted; that is no error."""
    monkeypatch.setattr("resilience.cli.top.look", lambda _: None)
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    assert watch(Board.of([ONE]), console, 2.0, pause=pause) == 0
    assert pauses == [2.0, 2.0, 2.0]
