"""Settings files in three formats, with overlays."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from resilience.settings import (
    BreakerSettings,
    OperationSettings,
    ProviderSettings,
    RetrySettings,
    Settings,
    TimeoutSettings,
)

Write = Callable[[str, str], str]
Refusal = Callable[..., str]

TOML = """
max_providers = 7
[defaults]
timeout = { attempt = "10s", total = "none" }
[providers."my.api".breaker]
ignore = ["not_found"]
failure_rate = 0.25
[environments.production.providers."my.api".retry]
max_attempts = 2
"""
YAML = """
max_providers: 7
defaults:
  timeout: {attempt: 10s, total: null}
providers:
  my.api:
    breaker:
      ignore: [not_found]
      failure_rate: 0.25
environments:
  production:
    providers:
      my.api: {retry: {max_attempts: 2}}
  dev:
"""
JSON = """
{
  "$schema": "./settings.schema.json",
  "max_providers": 7,
  "defaults": {"timeout": {"attempt": 10, "total": null}},
  "providers": {"my.api": {"breaker": {"ignore": ["not_found"], "failure_rate": 0.25}}},
  "environments": {"production": {"providers": {"my.api": {"retry": {"max_attempts": 2}}}}}
}
"""
FILES = [("r.toml", TOML), ("r.yaml", YAML), ("r.yml", YAML), ("r.json", JSON), ("R.JSON", JSON)]


def expected(retry: RetrySettings) -> Settings:
    provider = ProviderSettings(breaker=BreakerSettings(ignore=("not_found",), failure_rate=0.25), retry=retry)  # type: ignore[arg-type]
    defaults = ProviderSettings(timeout=TimeoutSettings(attempt=10, total=None))
    return Settings(max_providers=7, defaults=defaults, providers={"my.api": provider})


@pytest.mark.parametrize("name, text", FILES)
def test_formats_say_the_same(write: Write, name: str, text: str) -> None:
    """TOML, YAML and JSON hold the same tree."""
    assert Settings.from_environment({"RESILIENCE_CONFIG": write(name, text)}) == expected(RetrySettings())


@pytest.mark.parametrize("name, text", FILES)
def test_overlay(write: Write, name: str, text: str) -> None:
    """RESILIENCE_ENV lays one table of the file over the rest."""
    environ = {"RESILIENCE_CONFIG": write(name, text), "RESILIENCE_ENV": "production"}
    assert Settings.from_environment(environ) == expected(RetrySettings(max_attempts=2))


@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_usual_environments_need_no_overlay(write: Write, environment: str) -> None:
    """The three usual names are fine where the file has nothing to say about them, or where there is no file."""
    environ = {"RESILIENCE_ENV": environment}
    assert Settings.from_environment(environ) == Settings()
    assert Settings.from_environment(environ, file=write("r.toml", "max_providers = 7")).max_providers == 7


def test_own_environments(write: Write) -> None:
    """Another name can be chosen if the file has a table for it."""
    file = write("r.toml", "[environments.load-test]\nmax_providers = 9")
    assert Settings.from_environment({"RESILIENCE_ENV": "load-test"}, file=file).max_providers == 9


@pytest.mark.parametrize("name", ["r.toml", "r.yaml"])
def test_empty_file(write: Write, name: str) -> None:
    """A file without settings is fine."""
    assert Settings.from_environment({}, file=write(name, "")) == Settings()


def test_home_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's name may begin with ~, which no shell has replaced in a compose file."""
    write("r.toml", "max_providers = 9")
    monkeypatch.setenv("HOME", ".")
    assert Settings.from_environment({"RESILIENCE_CONFIG": "~/r.toml"}).max_providers == 9


def test_entries_that_say_nothing(write: Write) -> None:
    """In YAML, a name with nothing below it is an empty entry."""
    text = """
        defaults:
        providers:
          s3:
            operations:
              put:
        environments:
          dev:
    """
    settings = Settings.from_environment({"RESILIENCE_ENV": "dev"}, file=write("r.yaml", text))
    assert settings == Settings(providers={"s3": ProviderSettings(operations={"put": OperationSettings()})})
    assert Settings.from_environment({}, file=write("x.yaml", "providers:\nenvironments:")) == Settings()


def test_policies_that_say_nothing(write: Write, refusal: Refusal) -> None:
    """Nothing below a policy could mean no policy or no limit as well, so it is refused."""
    text = """
        defaults: {retry: , timeout: }
        providers: {s3: {breaker: null, operations: {put: {timeout: null}}}}
    """
    off = "must be a table of settings; to switch it off, write enabled = false in it"
    limit = "must be a table of settings; for no limit, write attempt = none and total = none in it"
    rule = "must be a table of settings; for no limit, write max_attempts = none in it"
    more = write("more.yaml", "defaults: {retry: {per_kind: {timeout: null}}}")
    key = "defaults.retry.per_kind.timeout"
    assert refusal({}, file=more) == f"settings refused: {key} = none (file more.yaml): {rule}"
    assert refusal({}, file=write("r.yaml", text)) == (
        "settings refused, 4 problems:"
        f"\n  - defaults.retry = none (file r.yaml): {off}"
        f"\n  - defaults.timeout = none (file r.yaml): {limit}"
        f"\n  - providers.s3.breaker = none (file r.yaml): {off}"
        f"\n  - providers.s3.operations.put.timeout = none (file r.yaml): {limit}"
    )


