"""botocore, aiobotocore, google-cloud-storage, azure-storage-blob, and what they stand on."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from typing import Any

import aiobotocore.config
import aiobotocore.session
import aiohttp
import botocore.config
import botocore.session
import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient

from resilience.classify import classify
from resilience.failure import Failure

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # it misses grpcio-status, but only for nicer messages
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

Told = Callable[[Failure], tuple[str, str, str, str]]

REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
CUT = ("interrupted", "retriable", "processed", "failure")
UNTRUSTED = ("certificate_error", "fatal", "unsent", "failure")
UNKNOWN_HOST = ("dns_error", "retriable", "unsent", "failure")
CONNECT_TIMEOUT = ("timeout", "retriable", "unsent", "failure")
READ_TIMEOUT = ("timeout", "retriable", "maybe", "failure")
RATE_LIMIT = ("rate_limit", "transient", "processed", "ignored")
OVERLOADED = ("overloaded", "transient", "processed", "failure")
NOT_FOUND = ("not_found", "fatal", "processed", "success")
DENIED = ("permission_denied", "fatal", "processed", "success")
BAD_REQUEST = ("bad_request", "invalid_input", "processed", "success")
SERVER = ("server_error", "retriable", "processed", "failure")

SHORT = 0.2


def failure_of(action: Callable[[], object]) -> Failure:
    with pytest.raises(Exception) as caught:
        action()
    return classify(caught.value)


def xml(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(scope="module")
def aws() -> Any:
    return botocore.session.Session()


ONCE: dict[str, Any] = {
    "connect_timeout": SHORT,
    "read_timeout": SHORT,
    "retries": {"total_max_attempts": 1},
    "s3": {"addressing_style": "path"},
}


def sync_s3(url: str, session: Any) -> object:
    config = botocore.config.Config(**ONCE)
    client = session.create_client("s3", endpoint_url=url, config=config, verify=not url.startswith("http:"))
    try:
        return client.get_object(Bucket="bbb", Key="k")["Body"].read()
    finally:
        client.close()


def async_s3(url: str, session: Any) -> object:
    async def get() -> object:
        config = aiobotocore.config.AioConfig(**ONCE)
        async with aiobotocore.session.AioSession().create_client("s3", endpoint_url=url, config=config) as client:
            return await (await client.get_object(Bucket="bbb", Key="k"))["Body"].read()

    return asyncio.run(get())


def google(url: str, _: Any) -> object:
    options = {"api_endpoint": url}
    client = storage.Client(project="p", credentials=AnonymousCredentials(), client_options=options)
    # It would fetch metadata in a thread of its own that outlives the test, draws from the global random generator,
    # and so disturbs whatever property is being tested by then.
    client._bucket_metadata_cache = None
    try:
        return client.bucket("bbb").blob("k").upload_from_string(b"x", retry=None, timeout=SHORT)
    finally:
        client.close()


AZURE: dict[str, Any] = {"retry_total": 0, "connection_timeout": SHORT, "read_timeout": SHORT}


def sync_azure(url: str, _: Any) -> object:
    with BlobServiceClient(f"{url}/account", credential=None, **AZURE) as client:
        return client.get_blob_client("ccc", "k").upload_blob(b"x")


def async_azure(url: str, _: Any) -> object:
    async def put() -> object:
        async with AsyncBlobServiceClient(f"{url}/account", credential=None, **AZURE) as client:
            return await client.get_blob_client("ccc", "k").upload_blob(b"x")

    return asyncio.run(put())


def plain_aiohttp(url: str, _: Any) -> object:
    async def get() -> object:
        timeout = aiohttp.ClientTimeout(sock_connect=SHORT, sock_read=SHORT)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            response.raise_for_status()
            return await response.read()

    return asyncio.run(get())


def plain_requests(url: str, _: Any) -> object:
    response = requests.get(url, timeout=SHORT)
    response.raise_for_status()
    return response.content


CLIENTS = [sync_s3, async_s3, google, sync_azure, async_azure, plain_aiohttp, plain_requests]
every = pytest.mark.parametrize("call", CLIENTS, ids=[client.__name__ for client in CLIENTS])
Call = Callable[[str, Any], object]


@every
class TestNetwork:
    """Whatever a client stands on, the same trouble means the same."""

    def test_refused(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A refused connection sent nothing."""
        assert told(failure_of(lambda: call(loopback.refused().url, aws))) == REFUSED

    def test_unknown_host(self, call: Call, aws: Any, no_such_host: str, told: Told) -> None:
        """A name that does not resolve is told apart from a refused connection."""
        assert told(failure_of(lambda: call(f"http://{no_such_host}", aws))) == UNKNOWN_HOST

    def test_untrusted(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A certificate of nobody we trust is final."""
        url = loopback.serve(loopback.reply(200), tls=loopback.certificate()).url
        assert told(failure_of(lambda: call(url, aws))) == UNTRUSTED

    def test_connect_timeout(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A timeout while connecting sent nothing."""
        assert told(failure_of(lambda: call(loopback.unanswered().url, aws))) == CONNECT_TIMEOUT

    def test_read_timeout(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A timeout while waiting leaves open what happened."""
        assert told(failure_of(lambda: call(loopback.serve(loopback.hang).url, aws))) == READ_TIMEOUT

    def test_reset(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A reset after sending leaves open what happened, also where a client calls it a failure to connect."""
        assert told(failure_of(lambda: call(loopback.serve(loopback.reset).url, aws))) == LOST

    def test_hang_up(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A connection that is closed without an answer leaves open what happened."""
        assert told(failure_of(lambda: call(loopback.serve(loopback.hang_up).url, aws))) == LOST

    def test_garbage(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """An answer that is no HTTP is a broken connection, not the 400 that aiohttp makes of it."""
        failure = failure_of(lambda: call(loopback.serve(loopback.garbage).url, aws))
        assert told(failure) == LOST
        assert failure.status is None

    def test_cut_body(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A body that ends early was answered, but not to the end."""
        assert told(failure_of(lambda: call(loopback.serve(loopback.cut_body).url, aws))) == CUT

    def test_unavailable(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A 503 with its hint is found wherever a client keeps status and headers."""
        url = loopback.serve(loopback.reply(503, {"retry-after": "3"})).url
        failure = failure_of(lambda: call(url, aws))
        assert told(failure) == OVERLOADED
        assert (failure.status, failure.retry_after) == (503, 3.0)

    def test_missing(self, call: Call, aws: Any, loopback: Any, told: Told) -> None:
        """A 404 is final."""
        failure = failure_of(lambda: call(loopback.serve(loopback.reply(404)).url, aws))
        assert told(failure) == NOT_FOUND
        assert failure.status == 404


S3_CODES = [
    (503, "SlowDown", RATE_LIMIT),
    (400, "ThrottlingException", RATE_LIMIT),
    (400, "RequestTimeout", ("timeout", "retriable", "processed", "failure")),
    (404, "NoSuchKey", NOT_FOUND),
    (403, "AccessDenied", DENIED),
    (403, "SignatureDoesNotMatch", ("authentication_error", "fatal", "processed", "success")),
    (409, "OperationAborted", BAD_REQUEST),
    (500, "InternalError", SERVER),
]


@pytest.mark.parametrize(
    "call, status, code, expected",
    [*((sync_s3, *row) for row in S3_CODES), (async_s3, *S3_CODES[0]), (async_s3, *S3_CODES[3])],
)
def test_s3_codes(
    call: Call, status: int, code: str, expected: tuple[str, ...], *, aws: Any, loopback: Any, told: Told
) -> None:
    """AWS's own code says more than its status; its hint comes in milliseconds."""
    url = loopback.serve(loopback.reply(status, {"x-amz-retry-after": "1500"}, xml(code))).url
    failure = failure_of(lambda: call(url, aws))
    assert told(failure) == expected
    assert (failure.status, failure.code, failure.retry_after) == (status, code, 1.5)


def test_s3_mistakes(aws: Any, told: Told) -> None:
    """What botocore refuses to send is the caller's."""
    client = aws.create_client("s3")
    failure = failure_of(lambda: client.get_object(Bucket="", Key=""))
    client.close()
    assert told(failure) == ("bad_request", "invalid_input", "unsent", "ignored")


def test_s3_without_credentials(monkeypatch: pytest.MonkeyPatch, loopback: Any, told: Told) -> None:
    """Missing credentials are found before anything is sent."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    url = loopback.serve(loopback.reply(200)).url
    failure = failure_of(lambda: sync_s3(url, botocore.session.Session()))
    assert told(failure) == ("authentication_error", "fatal", "unsent", "ignored")


@pytest.mark.parametrize(
    "status, reason, expected",
    [
        (429, "rateLimitExceeded", RATE_LIMIT),
        (403, "userRateLimitExceeded", RATE_LIMIT),
        (403, "quotaExceeded", ("quota_exhausted", "fatal", "processed", "ignored")),
        (403, "forbidden", DENIED),
        (412, "conditionNotMet", BAD_REQUEST),
        (500, "backendError", SERVER),
    ],
)
def test_google_reasons(status: int, reason: str, expected: tuple[str, ...], loopback: Any, told: Told) -> None:
    """Google's reason is found in the body, and tells a rate limit from a refusal where the status does not."""
    body = {"error": {"code": status, "message": "m", "errors": [{"reason": reason, "domain": "global"}]}}
    url = loopback.serve(loopback.reply(status, {"retry-after": "3"}, body)).url
    failure = failure_of(lambda: google(url, None))
    assert told(failure) == expected
    assert (failure.status, failure.code, failure.retry_after) == (status, reason, 3.0)


@pytest.mark.parametrize("call", [sync_azure, async_azure], ids=["sync", "async"])
@pytest.mark.parametrize(
    "status, code, expected",
    [
        (503, "ServerBusy", OVERLOADED),
        (500, "OperationTimedOut", ("timeout", "retriable", "processed", "failure")),
        (403, "AuthenticationFailed", ("authentication_error", "fatal", "processed", "success")),
        (404, "BlobNotFound", NOT_FOUND),
        (409, "BlobAlreadyExists", BAD_REQUEST),
    ],
)
def test_azure_codes(
    call: Call, status: int, code: str, expected: tuple[str, ...], *, loopback: Any, told: Told
) -> None:
    """Azure's own code and its hint in milliseconds are found."""
    headers = {"x-ms-error-code": code, "x-ms-retry-after-ms": "700", "retry-after": "9"}
    failure = failure_of(lambda: call(loopback.serve(loopback.reply(status, headers)).url, None))
    assert told(failure) == expected
    assert (failure.status, failure.code, failure.retry_after) == (status, code, 0.7)


class TestAzureDownload:
    """Downloads go wrong in ways of their own."""

    def test_reply_without_its_range(self, loopback: Any, told: Told) -> None:
        """A download whose reply lost its range is a plain ValueError, and still the provider's."""
        url = loopback.serve(loopback.cut_body).url
        with BlobServiceClient(f"{url}/account", credential=None, **AZURE) as client:
            failure = failure_of(lambda: client.get_blob_client("ccc", "k").download_blob().readall())
        assert told(failure) == CUT
        assert failure.error_type == "ValueError"

    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # it leaves its broken connections to the collector
    def test_cut(self, loopback: Any, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        """A download that breaks off has no status, only an error inside an error."""
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # it tries three times by itself
        head = b"HTTP/1.1 206 OK\r\ncontent-range: bytes 0-999/1000\r\ncontent-length: 1000\r\n\r\n0123456789"
        url = loopback.serve(loopback.raw(head)).url
        with BlobServiceClient(f"{url}/account", credential=None, **AZURE) as client:
            failure = failure_of(lambda: client.get_blob_client("ccc", "k").download_blob().readall())
        gc.collect()
        assert told(failure) == CUT
        assert failure.error_type == "azure.HttpResponseError"

    def test_error_without_anything_inside(self, told: Told) -> None:
        """Azure's general error without a status says that the reply was no use."""
        assert told(classify(HttpResponseError("no status"))) == CUT
