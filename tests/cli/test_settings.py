"""``resilience check``, ``show`` and ``schema``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resilience import Settings

Command = Callable[..., subprocess.CompletedProcess[str]]

GOOD = """
[defaults.timeout]
attempt = "200s"
[providers.openai.retry]
enabled = false
base_delay = 2
[environments.staging.providers.openai.breaker]
timeout = 5
"""
BAD = """
[defaults.retry]
max_attempt = 4
max_attempts = 0
[defaults.breaker]
failure_rate = 50
[environments.production.defaults.timeout]
attempt = 300
total = 100
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.toml"
    path.write_text(BAD)
    return path


# -- check -----------------------------------------------------------------------------------------------------------


def test_a_good_file_is_valid_and_what_differs_is_shown(in_process: Command, good: Path) -> None:
    """Every setting that differs from what holds without it, with both values and the place it is written in."""
    done = in_process("check", good)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"{good} is valid"
    assert ["providers.openai.retry.base_delay", "2", "1", "file", str(good)] in map(
        str.split, done.stdout.splitlines()
    )


def test_values_without_effect_are_warned_of(in_process: Command, good: Path) -> None:
    """What is allowed but contradicts something else is a warning, and no error."""
    warnings = [line for line in in_process("check", good).stdout.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: defaults.timeout.attempt = 200: no attempt lasts that long, because timeout.total = 120",
        "warning: providers.openai.retry.base_delay: without effect, because providers.openai.retry.enabled = false",
    ]


@pytest.mark.parametrize(
    "text, warning",
    [
        ("enabled = false\n[providers.s3]", "enabled = false: every call is a plain await, whatever else is written"),
        ("[providers.s3]\nenabled = false\nerrors = 'standard'", "providers.s3.enabled = false: nothing else"),
        ("[providers.s3.breaker]\nmode = 'disabled'\nwindow = 9", "providers.s3.breaker.window: without effect"),
        ("[defaults.gate]\nmax_wait = 500", "defaults.gate.max_wait = 500: no call waits that long"),
        ("[defaults.breaker]\nslow_after = 40", "defaults.breaker.slow_after = 40: nothing is ever slow"),
        ("[experiments.s3]\nshare = 0", "experiments.s3.share = 0: no call is in it"),
    ],
)
def test_each_doubt_is_told(in_process: Command, tmp_path: Path, text: str, warning: str) -> None:
    """What somebody wrote in vain is named, with the reason."""
    path = tmp_path / "settings.toml"
    path.write_text(text)
    done = in_process("check", path)
    assert done.returncode == 0
    assert f"warning: {warning}" in done.stdout


def test_defaults_give_no_warning(in_process: Command, tmp_path: Path) -> None:
    """A file that says nothing is valid, and nothing is wrong with it."""
    path = tmp_path / "empty.toml"
    path.write_text("")
    done = in_process("check", path)
    assert done.stdout == f"{path} is valid\nnothing differs from the defaults\n"


def test_an_overlay_is_laid_over_the_file(in_process: Command, good: Path) -> None:
    """With an environment, what its overlay says is in force."""
    done = in_process("check", good, "--environment", "staging")
    assert done.returncode == 0
    assert "providers.openai.breaker.timeout" in done.stdout
    assert "environments.staging" in done.stdout
    assert "providers.openai.breaker.timeout" not in in_process("check", good).stdout


def test_every_problem_is_told_at_once(in_process: Command, bad: Path) -> None:
    """All problems, those of every overlay too, each with its key, value, place and likely slip."""
    done = in_process("check", bad)
    assert done.returncode == 1
    head, *lines = done.stdout.splitlines()
    assert head == f"{bad} is refused: 4 problems"
    assert f"  defaults.retry.max_attempt (file {bad}): unknown setting; did you mean 'max_attempts'?" in lines
    assert any("failure_rate = 50" in line and "50 % is 0.5" in line for line in lines)
    assert any("environments.production" in line for line in lines)