UNUSABLE = [
    ("r.json", '{"a": sk-secret}', "is no valid JSON: Expecting value (at line 1, column 7)"),
    ("r.json", '{"enabled": 1, "max_providers": 1, "max_providers": 2}', "says 'max_providers' twice in one table"),
    ("r.json", "[1]", "it must hold a table of settings, not list"),
    ("r.json", "[" * 200_000, "is nested too deeply"),
    ("r.json", "1" * 5000, "is no valid JSON: it holds a number that is too long"),
    ("r.yaml", "a: [sk-secret", "is no valid YAML: expected ',' or ']', but got '<stream end>' (at line 1, column 14)"),
    ("r.yaml", "defaults: {enabled: yes}\ndefaults: {}", "says 'defaults' twice in one table"),
    ("r.yaml", "defaults: [{x: 1, x: 2}]", "says 'x' twice in one table"),
    ("r.yaml", "a: 2001-99-99", "is no valid YAML: it holds a value that is none"),
    (
        "r.yaml",
        "a: !!python/name:os.system sk-secret",
        (
            "is no valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system' (at line 1, column 4)"
        ),
    ),
    ("r.yaml", "- 1", "it must hold a table of settings, not list"),
    ("r.yaml", "environments: [dev]", "environments must be a table, with a table for each environment, not list"),
    (
        "r.toml",
        "[environments.prod]",
        ("environments.prod: did you mean 'production'? Those are the names that RESILIENCE_ENV takes"),
    ),
    ("r.ini", "", "must be a .toml, .yaml, .yml or .json file, not .ini"),
    ("r", "", "must be a .toml, .yaml, .yml or .json file, not one without a suffix"),
]


@pytest.mark.parametrize("name, text, why", UNUSABLE)
def test_unusable_file(write: Write, refusal: Refusal, name: str, text: str, why: str) -> None:
    """A file that cannot be used is refused with the reason and the place, but never quoted: it may hold anything."""
    environ = {"RESILIENCE_CONFIG": write(name, text)}
    assert refusal(environ) == f"settings refused: file {name}, named by RESILIENCE_CONFIG: {why}"


def test_invalid_toml(write: Write, refusal: Refusal) -> None:
    """The words are those of the Python version; they never quote a value."""
    text = refusal({}, file=write("r.toml", "max_providers = sk-secret"))
    assert text.startswith("settings refused: file r.toml: is no valid TOML: ")
    assert "secret" not in text


def test_unreadable_file(write: Write, refusal: Refusal, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file that is missing, no file or no text is refused with the reason."""
    write("r.toml", "")
    assert refusal({}, file="x.toml") == "settings refused: file x.toml: cannot be read: No such file or directory"
    assert refusal({}, file=".") == "settings refused: file .: cannot be read: Is a directory"
    for name in ("~there-is-no-such-user/r.toml", "\0.toml"):
        why = f"settings refused: file {name}: cannot be read: no such name is possible"
        assert refusal({}, file=name) == why
    folder = tmp_path_factory.mktemp("latin")
    (folder / "r.toml").write_bytes(b"\xff\xfa")
    assert refusal({}, file=folder / "r.toml") == f"settings refused: file {folder}/r.toml: cannot be read: not UTF-8"


def test_yaml_needs_its_extra(write: Write, refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML, the message says what to install."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    why = "needs PyYAML: pip install 'resilient-providers[yaml]'"
    assert refusal({}, file=write("r.yaml", "")) == f"settings refused: file r.yaml: {why}"


@pytest.mark.parametrize(
    "name, slip",
    [("prod", "; did you mean 'production'?"), ("stagin", "; did you mean 'staging'?"), ("xyz", "")],
)
def test_unknown_environment(refusal: Refusal, name: str, slip: str) -> None:
    """An environment that nobody knows is refused: its overlay would silently be missing."""
    assert refusal({"RESILIENCE_ENV": name}) == (
        f"settings refused: environment = '{name}' (environment variable RESILIENCE_ENV): must be one of dev, staging, "
        f"production, or a table under 'environments' in the file{slip}"
    )
    assert "environment = 'x' (in code)" in refusal({}, environment="x")


def test_overlays_that_are_not_chosen_are_checked(write: Write, refusal: Refusal) -> None:
    """What would break production shows wherever the file is read."""
    file = write(
        "r.toml",
        """
        [defaults.timeout]
        attempt = 20
        [environments.production.defaults]
        retries = 3
        retry.max_attempts = 0
        [environments.staging.defaults.timeout]
        total = 10
        """,
    )
    assert refusal({"RESILIENCE_ENV": "dev"}, file=file) == (
        "settings refused, 3 problems:"
        "\n  - defaults.retries (file r.toml, environments.production): unknown setting; did you mean "
        "'retry.max_attempts'? It counts the first attempt too: n retries are n + 1 attempts"
        "\n  - defaults.retry.max_attempts = 0 (file r.toml, environments.production): must be at least 1; "
        "the first attempt counts, so 1 means no retry"
        "\n  - defaults.timeout.attempt = 20 (file r.toml): must not be more than defaults.timeout.total = 10 "
        "(file r.toml, environments.staging): one attempt cannot outlast the whole call"
    )


def test_nonsense_in_the_file_is_not_hidden_by_the_environment(write: Write, refusal: Refusal) -> None:
    """A wrong value in the file is refused even where another source overrules it today."""
    file = write("r.toml", "max_providers = 0")
    why = "settings refused: max_providers = 0 (file r.toml): must be at least 1"
    assert refusal({"RESILIENCE_MAX_PROVIDERS": "5"}, file=file) == why


def test_yaml_is_loaded_only_for_yaml(write: Write) -> None:
    """Reading TOML does not import PyYAML."""
    saved = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "yaml"}
    for name in saved:
        del sys.modules[name]
    try:
        Settings.from_environment({}, file=write("r.toml", TOML))
        assert "yaml" not in sys.modules
    finally:
        sys.modules.update(saved)
