"""All settings of one registry, and where each of them came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Self, final

from pydantic import Field, PrivateAttr

from resilience.errors import ConfigurationError
from resilience.settings._checks import Contradiction, Path
from resilience.settings._layers import inherited, laid, origin
from resilience.settings._models import (
    ExperimentSettings,
    OperationSettings,
    ProviderSettings,
    overruled,
    with_operation,
)
from resilience.settings._operations import (
    HealthSettings,
    LoggingSettings,
    MetricsSettings,
    ReloadSettings,
    ShutdownSettings,
    crossed,
)
from resilience.settings._origins import Difference, Origin, is_there, written
from resilience.settings._places import entry, readings, unknown_in
from resilience.settings._tables import Table, merged
from resilience.settings._types import Count, Frozen, FrozenDict, ProviderName

if TYPE_CHECKING:
    from resilience.settings._changes import Effective


@final
class Settings(Table):
    """
    All settings of one registry.

    Args:
        enabled: False turns every call into a plain await. Default: True.
        defaults: What holds for every provider. Default: `ProviderSettings()`.
        providers: What single providers do differently, by name; what is not written there comes from *defaults*.
        max_providers: So many providers are kept at a time. Default: 1024.
        experiments: Calls that run with other settings, by provider. Default: none.
        health: Where health is told, and how its checks run. Default: `HealthSettings()`.
        metrics: How metrics leave this process. Default: `MetricsSettings()`.
        logging: How `resilience serve` writes its log. Default: `LoggingSettings()`.
        reload: Whether settings are read anew while the process runs. Default: `ReloadSettings()`.
        shutdown: How the process goes down. Default: `ShutdownSettings()`.

    Raises:
        ConfigurationError: Something makes no sense; the text names each such setting, its value, where it came from
            and the likely slip.
    """

    enabled: bool = True
    """False turns every call into a plain await."""
    defaults: ProviderSettings = ProviderSettings()
    """What holds for every provider."""
    providers: Annotated[Mapping[ProviderName, ProviderSettings], Frozen] = Field(
        default_factory=FrozenDict[str, ProviderSettings]
    )
    """What single providers do differently, by name. What is not written comes from *defaults*."""
    max_providers: Count = 1024
    """So many providers are kept at a time; idle ones make room."""
    experiments: Annotated[Mapping[ProviderName, ExperimentSettings], Frozen] = Field(
        default_factory=FrozenDict[str, ExperimentSettings]
    )
    """Calls that run with other settings, by the name of their provider."""
    health: HealthSettings = HealthSettings()
    """Where health is told, and how its checks run."""
    metrics: MetricsSettings = MetricsSettings()
    """How metrics leave this process."""
    logging: LoggingSettings = LoggingSettings()
    """How `resilience serve` writes its log."""
    reload: ReloadSettings = ReloadSettings()
    """Whether settings are read anew while the process runs."""
    shutdown: ShutdownSettings = ShutdownSettings()
    """How the process goes down."""

    _origins: dict[Path, Origin] = PrivateAttr(default_factory=dict[Path, Origin])

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        file: str | PathLike[str] | None = None,
        environment: str | None = None,
        **init: Any,
    ) -> Settings:
        """
        Collect settings: arguments win over environment variables, those over the file, that over the defaults.

        Args:
            environ: The environment variables. Default: those of the process.
            file: A TOML, YAML or JSON file. Default: what ``RESILIENCE_CONFIG`` names, if anything.
            environment: Which of the file's overlays, its ``[environments.<name>]`` tables, is laid over the rest of
                it. Default: what ``RESILIENCE_ENV`` names, if anything.
            **init: Settings, as `Settings` takes them; tables may be partial.

        Raises:
            ConfigurationError: Something makes no sense; the text names each such setting, its value, where it came
                from and the likely slip.
        """
        from resilience.settings._sources import collected

        return collected(environ, file, environment, init)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a settings file, its ``environments`` included."""
        from resilience.settings._schema import file_schema

        return file_schema(cls)

    def for_provider(self, name: str) -> ProviderSettings:
        """Return what holds for the provider *name*: its own entry, over its profile, over the defaults."""
        return self._unless_disabled(laid(self, ("providers", name)))

    def experiment(self, name: str) -> ExperimentSettings | None:
        """Return the experiment with the provider *name*, if there is one."""
        return entry(self.experiments, name)

    def alternative(self, name: str) -> ProviderSettings | None:
        """Return what holds for the calls to *name* that are in its experiment; None if it has none."""
        if self.experiment(name) is None:
            return None
        return self._unless_disabled(laid(self, ("experiments", name, "settings")))

    def _unless_disabled(self, found: ProviderSettings) -> ProviderSettings:
        return found if self.enabled else merged(found, ProviderSettings(enabled=False))

    def origin(self, key: str) -> Origin:
        """
        Return where a value that is in force came from.

        Args:
            key: The setting, such as ``"providers.openai.retry.max_attempts"``. A provider without an entry of its
                own has what the defaults say.

        Raises:
            ConfigurationError: There is no such setting.
        """
        parts = tuple(key.split("."))
        paths = list(readings(Settings, parts))
        if not paths:
            raise ConfigurationError(f"{key}: {unknown_in(Settings, parts)}")
        return origin(self, max(paths, key=lambda path: is_there(self, path)))

    def differences(self) -> list[Difference]:
        """Return every setting that was written and differs from what would hold without it."""
        found = ((path, value, inherited(self, path)) for path, value in written(self))
        return [
            Difference(".".join(path), value, default, origin(self, path))
            for path, value, default in found
            if value != default
        ]

    def effective(self, provider: str | None = None) -> list[Effective]:
        """
        Return every setting with the value that is in force and where that came from, as ``(key, value, origin)``.

        Args:
            provider: Only what holds for this provider, whether it has an entry or not. Default: None, everything that
                was written for anyone, and the defaults.
        """
        from resilience.settings._changes import effective

        return effective(self, provider)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """
        Return a copy with *update* in place of what is there; the rest keeps its origins.

        Args:
            update: The fields that change. They are checked like any others.
            deep: Whether to copy the values too. Default: False, they cannot change anyway.

        Raises:
            ConfigurationError: The result would make no sense.
        """
        copy = super().model_copy(update=update, deep=deep)
        copy._origins = {path: origin for path, origin in self._origins.items() if path[0] not in (update or ())}
        return copy

    # Where a value came from does not matter for what it is.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def _contradictions(self) -> Iterator[Contradiction]:
        for at, own, effective in self._scopes():
            yield from overruled(own, effective, at)
        yield from crossed(self.health, self.metrics)

    def _scopes(self) -> Iterator[tuple[Path, ProviderSettings | OperationSettings, ProviderSettings]]:
        """Return every entry, and what comes out when it is laid over what it inherits."""
        providers = [(("providers", name), own) for name, own in self.providers.items()]
        experiments = [(("experiments", name, "settings"), one.settings) for name, one in self.experiments.items()]
        for at, own in [(("defaults",), self.defaults), *providers, *experiments]:
            effective = laid(self, at)
            yield at, own, effective
            for name, operation in own.operations.items():
                yield (*at, "operations", name), operation, with_operation(effective, operation)
