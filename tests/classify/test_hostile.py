"""Objects that lie, raise, or never end: classify answers all of them."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock, NonCallableMock, patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.classify import classify
from resilience.failure import Failure, FailureKind

NAMES = [
    "status_code", "status", "code", "response", "headers", "body", "type", "error_code", "errors", "reason", "details",
    "trailing_metadata", "grpc_status_code", "sqlstate", "pgcode", "content", "_content", "items", "retry_after",
    "inner_exception", "__cause__", "__context__", "errno", "filename", "args", "name", "message", "failure",
]  # fmt: skip
MODULES = [
    "httpx", "openai", "anthropic", "botocore.exceptions", "google.api_core", "azure.core", "obstore", "grpc.aio",
    "redis", "coredis", "asyncpg", "aiohttp", "requests", "urllib3", "builtins", "myapp", "", None, 5,
]  # fmt: skip
CLASSES = [
    "ConnectError", "RemoteProtocolError", "APIError", "APIStatusError", "ClientError", "GenericError", "RpcError",
    "ConnectionError", "ResponseError", "InterfaceError", "HttpResponseError", "Response", "Whatever",
]  # fmt: skip


class Raising:
    """A property that raises."""

    def __get__(self, instance: object, owner: type) -> object:
        raise ZeroDivisionError


class RaisingItself(Exception):
    """Cannot be printed or asked, but for Hypothesis, which shows its examples."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        return "RaisingItself()"

    def __getattr__(self, name: str) -> object:
        raise AttributeError if name.startswith("_") else ZeroDivisionError


class Lying(Exception):
    """Has every attribute anybody asks for, but for Hypothesis."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError
        return Lying()


class Pretender:
    """Claims a class of its own choosing, or none."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "thing",
    [
        None, 5, "503", b"", [], {}, object(), type, Exception, classify, MagicMock(), NonCallableMock(),
        RaisingItself(),
        Lying(), {"Error": {"Code": "SlowDown"}}, ValueError(RaisingItself()),
    ],
    ids=lambda thing: type(thing).__name__,
)  # fmt: skip
def test_odd_objects(thing: object) -> None:
    """Whatever is thrown at it, classify answers."""
    with patch("resilience.classify._log.debug", side_effect=AssertionError("the safety net was needed")):
        assert isinstance(classify(thing), Failure)


def test_object_that_fights_back(caplog: pytest.LogCaptureFixture) -> None:
    """An object that cannot even be asked for its class stays unknown, and the reason is in the debug log."""
    with caplog.at_level("DEBUG", "resilience.classify"):
        kind = classify(Pretender()).kind
    assert kind is FailureKind.UNKNOWN_ERROR
    assert "could not be classified" in caplog.text


def test_error_that_cannot_be_printed() -> None:
    """A message that raises tells nothing; the class still does."""

    class ConnectionError(Exception):  # noqa: A001 (it is the name that counts)
        __module__ = "redis.exceptions"

        def __str__(self) -> str:
            raise ZeroDivisionError

    assert classify(ConnectionError()).kind is FailureKind.CONNECTION_ERROR


@pytest.mark.parametrize("status", [None, type("Status", (), {"name": "BRAND_NEW"})()])
def test_grpc_status_nobody_knows(status: object) -> None:
    """A call whose code cannot be read, or is new, is an error like any other."""

    def code(self: object) -> object:
        return status if status is not None else 1 // 0

    assert classify(type("OddError", (Exception,), {"code": code})()).kind is FailureKind.UNKNOWN_ERROR


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from([503, 429, 200, "SlowDown", "insufficient_quota", "40001", Raising(), Lying(), RaisingItself()])
    | st.sampled_from([lambda: None, lambda: 5, lambda *args: 1 // 0, OSError(), TimeoutError()]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*NAMES, "Error", "Code"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(
    module=st.sampled_from(MODULES),
    name=st.sampled_from(CLASSES),
    base=st.sampled_from([Exception, OSError, ValueError, object, BaseException]),
    attributes=st.dictionaries(st.sampled_from(NAMES), values, max_size=6),
    cause=st.none() | st.sampled_from([OSError(), Lying(), RaisingItself(), KeyboardInterrupt()]),
)
def test_hostile_attributes(
    module: object, name: str, base: type, attributes: dict[str, object], cause: BaseException | None
) -> None:
    """No combination of attributes, classes and modules makes classify raise or answer nonsense."""
    thing = type(name, (base,), {**attributes, "__module__": module})()
    if cause is not None and isinstance(thing, BaseException) and "__cause__" not in attributes:
        thing.__cause__ = cause
    with patch("resilience.classify._log.debug", side_effect=AssertionError("the safety net was needed")):
        failure = classify(thing)
    assert isinstance(failure, Failure)
    assert failure.status is None or 100 <= failure.status < 600
    assert failure.retry_after is None or failure.retry_after >= 0
    assert failure.code is None or failure.code.isascii()
    assert failure.error_type
    hash(failure)
