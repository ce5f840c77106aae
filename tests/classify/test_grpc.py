"""grpc.aio, and Google's exceptions around it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from resilience.classify import classify
from resilience.failure import Failure

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # it misses grpcio-status, but only for nicer messages
    from google.api_core.exceptions import from_grpc_error

Told = Callable[[Failure], tuple[str, str, str, str]]
Metadata = Sequence[tuple[str, str]]

LOST = ("connection_error", "retriable", "maybe", "failure")
REFUSED = ("connection_error", "retriable", "unsent", "failure")
BAD_REQUEST = ("bad_request", "invalid_input", "processed", "success")


class Refusing(grpc.GenericRpcHandler):
    """Answers every call with one status."""

    def __init__(self, status: grpc.StatusCode, metadata: Metadata) -> None:
        self._status = status
        self._metadata = metadata

    def service(self, handler_call_details: object) -> Any:
        async def refuse(request: bytes, context: Any) -> None:
            context.set_trailing_metadata(tuple(self._metadata))
            await context.abort(self._status, "in so many words")

        return grpc.unary_unary_rpc_method_handler(refuse)


async def call(target: str, timeout: float = 5.0) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.unary_unary("/service/method")(b"x", timeout=timeout)


async def refused_with(status: grpc.StatusCode, metadata: Metadata = ()) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Refusing(status, metadata),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await call(f"127.0.0.1:{port}")
    finally:
        await server.stop(5.0)


def error_of(awaitable: Awaitable[None]) -> grpc.RpcError:
    async def main() -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as caught:
            await awaitable
        return caught.value

    return asyncio.run(main())


@pytest.mark.parametrize(
    "status, expected",
    [
        ("UNAVAILABLE", LOST),
        ("DEADLINE_EXCEEDED", ("timeout", "retriable", "maybe", "failure")),
        ("RESOURCE_EXHAUSTED", ("rate_limit", "transient", "processed", "ignored")),
        ("INTERNAL", ("server_error", "retriable", "maybe", "failure")),
        ("UNKNOWN", ("server_error", "retriable", "maybe", "failure")),
        ("DATA_LOSS", ("server_error", "fatal", "processed", "failure")),
        ("UNAUTHENTICATED", ("authentication_error", "fatal", "processed", "success")),
        ("PERMISSION_DENIED", ("permission_denied", "fatal", "processed", "success")),
        ("NOT_FOUND", ("not_found", "fatal", "processed", "success")),
        ("CANCELLED", ("cancelled", "fatal", "maybe", "ignored")),
        ("ABORTED", BAD_REQUEST),
        ("INVALID_ARGUMENT", BAD_REQUEST),
        ("FAILED_PRECONDITION", BAD_REQUEST),
        ("ALREADY_EXISTS", BAD_REQUEST),
        ("OUT_OF_RANGE", BAD_REQUEST),
        ("UNIMPLEMENTED", BAD_REQUEST),
    ],
)
def test_status(status: str, expected: tuple[str, ...], told: Told) -> None:
    """Every gRPC status is understood, through code() alone."""
    failure = classify(error_of(refused_with(grpc.StatusCode[status])))
    assert told(failure) == expected
    assert (failure.code, failure.error_type, failure.status) == (status, "grpc.AioRpcError", None)


def test_refused(loopback: Any, told: Told) -> None:
    """Nothing was sent over a connection that never came about."""
    assert told(classify(error_of(call(f"127.0.0.1:{loopback.refused().port}")))) == REFUSED


def test_unknown_host(overlong_host: str, told: Told) -> None:
    """A name that does not resolve is told apart."""
    failure = classify(error_of(call(f"{overlong_host}:80")))
    assert told(failure) == ("dns_error", "retriable", "unsent", "failure")


def test_deadline(loopback: Any, told: Told) -> None:
    """GRPC's own deadline leaves open what happened."""
    failure = classify(error_of(call(f"127.0.0.1:{loopback.serve(loopback.hang).port}", timeout=0.1)))
    assert told(failure) == ("timeout", "retriable", "maybe", "failure")


def test_synchronous_client(loopback: Any, told: Told) -> None:
    """The other client's errors are read the same way."""
    with (
        grpc.insecure_channel(f"127.0.0.1:{loopback.refused().port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/service/method")(b"x", timeout=5.0)
    assert told(classify(caught.value)) == REFUSED


@pytest.mark.parametrize(
    "value, pause, retryable",
    [("1500", 1.5, True), ("0", 0.0, True), ("-1", None, False), ("-0", 0.0, True), ("soon", None, False)],
)
def test_pushback(value: str, pause: float | None, retryable: bool) -> None:
    """The server's pushback is the hint; one that is no pause forbids to try again."""
    metadata = (("grpc-retry-pushback-ms", value),)
    failure = classify(error_of(refused_with(grpc.StatusCode.RESOURCE_EXHAUSTED, metadata)))
    assert (failure.retry_after, failure.retryable) == (pause, retryable)


def test_unavailable_with_pushback(told: Told) -> None:
    """A server that names a pause did answer: it is overloaded, not lost."""
    failure = classify(error_of(refused_with(grpc.StatusCode.UNAVAILABLE, (("grpc-retry-pushback-ms", "20"),))))
    assert told(failure) == ("overloaded", "transient", "processed", "failure")


@pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")
def test_wrapped_by_google(loopback: Any, told: Told) -> None:
    """Google's exception looks like an answered 503, but the call inside says that nothing was sent."""
    failure = classify(from_grpc_error(error_of(call(f"127.0.0.1:{loopback.refused().port}"))))
    assert told(failure) == REFUSED
    assert (failure.status, failure.code, failure.error_type) == (503, "UNAVAILABLE", "google.ServiceUnavailable")
