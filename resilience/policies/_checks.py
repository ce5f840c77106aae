"""What policies ask of those who make them."""

from __future__ import annotations

from resilience.errors import ConfigurationError
from resilience.settings import ProviderSettings


def checked_input(what: str, name: object, settings: object, expected: type) -> None:
    """
    Refuse what *what* cannot be made of.

    Raises:
        ConfigurationError: *name* is not a string, or *settings* are not *expected*.
    """
    if not isinstance(name, str):
        slip = ": did the settings come first?" if isinstance(name, expected | ProviderSettings) else ""
        raise ConfigurationError(f"{what}'s name is a string, not {name!r}{slip}")
    if isinstance(settings, expected):
        return
    shown = repr(settings)
    if isinstance(settings, ProviderSettings):
        field = next(field for field, value in settings if isinstance(value, expected))
        shown = f"ProviderSettings: those of a provider hold them as .{field}"
    elif isinstance(settings, str):
        shown += ": the name is name=..."
    raise ConfigurationError(f"{what} takes {expected.__name__}(...), not {shown}")
