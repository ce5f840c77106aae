"""The exceptions of this package: their tree, their texts, and that they travel."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import resilience
from resilience import errors
from resilience._core.states import Evidence
from resilience.classify import attach, failure_of
from resilience.errors import (
    CallRejected,
    CallTimeout,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    ProviderError,
    ProviderGated,
    Reason,
    ResilienceError,
    ShuttingDown,
    annotate,
    leave,
)
from resilience.failure import Category, Failure, FailureKind

FAILURE = Failure(
    kind=FailureKind.SERVER_ERROR,
    category=Category.RETRIABLE,
    error_type="httpx.HTTPStatusError",
    status=502,
    provider="openai",
    operation="embeddings",
    attempts=3,
    time=1_700_000_000.0,
)
ROW = Evidence("in_a_row", bad=5)

TEXTS = [
    (ResilienceError("something"), "something"),
    (ConfigurationError("retry.max_attempts=0"), "retry.max_attempts=0"),
    (ProviderError(FAILURE), "openai.embeddings: server_error after 3 attempts (httpx.HTTPStatusError, status 502)"),
    (
        ProviderError(FAILURE.attributed(provider="s3", operation="", attempts=1, time=0.0)),
        "s3: server_error after 1 attempt (httpx.HTTPStatusError, status 502)",
    ),
    (
        CallTimeout("openai", "embeddings", "attempt", 30.0, 30.0012),
        "openai.embeddings: attempt timed out after 30 s (limit 30 s)",
    ),
    (CallTimeout("openai", "", "total", 0.25, 0.2514), "openai: call timed out after 0.251 s (limit 0.25 s)"),
    (
        CallTimeout("openai", "", "shutdown", 20.0, 31.5),
        "openai: interrupted by the shutdown after 31.5 s (grace 20 s)",
    ),
    (CallRejected("openai", Reason.RETRY_DISABLED, None, ""), "openai: call refused"),
    (ShuttingDown("openai", Reason.SHUTTING_DOWN, None, ""), "openai: shutting down"),
    (
        CircuitOpen("openai", Reason.CIRCUIT_OPEN, 12.41, ROW),
        "openai: circuit open, 5 failures in a row, next probe in 12.4 s",
    ),
    (
        CircuitOpen(
            "openai",
            Reason.CIRCUIT_OPEN,
            12.4,
            Evidence("failure_rate", bad=57, calls=100, span="30 s", threshold=0.5),
        ),
        "openai: circuit open, 57 of 100 calls failed in 30 s (threshold 50 %), next probe in 12.4 s",
    ),
    (CircuitOpen("openai", Reason.FORCED_OPEN, None, Evidence("by_hand")), "openai: circuit open, by hand"),
    (
        ProviderGated("openai", Reason.PROVIDER_GATED, 47.0, "a call waits 5 s at most"),
        "openai: provider asked for a pause, a call waits 5 s at most, retry in 47.0 s",
    ),
    (
        DeadlineExceeded("openai", Reason.DEADLINE_WOULD_PASS, None, "it passed 0.5 s ago"),
        "openai: deadline has passed, it passed 0.5 s ago",
    ),
]
EACH = pytest.mark.parametrize("error, text", TEXTS, ids=[type(error).__name__ for error, _ in TEXTS])


# -- the tree --------------------------------------------------------------------------------------------------------


def test_the_tree() -> None:
    """Every exception is a `ResilienceError`, a refusal is a `CallRejected`, and those with a twin are it too."""
    tree = {
        name: [base.__name__ for base in thing.__mro__[1:]]
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__ == errors.__name__
    }
    roots = ["Exception", "BaseException", "object"]
    assert tree == {
        "ResilienceError": roots,
        "ConfigurationError": ["ResilienceError", "ValueError", *roots],
        "ProviderError": ["ResilienceError", *roots],
        "CallTimeout": ["ResilienceError", "TimeoutError", "OSError", *roots],
        "CallRejected": ["ResilienceError", *roots],
        "CircuitOpen": ["CallRejected", "ResilienceError", *roots],
        "ProviderGated": ["CallRejected", "ResilienceError", *roots],
        "RateLimited": ["CallRejected", "ResilienceError", *roots],
        "BulkheadFull": ["CallRejected", "ResilienceError", *roots],
        "Throttled": ["CallRejected", "ResilienceError", *roots],
        "CostLimitReached": ["CallRejected", "ResilienceError", *roots],
        "ShuttingDown": ["CallRejected", "ResilienceError", *roots],
        "StreamInterrupted": ["ResilienceError", *roots],
        "UnacceptableResult": ["ResilienceError", *roots],
        "AllProvidersFailed": ["ResilienceError", *roots],
        "DeadlineExceeded": ["CallRejected", "ResilienceError", "TimeoutError", "OSError", *roots],
    }


def test_the_tree_as_it_is_drawn() -> None:
    """The drawing on top of the module has every exception once, at its depth."""
    drawn = re.findall(r"^ {4}( *)(?:[x+] )?([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    classes = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, Exception)]
    depths = {kind.__name__: sum(issubclass(kind, other) for other in classes) - 1 for kind in classes}
    assert {name: len(indent) // 2 for indent, name in drawn} == depths
    assert len(drawn) == len(depths)


def test_all_are_public() -> None:
    """Every exception can be imported from the front door."""
    for name, thing in vars(errors).items():
        if inspect.isclass(thing) and issubclass(thing, ResilienceError):
            assert getattr(resilience, name) is thing


# -- texts and facts -------------------------------------------------------------------------------------------------


@EACH
def test_texts(error: ResilienceError, text: str) -> None:
    """The text of each exception has the figures."""
    assert str(error) == text


def test_the_facts_of_a_timeout() -> None:
    """A timeout tells what was limited, to how much, and how long it took; it is no error of the system's."""
    error = CallTimeout("openai", "embeddings", "attempt", 30, 30.5)
    assert (error.provider, error.operation, error.scope) == ("openai", "embeddings", "attempt")
    assert (error.limit, error.elapsed) == (30.0, 30.5)
    assert (error.errno, error.strerror, error.filename) == (None, None, None)


