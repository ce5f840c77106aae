"""Settings read anew by call: as a whole or not at all, told, recorded and compared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from resilience import reloading
from resilience.errors import ConfigurationError
from resilience.events import Event, SettingsRefused, SettingsReloaded
from resilience.registry import ProviderRegistry
from resilience.reloading import Reloader, audit, drift, reload
from resilience.settings import Change, ProviderSettings, RetrySettings, Settings

Make = Callable[[], ProviderRegistry]


def test_reload_by_call(make: Make, file: Path, told: list[Event]) -> None:
    """What is written anew holds at once, is returned, and is told with its source and time."""
    registry = make()
    file.write_text('max_providers = 11\n[providers.s3]\nprofile = "object_storage"\n')
    found = reload(registry, environ={}, file=file)
    assert found[-1] == Change("max_providers", 10, 11)
    assert registry.settings == Settings.from_environment({}, file=file)
    assert told == [SettingsReloaded(provider="", time=1000.0, source="code", changes=found)]


def test_providers_known_take_part(make: Make, file: Path) -> None:
    """A provider that is in use goes on under the new settings."""
    registry = make()
    provider = registry.provider("s3")
    file.write_text("[providers.s3.timeout]\nattempt = 7\n")
    reload(registry, environ={}, file=file)
    assert provider.settings.timeout.attempt == 7


def test_nothing_new(make: Make, file: Path, told: list[Event]) -> None:
    """Reading the same again changes nothing, and says so."""
    registry = make()
    assert reload(registry, environ={}, file=file) == ()
    assert told == [SettingsReloaded(provider="", time=1000.0, source="code", changes=())]


BAD = [
    ("max_providers = 0", "max_providers = 0"),
    ("max_provider = 5", "did you mean 'max_providers'?"),
    ("max_providers = ", "no valid TOML"),
    ('[providers.s3]\nprofile = "object-storage"', "did you mean 'object_storage'?"),
    ("max_providers = 20\n[environments.dev]\nmax_providers = 0", "environments.dev"),
]


@pytest.mark.parametrize("text, why", BAD)
def test_bad_file(make: Make, file: Path, told: list[Event], text: str, why: str) -> None:
    """A file with anything wrong in it changes nothing at all, and it is told what is wrong."""
    registry = make()
    before = registry.settings
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        reload(registry, environ={}, file=file)
    assert registry.settings is before
    (event,) = told
    assert isinstance(event, SettingsRefused)
    assert (event.source, event.time) == ("code", 1000.0)
    assert why in event.problem


def test_environment_and_arguments(make: Make, file: Path) -> None:
    """Variables and arguments are read anew as well, and win over the file as ever."""
    registry = make()
    reload(registry, environ={"RETRY_MAX_ATTEMPTS": "7", "RESILIENCE_CONFIG": str(file)}, max_providers=12)
    assert (registry.settings.max_providers, registry.settings.defaults.retry.max_attempts) == (12, 7)


def test_drift(make: Make, file: Path) -> None:
    """Drift tells what reading anew would change, and changes nothing."""
    registry = make()
    assert drift(registry, environ={}, file=file) == ()
    file.write_text("max_providers = 11\n")
    expected = (Change("max_providers", 10, 11),)
    assert drift(registry, environ={}, file=file) == expected
    assert registry.settings.max_providers == 10
    assert reload(registry, environ={}, file=file) == expected
    assert drift(registry, environ={}, file=file) == ()
    file.write_text("nonsense = 1")
    with pytest.raises(ConfigurationError, match="nonsense"):
        drift(registry, environ={}, file=file)


def test_drift_after_a_change_in_code(make: Make, file: Path) -> None:
    """What somebody changed in code differs from the file, and is drift as well."""
    registry = make()
    registry.reload(Settings(max_providers=99))
    assert drift(registry, environ={}, file=file) == (Change("max_providers", 99, 10),)


def test_audit(make: Make, file: Path) -> None:
    """Every reload, refusals included, is kept in order, and only so many."""
    registry, other = make(), make()
    assert audit(registry) == ()
    for number in range(reloading.KEPT):
        registry.reload(Settings(max_providers=100 + number), source="test")
    file.write_text("nonsense = 1")
    with pytest.raises(ConfigurationError):
        reload(registry, environ={}, file=file)
    kept = audit(registry)
    assert len(kept) == reloading.KEPT
    assert isinstance(kept[0], SettingsReloaded)
    assert kept[0].changes == (Change("max_providers", 100, 101),)
    assert isinstance(kept[-1], SettingsRefused)
    assert audit(other) == ()


def test_one_log_line_for_each_reload(make: Make, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reload is one line of the logger `resilience.settings`, and so is a refusal, as a warning."""
    registry = make()
    with caplog.at_level(logging.INFO, logger="resilience.settings"):
        file.write_text("max_providers = 11\n")
        reload(registry, environ={}, file=file)
        file.write_text("max_providers = 0\n")
        with pytest.raises(ConfigurationError):
            reload(registry, environ={}, file=file)
    first, second = [one for one in caplog.records if one.name == "resilience.settings"]
    assert (first.levelno, second.levelno) == (logging.INFO, logging.WARNING)
    assert "max_providers: 10 -> 11" in first.getMessage()
    assert "must be at least 1" in second.getMessage()


def test_nothing_to_watch() -> None:
    """Watching without a file is refused when the reloader is made."""
    with pytest.raises(ConfigurationError, match="no file to watch: name it with file="):
        Reloader(ProviderRegistry(), environ={}, watch=True)


def test_reloader_by_call(make: Make, file: Path) -> None:
    """A reloader reads what it was made for, also when it watches nothing."""
    registry = make()
    reloader = Reloader(registry, environ={"RESILIENCE_CONFIG": str(file)}, defaults={"retry": {"max_attempts": 2}})
    assert [change.key for change in reloader.drift()] == ["defaults.retry.max_attempts"]
    assert reloader.drifted == 1
    assert len(reloader.reload()) == 1
    assert reloader.drifted == 0
    file.write_text("nonsense = 1")
    assert reloader.drifted == 1
    with pytest.raises(ConfigurationError):
        reloader.reload()


TREES = st.dictionaries(
    st.sampled_from(["max_providers", "enabled", "nonsense", "defaults", "providers"]),
    st.one_of(
        st.integers(-1, 3),
        st.booleans(),
        st.fixed_dictionaries({"retry": st.fixed_dictionaries({"max_attempts": st.integers(-1, 5)})}),
        st.fixed_dictionaries({"s3": st.fixed_dictionaries({"profile": st.sampled_from(["llm", "lmm"])})}),
    ),
)


@given(TREES)
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_or_nothing(tree: dict[str, object]) -> None:
    """Whatever is read: either all of it holds, or the settings are the very same as before."""
    before = Settings(max_providers=50, defaults=ProviderSettings(retry=RetrySettings(max_attempts=9)))
    registry = ProviderRegistry(before)
    try:
        reload(registry, environ={}, **tree)
    except ConfigurationError:
        assert registry.settings is before
        with pytest.raises(ConfigurationError):
            Settings.from_environment({}, **tree)
    else:
        assert registry.settings == Settings.from_environment({}, **tree)
