"""What users add, what this package's own errors mean, and how a failure travels on an exception."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
import pytest

from resilience.classify import attach, classify, failure_of
from resilience.errors import (
    CallRejected,
    CallTimeout,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    ProviderError,
    Reason,
)
from resilience.failure import Category, Delivery, Failure, FailureKind, Verdict

Told = Callable[[Failure], tuple[str, str, str, str]]
FAILURE = Failure(kind=FailureKind.OVERLOADED, category=Category.TRANSIENT, error_type="x.Busy", retry_after=2.0)


class PrinterOnFire(Exception):
    """An error that only its users understand."""


class TestRules:
    """Rules come before everything else."""

    def test_whole_failure(self) -> None:
        """A rule may decide everything."""
        assert classify(PrinterOnFire(), rules=[lambda error: FAILURE]) is FAILURE

    def test_kind_alone(self, told: Told) -> None:
        """A rule may decide the kind; category and evidence follow it, the rest is read as usual."""
        response = httpx.Response(418, headers={"retry-after": "5"})
        failure = classify(response, rules=[lambda thing: FailureKind.OVERLOADED])
        assert told(failure) == ("overloaded", "transient", "processed", "failure")
        assert (failure.status, failure.retry_after) == (418, 5.0)

    def test_kind_replaces_evidence(self, told: Told) -> None:
        """What a bug would have said to the breaker is gone when a rule says that it is none."""
        failure = classify(KeyError(), rules=[lambda error: FailureKind.SERVER_ERROR])
        assert told(failure) == ("server_error", "retriable", "maybe", "failure")

    def test_first_that_decides(self) -> None:
        """None passes on; the first decision stands."""
        asked: list[str] = []

        def passes(error: object) -> None:
            asked.append("passes")

        def decides(error: object) -> FailureKind:
            asked.append("decides")
            return FailureKind.NOT_FOUND

        def never(error: object) -> NoReturn:
            raise AssertionError

        assert classify(PrinterOnFire(), rules=(passes, decides, never)).kind is FailureKind.NOT_FOUND
        assert asked == ["passes", "decides"]

    def test_all_pass(self) -> None:
        """When every rule passes, the usual way is taken."""
        assert classify(TimeoutError(), rules=[lambda error: None]).kind is FailureKind.TIMEOUT

    def test_rule_that_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        """A broken rule is logged and must not hide the provider's error."""

        def broken(error: object) -> NoReturn:
            raise ZeroDivisionError

        with caplog.at_level(logging.ERROR, "resilience.classify"):
            failure = classify(TimeoutError(), rules=[broken, lambda error: FailureKind.OVERLOADED])
        assert failure.kind is FailureKind.OVERLOADED
        assert [record.message for record in caplog.records] == ["a rule failed"]

    def test_rule_that_answers_nonsense(self, caplog: pytest.LogCaptureFixture) -> None:
        """A rule that returns something else, such as True, is told apart from one that passes."""
        nonsense: Any = lambda error: True  # noqa: E731
        with caplog.at_level(logging.ERROR, "resilience.classify"):
            assert classify(TimeoutError(), rules=[nonsense]).kind is FailureKind.TIMEOUT
        assert "not True" in caplog.text