def test_the_facts_of_a_refusal() -> None:
    """A refusal tells who, why, and in how many seconds a call makes sense."""
    error = CircuitOpen("openai", "circuit_open", 12.4, ROW)
    assert (error.provider, error.reason, error.retry_after) == ("openai", Reason.CIRCUIT_OPEN, 12.4)
    assert isinstance(error.reason, Reason)
    late = DeadlineExceeded("openai", Reason.DEADLINE_WOULD_PASS, None, "")
    assert (late.reason, late.retry_after, late.errno) == (Reason.DEADLINE_WOULD_PASS, None, None)


def test_the_failure_of_a_standard_error() -> None:
    """A standard error carries its failure, for `failure_of` too."""
    error = ProviderError(FAILURE)
    assert error.failure is FAILURE
    assert failure_of(error) is FAILURE
    assert failure_of(ProviderError()) is None


# -- travelling ------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(error: ResilienceError, text: str, protocol: int) -> None:
    """Each exception crosses a process border whole: type, facts, notes and failure."""
    error = copy.copy(error)
    annotate(error, "openai", "gave up")
    attach(error, FAILURE)
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert type(twin) is type(error)
    assert (twin.args, str(twin), twin.__notes__) == (error.args, text, ["resilience: openai: gave up"])
    assert vars(twin) == vars(error)


@EACH
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copying(error: ResilienceError, text: str, make: object) -> None:
    """Each exception can be copied."""
    twin = make(error)
    assert twin is not error
    assert (type(twin), twin.args, str(twin)) == (type(error), error.args, text)


# -- what is left on other people's errors ----------------------------------------------------------------------------


def test_a_note_replaces_the_one_before() -> None:
    """A note of a provider replaces an earlier one of its own, and leaves everybody else's in their order."""
    error = ValueError()
    error.add_note("first")
    annotate(error, "openai", "one")
    annotate(error, "open", "other")
    error.add_note("last")
    annotate(error, "openai", "two")
    assert error.__notes__ == ["first", "resilience: open: other", "last", "resilience: openai: two"]


def test_notes_that_are_no_text() -> None:
    """Whatever else is among an error's notes stays there."""
    error = ValueError()
    error.__notes__ = [5, None]
    annotate(error, "openai", "one")
    assert error.__notes__ == [5, None, "resilience: openai: one"]


def test_notes_that_are_no_list() -> None:
    """Where an error keeps something of its own in place of notes, there is no note."""
    error = ValueError()
    error.__notes__ = "mine"
    annotate(error, "openai", "one")
    assert error.__notes__ == "mine"


def test_writing_on_an_error_that_refuses() -> None:
    """What has to be left on an error is left even on a frozen one."""

    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error = Frozen()
    leave(error, "mark", 1)
    attach(error, FAILURE)
    annotate(error, "openai", "one")
    assert (error.mark, failure_of(error), error.__notes__) == (1, FAILURE, ["resilience: openai: one"])
