"""Services that keep their own settings with pydantic-settings can nest ours."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from resilience import ProviderRegistry, Settings


class ServiceSettings(BaseSettings):
    """A service's own settings, ours among them."""

    model_config = SettingsConfigDict(env_prefix="SHOP_", env_nested_delimiter="__")

    port: int = 8080
    resilience: Settings = Settings()


def test_ours_are_read_with_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that has its own prefix sets our settings under it."""
    monkeypatch.setenv("SHOP_RESILIENCE__DEFAULTS__RETRY__MAX_ATTEMPTS", "7")
    monkeypatch.setenv("SHOP_RESILIENCE__PROVIDERS__OPENAI__BREAKER__TIMEOUT", "30s")
    settings = ServiceSettings()
    registry = ProviderRegistry(settings.resilience)
    assert registry.settings.for_provider("s3").retry.max_attempts == 7
    assert registry.settings.for_provider("openai").retry.max_attempts == 7
    assert registry.settings.for_provider("openai").breaker.timeout == 30


def test_theirs_refuse_what_ours_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense is refused as pydantic refuses it, together with the service's own."""
    monkeypatch.setenv("SHOP_PORT", "harbour")
    monkeypatch.setenv("SHOP_RESILIENCE__DEFAULTS__RETRY__MAX_ATTEMPTS", "0")
    with pytest.raises(ValidationError) as refused:
        ServiceSettings()
    assert [error["loc"] for error in refused.value.errors()] == [
        ("port",),
        ("resilience", "defaults", "retry", "max_attempts"),
    ]
