"""Whatever is written: it either loads or is refused as a whole, in one kind of error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resilience.errors import ConfigurationError
from resilience.settings import ProviderSettings, RetrySettings, Settings, TimeoutSettings

SHORT = [
    "RETRY_MAX_ATTEMPTS",
    "RETRY_BASE_DELAY",
    "RETRY_MAX_DELAY",
    "RETRY_EXPONENTIAL_BASE",
    "RETRY_JITTER",
    "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
    "CIRCUIT_BREAKER_TIMEOUT",
    "HTTP_RETRIES",
    "HTTP_BACKOFF_BASE_MS",
    "HTTP_TIMEOUT_SEC",
    "CB_RESET_SEC",
    "CB_FAIL_THRESHOLD",
    "CIRCUIT_BREAKER_RECOVERY_TIMEOUT",
    "RESILIENCE_ENABLED",
    "RESILIENCE_RETRY_ENABLED",
    "RESILIENCE_CIRCUIT_BREAKER_ENABLED",
    "RESILIENCE_CONFIG",
    "RESILIENCE_ENV",
    "RESILIENCE_MAX_PROVIDERS",
]
WORDS = [
    "defaults",
    "providers",
    "s3",
    "my_api",
    "retry",
    "breaker",
    "timeout",
    "gate",
    "budget",
    "operations",
    "per_kind",
    "dns_error",
    "ignore",
    "jitter",
    "max_attempts",
    "base_delay",
    "failure_rate",
    "mode",
    "attempt",
    "total",
    "enabled",
    "idempotent",
    "window",
    "experiments",
    "share",
    "settings",
    "profile",
    "llm",
    "health",
    "host",
    "port",
    "metrics",
    "path",
    "directory",
    "logging",
    "level",
    "",
]
TEXTS = st.one_of(
    st.text(),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["0", "1", "none", "true", "5s", "500ms", "1h", "nan", "-1", "9" * 5000, "{}", "not_found,", "\udcff"]
    ),
)
NAMES = st.one_of(
    st.sampled_from(SHORT),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(
        lambda words: "RESILIENCE_" + "__".join(words).upper()
    ),
    st.text().map("RESILIENCE_".__add__),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just(10**400))
KEYS = st.one_of(st.sampled_from(WORDS), st.text(max_size=5))
TREES = st.recursive(LEAVES, lambda below: st.lists(below, max_size=2) | st.dictionaries(KEYS, below, max_size=4))


def loads(**arguments: Any) -> Settings | None:
    try:
        return Settings.from_environment(**arguments)
    except ConfigurationError:
        return None


@given(st.dictionaries(NAMES, TEXTS, max_size=4))
@example({"RETRY_MAX_ATTEMPTS": "\udcff"})
@example({"RESILIENCE_PROVIDERS__\udcff__ENABLED": "1"})
@example({"RESILIENCE_CONFIG": "\x00.toml"})
@example({"RESILIENCE_CONFIG": "~nobody/x.toml"})
@example({"RESILIENCE_CONFIG": "x" * 5000 + ".toml"})
def test_environment(environ: dict[str, str]) -> None:
    """Any text under any of our names loads or is refused, and what loads can be used."""
    settings = loads(environ=environ)
    if settings is not None:
        use(settings)


@given(TREES.filter(lambda tree: isinstance(tree, dict)))
def test_arguments(tree: dict[str, Any]) -> None:
    """Any tree of values loads or is refused, and so it does when models are made of it directly."""
    tree = {key: below for key, below in tree.items() if key not in ("environ", "file", "environment")}
    settings = loads(environ={}, **tree)
    try:
        made = Settings(**tree)
    except ConfigurationError:
        made = None
    assert made == settings
    if settings is not None:
        use(settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("garbage")


@given(tree=TREES)
def test_json_file(folder: Path, tree: object) -> None:
    """Any JSON loads or is refused."""
    file = folder / "r.json"
    file.write_text(json.dumps(tree), encoding="ascii")
    loads(environ={}, file=file)


@given(
    text=st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                [
                    *WORDS,
                    ":",
                    "=",
                    "\n",
                    " ",
                    "- ",
                    "[",
                    "]",
                    "{",
                    "}",
                    "&a",
                    "*a",
                    "!!int",
                    "!!timestamp",
                    "<<",
                    '"',
                    "#",
                    "5s",
                    "2001-1-1",
                ]
            )
        ).map("".join),
    ),
    name=st.sampled_from(["r.toml", "r.yaml", "r.json"]),
)
@example(text="a: &a {b: *a}", name="r.yaml")
@example(text="providers: &a {s3: *a}", name="r.yaml")
@example(text="a: !!int ''", name="r.yaml")
@example(text="a: !!bool x", name="r.yaml")
@example(text="? [a]\n: b", name="r.yaml")
@example(text="? {a: b}\n: b", name="r.yaml")
@example(text="[" * 5000, name="r.yaml")
@example(text="a=" + "[" * 5000, name="r.toml")
def test_file(folder: Path, name: str, text: str) -> None:
    """Any text in a file loads or is refused."""
    file = folder / name
    file.write_text(text, encoding="utf-8", errors="replace")
    loads(environ={}, file=file)


def use(settings: Settings) -> None:
    repr(settings)
    hash(settings)
    for difference in settings.differences():
        assert settings.origin(difference.key) == difference.origin
        assert str(difference)
    for name in ("s3", "my-api", *settings.providers):
        provider = settings.for_provider(name)
        provider.for_operation("put")
        assert provider.retry.max_attempts >= 1
        assert 0 <= provider.retry.base_delay < 1e8
        assert provider.timeout.total is None or 0 < provider.timeout.total < 1e8


@given(st.integers(0, 10**9), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("", 1), (" S", 1)]))
def test_durations(number: int, unit: tuple[str, float]) -> None:
    """A duration with a unit is that many seconds; more than a year is refused."""
    word, factor = unit
    try:
        found = RetrySettings(base_delay=f" {number}{word} ", max_delay="366 h")  # type: ignore[arg-type]
    except ConfigurationError:
        assert number * factor > 366 * 3600
    else:
        assert found.base_delay == number * factor


@given(st.floats(min_value=1e-9, max_value=1e7))
def test_durations_survive(seconds: float) -> None:
    """A duration that was written out reads back as the same float."""
    read = Settings.from_environment({"RESILIENCE_DEFAULTS__TIMEOUT__TOTAL": repr(seconds)})
    assert read == Settings(defaults=ProviderSettings(timeout=TimeoutSettings(total=seconds)))
