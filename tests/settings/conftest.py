"""What the tests of settings share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from resilience.errors import ConfigurationError
from resilience.settings import Settings


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Write a settings file; its name is relative, so that messages can be compared as a whole."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(dedent(text), encoding="utf-8")
        return name

    return write


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Return what is said about settings that make no sense."""

    def refusal(make: Callable[[], object] | dict[str, str], **init: object) -> str:
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_environment(make, **init) if isinstance(make, dict) else make()
        return str(caught.value)

    return refusal