class TestOurOwnErrors:
    """Errors of this package, as they reach a provider that another provider's call is nested in."""

    def test_timeout(self, told: Told) -> None:
        """A deadline that we enforced is a timeout."""
        failure = classify(CallTimeout("s3", "", "attempt", 30.0, 30.0))
        assert told(failure) == ("timeout", "retriable", "maybe", "failure")

    @pytest.mark.parametrize("kind", [CallRejected, CircuitOpen, DeadlineExceeded])
    def test_rejection(self, kind: type[CallRejected], told: Told) -> None:
        """A refusal is final, was not sent, and is no evidence; when to come back is kept."""
        failure = classify(kind("s3", Reason.CIRCUIT_OPEN, 12.5, ""))
        assert told(failure) == ("rejected", "fatal", "unsent", "ignored")
        assert failure.retry_after == 12.5

    def test_rejection_inside_another_error(self, told: Told) -> None:
        """A refusal is recognised through what an application wraps it in."""
        error = RuntimeError("could not save")
        error.__cause__ = CircuitOpen("s3", Reason.CIRCUIT_OPEN, None, "")
        assert told(classify(error)) == ("rejected", "fatal", "unsent", "ignored")

    def test_standard_error(self) -> None:
        """A ProviderError says what it was made of."""
        assert classify(ProviderError(FAILURE)) == FAILURE
        wrapped = RuntimeError()
        wrapped.__cause__ = ProviderError(FAILURE)
        assert classify(wrapped).kind is FailureKind.OVERLOADED
        assert classify(wrapped).retry_after == 2.0

    def test_settings(self, told: Told) -> None:
        """Refused settings are a mistake in the settings."""
        assert told(classify(ConfigurationError("x"))) == ("configuration_error", "fatal", "unsent", "ignored")

    @pytest.mark.parametrize("kind", [ProviderError, CallRejected, CallTimeout])
    def test_made_by_hand(self, kind: type[Exception]) -> None:
        """Instances without their facts are classified nevertheless."""
        assert isinstance(classify(kind()), Failure)


@dataclass(frozen=True)
class FrozenError(Exception):
    """Refuses new attributes."""

    text: str = ""


class SlottedError(Exception):
    """Declares slots, and keeps the dictionary of its base all the same."""

    __slots__ = ("text",)


class TestAttachment:
    """A failure travels on the exception it belongs to."""

    def test_nothing_attached(self) -> None:
        """An exception nobody classified has none."""
        assert failure_of(ValueError()) is None
        assert failure_of(ProviderError()) is None

    @pytest.mark.parametrize("kind", [ValueError, FrozenError, SlottedError, OSError])
    def test_found_again(self, kind: type[Exception]) -> None:
        """What was attached is found again, also on exceptions that refuse new attributes."""
        error = kind("x")
        attach(error, FAILURE)
        assert failure_of(error) is FAILURE

    def test_later_one_wins(self) -> None:
        """An outer call's failure replaces an inner one's."""
        error = ValueError()
        attach(error, FAILURE)
        attach(error, FAILURE.attributed(provider="s3", operation="", attempts=2, time=1.0))
        assert (found := failure_of(error)) is not None
        assert found.provider == "s3"

    def test_of_a_standard_error(self) -> None:
        """A ProviderError carries its failure itself."""
        assert failure_of(ProviderError(FAILURE)) is FAILURE

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
    @pytest.mark.parametrize("kind", [ValueError, PrinterOnFire, httpx.ReadTimeout])
    def test_copies(self, kind: type[Exception], again: Callable[[Exception], Exception]) -> None:
        """Copying and pickling keep it."""
        error = kind("x")
        attach(error, FAILURE)
        assert failure_of(again(error)) == FAILURE

    def test_strange_value(self) -> None:
        """Something else under that name is not taken for a failure."""
        error = ValueError()
        error.__dict__["__resilience_failure__"] = "busy"
        assert failure_of(error) is None


def test_no_text_of_the_error_is_kept() -> None:
    """A failure is safe to log: nothing of a message, a URL or a body is in it."""
    secret = "https://alice:hunter2@example.org/?key=hunter2"
    for error in (ConnectionRefusedError(secret), RuntimeError(secret), httpx.ConnectError(secret)):
        assert "hunter2" not in repr(classify(error))
    response = httpx.Response(500, json={"error": {"message": secret, "code": secret}})
    assert "hunter2" not in repr(classify(response))


def test_verdicts_can_be_asked_apart() -> None:
    """Whether to retry, whether it was sent and whose fault it is are three answers."""
    failure = classify(httpx.PoolTimeout("x"))
    assert failure.retryable
    assert failure.delivery is Delivery.UNSENT
    assert failure.verdict is Verdict.IGNORED
