"""What a registry takes: names of providers and endpoints, and settings."""

from __future__ import annotations

import re

from resilience.errors import ConfigurationError
from resilience.eviction import Key
from resilience.settings import Settings

_NAME = re.compile(r"[a-z0-9_.-]+")
_ENDPOINT = re.compile(r"[A-Za-z0-9_.:-]+")


def check_names(name: str, endpoint: str | None) -> None:
    """
    Check the name of a provider, and of an endpoint if there is one.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no provider name: use {_suggestion(name)}, from a-z, 0-9, '_', '.' and '-'"
        )
    if endpoint is not None and not (isinstance(endpoint, str) and _ENDPOINT.fullmatch(endpoint)):
        raise ConfigurationError(
            f"{endpoint!r} is no endpoint name: use letters, digits, '_', '.', ':' and '-', such as 'eu-west-1'"
        )


def check_settings(settings: object, taker: str) -> None:
    """
    Check that *settings* are some; *taker* is who was given them.

    Raises:
        ConfigurationError: They are something else.
    """
    if not isinstance(settings, Settings):
        raise ConfigurationError(
            f"{taker} takes Settings(...), not {type(settings).__name__}: "
            "settings for one provider go into Settings(providers={name: ...})"
        )


def name_in(key: Key) -> str:
    """Return the provider's name in *key*."""
    return key if isinstance(key, str) else key[0]


def _suggestion(name: object) -> str:
    cleaned = re.sub(r"[^a-z0-9_.-]+", "-", str(name).lower()).strip("-") if isinstance(name, str) else ""
    return repr(cleaned or "openai")