def test_variables_play_no_part_in_a_check(in_process: Command, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is as valid on the build server as on the developer's machine."""
    monkeypatch.setenv("RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS", "nonsense")
    assert in_process("check", good).returncode == 0


def test_a_file_that_is_not_there_is_refused(in_process: Command, tmp_path: Path) -> None:
    """A file that cannot be read is a problem like any other."""
    done = in_process("check", tmp_path / "no.toml")
    assert done.returncode == 1
    assert "no.toml: cannot be read: No such file" in done.stdout


def test_a_check_as_json(in_process: Command, good: Path, bad: Path) -> None:
    """For programs: one document, the same shape whether the file is good or bad."""
    fine, wrong = in_process("check", good, "--json"), in_process("check", bad, "--json")
    assert (fine.returncode, wrong.returncode) == (0, 1)
    yes, no = json.loads(fine.stdout), json.loads(wrong.stdout)
    assert yes.keys() == no.keys()
    assert (yes["valid"], len(yes["warnings"]), len(yes["differences"])) == (True, 2, 3)
    assert yes["differences"][0] == {
        "key": "defaults.timeout.attempt", "value": 200.0, "default": 30.0, "origin": f"file {good}",
    }  # fmt: skip
    assert (no["valid"], len(no["problems"])) == (False, 4)


# -- show ------------------------------------------------------------------------------------------------------------


def shown(text: str) -> dict[str, list[str]]:
    return {key: [value, *origin] for key, value, *origin in map(str.split, text.splitlines()[1:])}


def test_all_settings_of_a_provider_with_their_origins(
    in_process: Command, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting in force for a provider, and whether a variable, a file or a default brought it."""
    monkeypatch.setenv("RESILIENCE_CONFIG", str(good))
    monkeypatch.setenv("RESILIENCE_PROVIDERS__OPENAI__BREAKER__WINDOW", "9")
    lines = shown(in_process("show", "openai").stdout)
    variable = "RESILIENCE_PROVIDERS__OPENAI__BREAKER__WINDOW"
    assert lines["providers.openai.breaker.window"] == ["9", "environment", "variable", variable]
    assert lines["providers.openai.timeout.attempt"] == ["200", "file", str(good)]
    assert lines["providers.openai.timeout.total"] == ["120", "default"]


def test_the_general_settings_and_what_providers_do_differently(in_process: Command, good: Path) -> None:
    """Without a name: what holds for all, and of each provider what was written about it."""
    lines = shown(in_process("show", "--file", good, "-e", "staging").stdout)
    assert lines["enabled"] == ["true", "default"]
    assert lines["health.port"] == ["8080", "default"]
    assert lines["providers.openai.breaker.timeout"][0] == "5"
    assert "providers.openai.timeout.attempt" not in lines


def test_a_provider_without_settings_of_its_own_is_told(in_process: Command, good: Path) -> None:
    """A slip in a name shows the defaults, and says so beside the answer."""
    done = in_process("show", "opnai", "--file", good)
    assert done.returncode == 0
    assert "opnai has no settings of its own; these hold for every provider" in done.stderr
    assert "openai" in done.stderr.replace("opnai", "")
    assert shown(done.stdout)["providers.opnai.retry.enabled"][0] == "true"
    assert in_process("show", "openai", "--file", good).stderr == ""


def test_only_what_was_changed(in_process: Command, good: Path) -> None:
    """On request, defaults are left out."""
    lines = shown(in_process("show", "--changed", "--file", good).stdout)
    assert sorted(lines) == [
        "defaults.timeout.attempt", "providers.openai.retry.base_delay", "providers.openai.retry.enabled",
    ]  # fmt: skip


def test_settings_as_json(in_process: Command, good: Path) -> None:
    """For programs: key, value and origin of each."""
    found = json.loads(in_process("show", "openai", "--file", good, "--json").stdout)
    values = {item["key"]: item for item in found}
    assert values["providers.openai.retry.base_delay"] == {
        "key": "providers.openai.retry.base_delay", "value": 2.0,
        "origin": {"source": "file", "name": str(good), "text": f"file {good}"},
    }  # fmt: skip
    assert values["providers.openai.breaker.slow_after"]["value"] is None


@pytest.mark.parametrize("arguments", [("show",), ("show", "openai"), ("show", "--json")])
def test_settings_that_are_refused_cannot_be_shown(
    in_process: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """What keeps a process from starting is told like there, without a traceback."""
    monkeypatch.setenv("RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS", "0")
    done = in_process(*arguments)
    assert done.returncode == 1
    assert "defaults.retry.max_attempts = '0' (environment variable" in done.stderr
    assert done.stdout == ""


def test_a_name_that_is_none_is_refused(in_process: Command) -> None:
    """A slip in the provider's name is no traceback."""
    done = in_process("show", "Open AI")
    assert done.returncode == 2
    assert "'Open AI' is no provider name" in done.stderr
    assert "did you mean 'open-ai'?" in done.stderr


# -- schema ----------------------------------------------------------------------------------------------------------


def test_the_schema_goes_to_stdout_or_to_a_file(in_process: Command, tmp_path: Path) -> None:
    """It is the schema of the settings, whole, and valid JSON."""
    assert json.loads(in_process("schema").stdout) == Settings.json_schema()
    path = tmp_path / "schema.json"
    done = in_process("schema", "--output", path)
    assert done.stdout == ""
    assert json.loads(path.read_text()) == Settings.json_schema()
