"""Profiles: what they say, what they win over, and what wins over them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from resilience.registry import ProviderRegistry
from resilience.settings import (
    BreakerSettings,
    ExperimentSettings,
    OperationSettings,
    Profile,
    ProviderSettings,
    RetrySettings,
    Settings,
    TimeoutSettings,
    profiles,
)
from resilience.settings._origins import written

NAMES = ["llm", "object_storage", "upload", "webhook", "database", "internal_rpc"]

Write = Callable[[str, str], str]
Refusal = Callable[..., str]


def attempt(settings: Settings, name: str = "openai") -> float | None:
    return settings.for_provider(name).timeout.attempt


def test_every_profile_is_listed() -> None:
    """There is a profile for each kind of service that the settings name."""
    assert [profile.name for profile in profiles()] == NAMES


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_every_value_has_its_reason(profile: Profile) -> None:
    """A profile says why for each value, and for nothing else."""
    assert profile.purpose
    assert sorted(profile.reasons) == sorted(".".join(path) for path, _ in written(profile.settings))
    assert all(profile.reasons.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_fits_over_the_defaults(name: str) -> None:
    """Naming a profile is all it takes: it contradicts nothing, and every one of its values is in force."""
    settings = Settings(providers={"openai": ProviderSettings(profile=name)})
    (profile,) = [one for one in profiles() if one.name == name]
    in_force = {one.key: one.value for one in settings.effective("openai")}
    for path, value in written(profile.settings):
        key = ".".join(path)
        assert in_force[f"providers.openai.{key}"] == value
        assert str(settings.origin(f"providers.openai.{key}")) == f"profile {name}"


def test_uploads_are_repeated_only_where_that_is_harmless() -> None:
    """An upload as a whole is not idempotent, a resumable one is."""
    upload = Settings(providers={"tus": ProviderSettings(profile="upload")}).for_provider("tus")
    assert (upload.idempotent("upload"), upload.idempotent("resume"), upload.idempotent("x")) == (False, True, None)


def test_own_entry_over_profile_over_defaults() -> None:
    """What a provider's own entry says wins over its profile, and that over the defaults for everybody."""
    settings = Settings(
        defaults=ProviderSettings(timeout=TimeoutSettings(attempt=7, total=8), retry=RetrySettings(max_attempts=9)),
        providers={"openai": ProviderSettings(profile="llm", timeout=TimeoutSettings(total=400))},
    )
    openai = settings.for_provider("openai")
    assert (openai.timeout, openai.retry.max_attempts) == (TimeoutSettings(attempt=300, total=400), 9)
    assert attempt(settings, "s3") == 7
    origins = [str(settings.origin(f"providers.openai.timeout.{key}")) for key in ("attempt", "total")]
    assert origins == ["profile llm", "in code"]
    assert str(settings.origin("providers.openai.breaker.timeout")) == "default"


def test_a_profile_for_everybody() -> None:
    """A profile named in the defaults lies below what the defaults say themselves, and holds for everybody."""
    settings = Settings(defaults=ProviderSettings(profile="database", timeout=TimeoutSettings(total=20)))
    assert settings.for_provider("pg").timeout == TimeoutSettings(attempt=5, total=20)
    assert str(settings.origin("defaults.timeout.attempt")) == "profile database"
    assert str(settings.origin("providers.pg.timeout.attempt")) == "profile database"


@pytest.mark.parametrize("own, expected", [("webhook", 15.0), (None, 30.0)])
def test_only_the_nearest_profile_holds(own: str | None, expected: float) -> None:
    """A provider with another profile, or with none, has nothing of the one that the defaults name."""
    settings = Settings(
        defaults=ProviderSettings(profile="database"), providers={"hook": ProviderSettings(profile=own)}
    )
    assert attempt(settings, "hook") == expected
    assert settings.for_provider("hook").retry.base_delay != 0.05
    assert attempt(settings, "other") == 5.0


