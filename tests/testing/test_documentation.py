"""The page on testing: what it shows runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_time

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCK = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Those who run on anyio's plugin as a whole have a conftest.py of their own.
SUITE = ("conftest.py", "test_suite.py")


def test_the_examples_run(tmp_path: Path) -> None:
    """Every block of the page is a file, and pytest passes on all of them."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python")
    (tmp_path / "suite").mkdir()
    for name, source in blocks:
        (tmp_path / ("suite" if name in SUITE else "") / name).write_text(source, encoding="utf-8")
    plugins = ("-p", "anyio", "-p", "_resilience_pytestplugin", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugins, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("FAILED") == 0
    tests = sum(source.count("def test_") for _, source in blocks)
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= tests
