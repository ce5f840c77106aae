"""Events as the runtime would emit them, made from few words."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

import resilience.logging
from resilience.events import process_bus
from resilience.logging import DEBUG_EVENTS, log_event
from resilience.logging.output import LogOutput


@pytest.fixture(autouse=True)
def _installed() -> None:
    resilience.logging.install()


@pytest.fixture(autouse=True)
def _left_as_found() -> Generator[None, None, None]:
    """No test may leave an output behind: the next one would write to it."""
    logger = logging.getLogger("resilience")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    stray = [handler for handler in logger.handlers if isinstance(handler, LogOutput)]
    for output in stray:
        output.close()
    assert not stray
    assert (list(logger.handlers), logger.level, logger.propagate) == before


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Generator[pytest.LogCaptureFixture, None, None]:
    """What is logged from DEBUG on, the frequent events included."""
    caplog.set_level(logging.DEBUG, logger="resilience")
    unsubscribe = process_bus.subscribe(log_event, *DEBUG_EVENTS)
    yield caplog
    unsubscribe()
    caplog.set_level(logging.NOTSET, logger="resilience")