@pytest.mark.parametrize("written_as", ["LLM", " llm "])
def test_in_the_environment(written_as: str) -> None:
    """A profile can be chosen by an environment variable, whatever the case; its values say where they are from."""
    settings = Settings.from_environment({"RESILIENCE_PROVIDERS__OPENAI__PROFILE": written_as})
    assert attempt(settings) == 300.0
    assert str(settings.origin("providers.openai.timeout.attempt")) == "profile llm"
    variable = "environment variable RESILIENCE_PROVIDERS__OPENAI__PROFILE"
    assert str(settings.origin("providers.openai.profile")) == variable


def test_in_a_file(write: Write) -> None:
    """So can it in a file, for a provider whose environment variables are spelled with underscores."""
    file = write("x.toml", '[providers.my-llm]\nprofile = "llm"\n[providers.my-llm.timeout]\ntotal = "700s"')
    settings = Settings.from_environment({"RESILIENCE_PROVIDERS__MY_LLM__CRITICAL": "true"}, file=file)
    assert settings.for_provider("my-llm").timeout == TimeoutSettings(attempt=300, total=700)
    assert str(settings.origin("providers.my-llm.timeout.total")) == "file x.toml"
    assert settings.for_provider("my-llm").critical


def test_origin_under_another_spelling() -> None:
    """An entry in the spelling of the environment tells where its values are from, also for the real name."""
    settings = Settings.from_environment({"RESILIENCE_PROVIDERS__MY_API__RETRY__MAX_ATTEMPTS": "5"})
    origin = str(settings.origin("providers.my-api.retry.max_attempts"))
    assert origin == "environment variable RESILIENCE_PROVIDERS__MY_API__RETRY__MAX_ATTEMPTS"


def test_unknown_profile(refusal: Refusal) -> None:
    """An unknown profile is refused with the nearest name."""
    text = refusal({"RESILIENCE_PROVIDERS__S3__PROFILE": "object-storage"})
    assert text.endswith("must be one of " + ", ".join(NAMES) + "; did you mean 'object_storage'?")


def test_against_a_profile(refusal: Refusal) -> None:
    """What makes no sense beside a value of the profile is refused, and the profile is named."""
    text = refusal(
        lambda: Settings(providers={"x": ProviderSettings(profile="webhook", breaker=BreakerSettings(timeout=7200))})
    )
    assert "providers.x.breaker.max_timeout = 3600.0 (profile webhook)" in text


def test_differences_from_a_profile() -> None:
    """What was written for a provider is compared with what its profile would say."""
    settings = Settings(providers={"x": ProviderSettings(profile="llm", timeout=TimeoutSettings(attempt=30))})
    (_, timeout) = settings.differences()
    assert str(timeout) == "providers.x.timeout.attempt = 30 (default 300; in code)"


def test_experiment() -> None:
    """An experiment is laid over all that holds for its provider; without one there is no alternative."""
    settings = Settings(
        defaults=ProviderSettings(retry=RetrySettings(max_attempts=4)),
        providers={"s3": ProviderSettings(timeout=TimeoutSettings(attempt=5))},
        experiments={
            "s3": ExperimentSettings(share=0.1, settings=ProviderSettings(breaker=BreakerSettings(timeout=9))),
            "llm": ExperimentSettings(settings=ProviderSettings(profile="llm")),
        },
    )
    found = settings.alternative("s3")
    assert found is not None
    assert (found.retry.max_attempts, found.timeout.attempt, found.breaker.timeout) == (4, 5, 9)
    assert settings.for_provider("s3").breaker.timeout == 60
    llm = settings.alternative("llm")
    assert llm is not None
    assert llm.timeout.attempt == 300
    assert settings.alternative("gcs") is None
    assert str(settings.origin("experiments.llm.settings.timeout.attempt")) == "profile llm"
    assert str(settings.origin("experiments.s3.settings.timeout.attempt")) == "in code"
    assert str(settings.origin("experiments.s3.settings.timeout.total")) == "default"


