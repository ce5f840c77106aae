"""What `import resilience` must not bring along."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIST_MODULES = "import json, sys; {}; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str) -> set[str]:
    """The modules a fresh interpreter has loaded after *code*."""
    asked = subprocess.run(
        [sys.executable, "-P", "-c", LIST_MODULES.format(code)], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(asked.stdout))


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return modules_after("import resilience")


@pytest.mark.real_time
@pytest.mark.parametrize("heavy", ["httpx", "httpcore", "opentelemetry.sdk", "yaml", "trio", "providers"])
def test_import_resilience_loads_nothing_heavy(loaded: set[str], heavy: str) -> None:
    """A service that never uses it does not pay for it at start."""
    assert heavy not in loaded


@pytest.mark.real_time
def test_import_providers_loads_no_adapter(loaded: set[str]) -> None:
    """Adapters load by name, when one is asked for."""
    assert "httpx" not in modules_after("import providers")
