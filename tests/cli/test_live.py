"""`resilience top` and `explain` beside a real process, over a real health address."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resilience.cli.ask import NoAnswer, address, ask, providers
from resilience.cli.board import Board
from resilience.cli.top import look
from resilience.settings import HealthSettings

pytestmark = pytest.mark.real_time

Command = Callable[..., subprocess.CompletedProcess[str]]
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "top.py"
ENTRY = {
    "status": "warn",
    "reason": "refuses: circuit_open, 5 failures in a row, next probe in 12.4 s",
    "snapshot": {"breaker": {"state": "open", "since": 1e9, "calls": 9, "failed": 6}, "last_reason": "timeout"},
}


@contextmanager
def answering(answers: dict[str, tuple[int, Any]], port: int = 0) -> Iterator[str]:
    """Answer on loopback what a process would; nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = answers.get(self.path, (404, {"error": "there is nothing here"}))
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# -- a real process --------------------------------------------------------------------------------------------------


def test_a_real_process_in_a_pipe(down: str, resilience_command: Command) -> None:
    """One plain table: a header, and a line for each provider, the one that is down first."""
    done = resilience_command("top", "--url", down, "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    header, first, *others = done.stdout.splitlines()
    assert header.split()[:5] == ["PROCESS", "PROVIDER", "STATUS", "STATE", "CALLS/S"]
    assert first.split()[1:4] == ["openai", "fail", "open"]
    assert "refuses: circuit_open" in first
    assert len(others) == 3
    assert "\x1b" not in done.stdout


def test_a_real_process_as_json(down: str, resilience_command: Command) -> None:
    """Rates, totals and quantiles of what the process really does."""
    done = resilience_command("top", "--url", down, "--json", "--interval", "0.5")
    document = json.loads(done.stdout)
    assert document["processes"][0]["status"] == "fail"
    rows = {row["provider"]: row for row in document["providers"]}
    assert rows["s3"]["calls"] > 0
    assert rows["s3"]["p99"] >= rows["s3"]["p50"] > 0
    assert rows["openai"]["rejected"] > 0
    assert rows["openai"]["since"] is not None


def test_a_provider_that_is_down_is_explained(down: str, in_process: Command) -> None:
    """State, why, since when, what is done about it; the exit code tells that calls are refused."""
    done = in_process("explain", "openai", "--url", down)
    assert done.returncode == 1
    told = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert told["status"].startswith("fail, unwell since ")
    assert "connection_error" in told["failed"]
    assert re.fullmatch(r"open since \d\d:\d\d:\d\d, for \d+s", told["state"])
    assert told["a call now"].startswith("refuses: circuit_open, ")
    assert told["what is done"].startswith("calls are refused at once")
    assert in_process("explain", "s3", "--url", down).returncode == 0


def test_an_explanation_as_json(down: str, in_process: Command) -> None:
    """For programs, with the figures."""
    done = in_process("explain", "openai", "--url", down, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert (document["source"], document["state"], document["refuses"]) == ("process", "open", True)


def test_a_provider_that_the_process_does_not_know(down: str, in_process: Command) -> None:
    """The ones it knows are named, and what the settings say is told instead."""
    done = in_process("explain", "opnai", "--url", down)
    assert done.returncode == 3
    assert "has not called 'opnai'; it knows: embeddings, openai, s3, webhooks" in done.stderr
    assert "what the settings say about opnai" in done.stdout


def test_the_picture_is_made_of_a_real_run(tmp_path: Path) -> None:
    """The command that makes the picture in the documentation works, and the picture loads nothing from elsewhere."""
    path = tmp_path / "top.svg"
    subprocess.run([sys.executable, str(PICTURE), "--output", str(path)], timeout=60, check=True)
    picture = path.read_text(encoding="utf-8")
    text = re.sub(r"<[^>]*>", "", picture).replace("&#160;", " ")
    assert "CALLS/S" in text
    assert "refuses: circuit_open" in text
    assert "url(http" not in picture


# -- nobody, and somebody else ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("top", "--once"), ("top",), ("top", "--json"), ("explain", "s3")])
def test_when_nobody_answers(nobody: str, in_process: Command, arguments: tuple[str, ...]) -> None:
    """The exit code is 3, and the reason is told."""
    done = in_process(*arguments, "--url", nobody)
    assert done.returncode == 3
    assert f"{nobody.removeprefix('http://')} does not answer: connection refused" in done.stderr


def test_without_a_process_the_settings_are_explained(
    nobody: str, in_process: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would happen to calls, as far as it is settled."""
    monkeypatch.setenv("RESILIENCE_PROVIDERS__S3__BREAKER__FAILURE_THRESHOLD", "9")
    monkeypatch.setenv("RESILIENCE_PROVIDERS__S3__RETRY__MAX_ATTEMPTS", "1")
    done = in_process("explain", "s3", "--url", nobody)
    assert "the circuit opens after 9 failures in a row" in done.stdout
    assert "a call is one attempt" in done.stdout
    assert "an attempt may take 30 s, a call with all its retries 120 s" in done.stdout
    document = json.loads(in_process("explain", "s3", "--url", nobody, "--json").stdout)
    assert (document["source"], document["provider"]) == ("settings", "s3")
    assert "connection refused" in document["problem"]


def test_what_is_switched_off_is_explained(nobody: str, in_process: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider without resilience, and one without a breaker."""
    monkeypatch.setenv("RESILIENCE_PROVIDERS__S3__ENABLED", "false")
    monkeypatch.setenv("RESILIENCE_PROVIDERS__OPENAI__BREAKER__MODE", "disabled")
    monkeypatch.setenv("RESILIENCE_PROVIDERS__AZURE__BREAKER__MODE", "shadow")
    monkeypatch.setenv("RESILIENCE_PROVIDERS__AZURE__CRITICAL", "true")
    assert "plain await" in in_process("explain", "s3", "--url", nobody).stdout
    assert "no circuit breaker" in in_process("explain", "openai", "--url", nobody).stdout
    text = in_process("explain", "azure", "--url", nobody).stdout
    assert "the breaker's mode is shadow" in text
    assert "this process is not ready while the provider is down" in text


def test_the_address_is_that_of_the_settings(in_process: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address, the process that the settings describe is asked."""
    with answering({"/health/providers/s3": (200, ENTRY)}) as url:
        monkeypatch.setenv("RESILIENCE_HEALTH__PORT", url.rpartition(":")[2])
        monkeypatch.setenv("RESILIENCE_HEALTH__HOST", "0.0.0.0")
        done = in_process("explain", "s3")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].split() == ["last", "trouble", "timeout"]


@pytest.mark.parametrize(
    "state, failed, gate, deed",
    [
        ("closed", 0, 0, "calls go out"),
        ("closed", 3, 0, "calls go out, and those that fail are retried within the budget, 7 retries are left"),
        ("closed", 0, 9, "the provider asked for a pause: calls wait for its end if that is soon, others are refused"),
        ("open", 9, 9, "calls are refused at once; when the time is over, the next one goes out as a probe"),
        ("half_open", 1, 0, "single calls go out as probes, others are refused; "),
        ("forced_open", 0, 0, "every call is refused until somebody closes or resets the circuit"),
        ("disabled", 0, 0, "nothing: the circuit breaker is switched off"),
    ],
)
def test_what_is_done_in_each_state(in_process: Command, state: str, failed: int, gate: int, deed: str) -> None:
    """An operator who has never seen the code is told what the framework does by itself."""
    breaker = {"state": state, "calls": 10, "failed": failed}
    snapshot = {"breaker": breaker, "gate_closed_for": gate, "retries_available": 7.2}
    entry = {"status": "warn", "reason": "waits", "snapshot": snapshot}
    with answering({"/health/providers/s3": (200, entry)}) as url:
        done = in_process("explain", "s3", "--url", url)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("what is done"))
    assert line.removeprefix("what is done").strip().startswith(deed)


def test_an_explanation_says_since_when_and_what_failed(in_process: Command) -> None:
    """Also after many probes have failed: the last thing that happened is then one more refusal."""
    snapshot = {
        "breaker": {"state": "open", "since": 1e9},
        "failures": {"timeout": 2, "connection_error": 7},
        "rejections": {"circuit_open": 71},
        "last_reason": "circuit_open",
    }
    entry = {"status": "fail", "reason": "admits: the next call is a probe", "unwellFor": 90.0, "snapshot": snapshot}
    with answering({"/health/providers/s3": (200, entry)}) as url:
        lines = in_process("explain", "s3", "--url", url).stdout.splitlines()
    told = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines[1:])
    assert re.fullmatch(r"fail, unwell since \d\d:\d\d:\d\d, for 2m", told["status"])
    assert told["failed"] == "7 connection_error, 2 timeout"
    assert told["refused"] == "71 circuit_open"
    assert told["what is done"] == "its time is over: the next call goes out as a probe"


def test_an_entry_without_figures_is_no_explanation(in_process: Command) -> None:
    """Somebody else's answer is told as such."""
    with answering({"/health/providers/s3": (200, {"status": "pass"})}) as url:
        done = in_process("explain", "s3", "--url", url)
    assert done.returncode == 3
    assert "answers with status 200, and tells nothing about 's3'" in done.stderr


@pytest.mark.parametrize(
    "host, url",
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("health.internal", "http://health.internal:8080"),
    ],
)
def test_what_is_listened_on_is_asked_where_it_can_be_reached(host: str, url: str) -> None:
    """All addresses of this machine are asked at its own."""
    assert address(HealthSettings(host=host)) == url


@pytest.mark.parametrize(
    "answers, problem",
    [
        ({}, "tells nothing about providers"),
        ({"/health/providers": (200, {"status": "ok"})}, "answers with status 200, and tells nothing about providers"),
        ({"/health/providers": (200, b"<html>hello</html>")}, "does not answer as a health address does"),
        ({"/health/providers": (200, [1, 2])}, "does not answer as a health address does"),
    ],
)
def test_somebody_else_at_the_address_is_told(answers: dict[str, tuple[int, Any]], problem: str) -> None:
    """A wrong port, where another service answers, is no traceback and no empty table."""
    with answering(answers) as url, pytest.raises(NoAnswer, match=problem):
        providers(url, 2.0)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "file:///etc/passwd", "http://x:y"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Only web addresses can be asked."""
    with pytest.raises(NoAnswer, match=r"is no address|health address"):
        ask(url, "/health/providers", 1.0)


def test_a_health_address_below_a_path(in_process: Command) -> None:
    """A process that mounts its health somewhere is asked there, also by the address of its health itself."""
    answers = {"/internal/health/providers/s3": (503, dict(ENTRY, status="fail"))}
    with answering(answers) as url:
        for path in ("/internal", "/internal/", "/internal/health"):
            assert ask(f"{url}{path}", "/health/providers/s3", 2.0).status == 503


@pytest.mark.parametrize("path", ["/internal/status", "/internal/health/", "/status/", "/"])
def test_a_health_path_of_its_own(path: str) -> None:
    """Who sets ``health.path`` need not tell the command; another process is asked by an address that ends with it."""
    settings = HealthSettings(path=path)
    answers = {f"{path.rstrip('/')}/providers": (200, {"status": "warn", "providers": {"s3": ENTRY}})}
    with answering(answers) as url:
        host, _, port = url.removeprefix("http://").rpartition(":")
        own = address(settings.model_copy(update={"host": host, "port": int(port)}))
        assert list(providers(own, 2.0)["providers"]) == ["s3"]
        assert list(providers(url + path, 2.0)["providers"]) == ["s3"]


@pytest.mark.parametrize("path", ["/status", "/internal/health", "/health/"])
def test_health_under_another_path(in_process: Command, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Where `health.path` puts it, it is found by the settings, and by an address with that path."""
    with answering({f"{path.rstrip('/')}/providers/s3": (200, ENTRY)}) as url:
        monkeypatch.setenv("RESILIENCE_HEALTH__PORT", url.rpartition(":")[2])
        monkeypatch.setenv("RESILIENCE_HEALTH__PATH", path)
        assert in_process("explain", "s3").returncode == 1
        assert in_process("explain", "s3", "--url", f"{url}{path}").returncode == 1


def test_a_process_that_goes_away_is_waited_for() -> None:
    """Its last figures stay; when it is back they are new."""
    answers = {"/health/providers": (200, {"status": "warn", "time": 1.0, "pid": 1, "providers": {"s3": ENTRY}})}
    with answering(answers) as url:
        board = Board.of([url])
        look(board)
    port = int(url.rpartition(":")[2])
    look(board, now=lambda: 5.0)
    assert board.processes[url].lost == 5.0
    assert [row.fresh for row in board.rows()] == [False]
    with answering(answers, port):
        look(board)
    assert board.processes[url].lost is None
    assert [row.fresh for row in board.rows()] == [True]


def test_one_process_that_is_missing_does_not_hide_the_others(nobody: str, in_process: Command) -> None:
    """Those that answer are shown, the other is named, and the exit code tells."""
    answers = {"/health/providers": (200, {"status": "warn", "time": 1.0, "pid": 1, "providers": {"s3": ENTRY}})}
    with answering(answers) as url:
        done = in_process("top", "--url", url, "--url", nobody, "--interval", "0.1")
    assert done.returncode == 3
    assert "s3" in done.stdout
    assert "connection refused" in done.stderr