def test_experiment_switched_off_with_everything() -> None:
    """With everything off, an experiment is off too."""
    settings = Settings(enabled=False, experiments={"s3": ExperimentSettings(share=1)})
    alternative = settings.alternative("s3")
    assert alternative is not None
    assert not alternative.enabled


def test_experiment_in_the_environment(write: Write) -> None:
    """Experiments can be set by environment variables too, for providers as other tables spell them."""
    file = write("x.toml", "[providers.my-api.retry]\nmax_attempts = 2")
    environ = {
        "RESILIENCE_EXPERIMENTS__MY_API__SHARE": "0.25",
        "RESILIENCE_EXPERIMENTS__MY_API__SETTINGS__RETRY__BASE_DELAY": "250ms",
        "RESILIENCE_EXPERIMENTS__MY_API__SETTINGS__OPERATIONS__EMBED__IDEMPOTENT": "true",
    }
    settings = Settings.from_environment(environ, file=file)
    assert list(settings.experiments) == ["my-api"]
    experiment = settings.experiment("my-api")
    assert experiment is not None
    assert experiment.share == 0.25
    found = settings.alternative("my-api")
    assert found is not None
    assert (found.retry.max_attempts, found.retry.base_delay, found.idempotent("embed")) == (2, 0.25, True)
    key = "experiments.my-api.settings.retry.max_attempts"
    assert str(settings.origin(key)) == "file x.toml"


def test_a_provider_is_spelled_as_its_experiment(write: Write) -> None:
    """A name that the file has among the experiments only tells how variables for the provider are meant."""
    file = write("x.toml", "[experiments.my-api]\nshare = 0.5")
    settings = Settings.from_environment({"RESILIENCE_PROVIDERS__MY_API__CRITICAL": "true"}, file=file)
    assert list(settings.providers) == ["my-api"]


def test_experiment_under_another_spelling() -> None:
    """An experiment that only the environment names, with underscores, is one with the provider of the real name."""
    settings = Settings.from_environment({"RESILIENCE_EXPERIMENTS__MY_API__SHARE": "1"})
    assert settings.experiment("my-api") == ExperimentSettings(share=1)
    registry = ProviderRegistry(settings)
    registry.provider("my-api")
    assert [runtime.variant for runtime in registry.runtimes.values()] == ["a", "b"]


@pytest.mark.parametrize(
    "tree, text",
    [
        ({"experiments": {"Open AI": {"share": 1}}}, "'Open AI' is no provider name"),
        ({"experiments": {"s3": {"share": 2}}}, "experiments.s3.share = 2 (in code): must be at most 1; it is a share"),
        (
            {"experiments": {"s3": {"shard": 1}}},
            "experiments.s3.shard (in code): unknown setting; did you mean 'share'?",
        ),
        (
            {"experiments": {"s3": {"settings": {"retry": {"base_delay": 90}}}}},
            "must not be more than experiments.s3.settings.retry.max_delay = 60.0 (default)",
        ),
    ],
)
def test_experiment_refused(refusal: Refusal, tree: dict[str, object], text: str) -> None:
    """Nonsense in an experiment is refused like anywhere else."""
    assert text in refusal({}, **tree)


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES))
@hypothesis_settings(max_examples=30)
def test_profiles_make_sense_over_one_another(defaults: str, own: str, experiment: str) -> None:
    """Any profiles can stand at any level, and for every operation something comes out."""
    settings = Settings(
        defaults=ProviderSettings(profile=defaults, operations={"x": OperationSettings(idempotent=True)}),
        providers={"p": ProviderSettings(profile=own)},
        experiments={"p": ExperimentSettings(settings=ProviderSettings(profile=experiment))},
    )
    found = settings.alternative("p")
    assert found is not None
    assert (found.profile, settings.for_provider("p").profile) == (experiment, own)
    assert Settings.model_validate(settings.model_dump(mode="json", exclude_unset=True)) == settings
