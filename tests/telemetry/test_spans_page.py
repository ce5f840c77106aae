"""What the page on telemetry says of spans and log records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resilience.logging.lines import DEBUG_EVENTS
from resilience.telemetry import names, records

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text("utf-8")


@pytest.mark.parametrize("span", [value for name, value in vars(names).items() if name.endswith("_SPAN")])
def test_each_span_is_documented(span: str) -> None:
    """Each span has a row."""
    assert f"\n| `{span}` |" in PAGE


def test_each_log_record_is_documented() -> None:
    """Each event name is there once, and those that are only told if asked for are told apart."""
    [table] = re.findall(r"\| event name \| of \|\n(.*?)\n\n", PAGE, re.DOTALL)
    told = set(re.findall(r"`(resilience\.[a-z_.]+)`", table))
    assert told == {one.name for one in records._EVENTS.values()}
    frequent = set(re.findall(r"`(resilience\.[a-z_.]+)`", table.splitlines()[-1]))
    assert frequent == {records._EVENTS[event].name for event in DEBUG_EVENTS}


def test_each_attribute_is_ours() -> None:
    """The attributes that the page names in the table of spans are those that spans have."""
    [table] = re.findall(r"\| span \| when \|.*?\n\n", PAGE, re.DOTALL)
    attributes = {
        word for row in table.strip().splitlines()[2:] for word in re.findall(r"`([a-z_.]+)`", row.split(" | ")[2])
    }
    known = {value.removeprefix("resilience.") for value in vars(names).values() if isinstance(value, str)}
    assert attributes <= known
