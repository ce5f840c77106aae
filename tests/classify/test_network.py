"""What goes wrong on the way, as httpx and httpx2 report it on asyncio and on trio."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from resilience.classify import classify
from resilience.failure import Failure

Told = Callable[[Failure], tuple[str, str, str, str]]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]
both = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])

# Loading the world's certificates is most of the cost of a call; only some of these are encrypted.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
REFUSED = ("connection_error", "retriable", "unsent", "failure")
LOST = ("connection_error", "retriable", "maybe", "failure")
CUT = ("interrupted", "retriable", "processed", "failure")
UNTRUSTED = ("certificate_error", "fatal", "unsent", "failure")


async def failure_of(action: Callable[[], Awaitable[object]]) -> Failure:
    with pytest.raises(Exception) as caught:
        await action()
    return classify(caught.value)


@pytest.fixture
def fetch(library: ModuleType, loopback: Any) -> Callable[..., Awaitable[Failure]]:
    async def fetch(url: str, *, timeout: float = 5.0, **options: Any) -> Failure:
        options.setdefault("verify", loopback.trust() if url.startswith("https://127") else PLAIN)
        async with library.AsyncClient(timeout=timeout, **options) as client:
            return await failure_of(lambda: client.get(url))

    return fetch


@both
async def test_refused(fetch: Any, library: ModuleType, loopback: Any, told: Told) -> None:
    """A refused connection is the provider's trouble, and nothing was sent."""
    failure = await fetch(loopback.refused().url)
    assert told(failure) == REFUSED
    assert failure.error_type == f"{library.__name__}.ConnectError"


@both
async def test_unknown_host(fetch: Any, no_such_host: str, told: Told) -> None:
    """A name that does not resolve is told apart from a refused connection."""
    assert told(await fetch(f"http://{no_such_host}/")) == ("dns_error", "retriable", "unsent", "failure")


@both
async def test_connect_timeout(fetch: Any, loopback: Any, told: Told) -> None:
    """A connection that does not come about in time sent nothing, although its chain ends in a cancellation."""
    failure = await fetch(loopback.unanswered().url, timeout=0.1)
    assert told(failure) == ("timeout", "retriable", "unsent", "failure")


@both
async def test_read_timeout(fetch: Any, loopback: Any, told: Told) -> None:
    """An answer that does not come in time leaves open what happened, although its chain ends in a cancellation."""
    failure = await fetch(loopback.serve(loopback.hang).url, timeout=0.1)
    assert told(failure) == ("timeout", "retriable", "maybe", "failure")


@both
async def test_pool_timeout(library: ModuleType, loopback: Any, told: Told) -> None:
    """Waiting in vain for a connection of our own pool is retried, but is no evidence against the provider."""
    url = loopback.serve(loopback.hang).url
    limits, timeout = library.Limits(max_connections=1), library.Timeout(5.0, pool=0.05)
    async with (
        library.AsyncClient(limits=limits, timeout=timeout, verify=PLAIN) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.get, url)
        await anyio.wait_all_tasks_blocked()
        failure = await failure_of(lambda: client.get(url))
        tasks.cancel_scope.cancel()
    assert told(failure) == ("timeout", "retriable", "unsent", "ignored")


@both
async def test_closed_before_the_reply(fetch: Any, loopback: Any, told: Told) -> None:
    """A connection that is closed without an answer leaves open what happened."""
    assert told(await fetch(loopback.serve(loopback.hang_up).url)) == LOST


@both
async def test_garbage(fetch: Any, loopback: Any, told: Told) -> None:
    """An answer that is no HTTP counts as a broken connection."""
    assert told(await fetch(loopback.serve(loopback.garbage).url)) == LOST


@both
async def test_reset(fetch: Any, loopback: Any, told: Told) -> None:
    """A reset after the request was sent leaves open what happened."""
    assert told(await fetch(loopback.serve(loopback.reset).url)) == LOST


@both
@pytest.mark.parametrize("how", ["cut_body", "cut_chunks"])
async def test_body_cut_short(fetch: Any, how: str, loopback: Any, told: Told) -> None:
    """A body that ends early was answered, but not to the end."""
    assert told(await fetch(loopback.serve(getattr(loopback, how)).url)) == CUT


@both
async def test_body_that_cannot_be_decoded(fetch: Any, loopback: Any, told: Told) -> None:
    """A body whose encoding is broken is like one that was cut."""
    assert told(await fetch(loopback.serve(loopback.reply(200, {"content-encoding": "gzip"}, b"no gzip")).url)) == CUT


@both
async def test_stale_connection(library: ModuleType, loopback: Any, told: Told) -> None:
    """A kept connection that the server resets upon the next request leaves open what happened."""
    url = loopback.serve(loopback.stale).url
    async with library.AsyncClient(verify=PLAIN) as client:
        assert (await client.get(url)).status_code == 200
        assert told(await failure_of(lambda: client.post(url, content=b"x"))) == LOST


@both
async def test_refused_while_still_sending(library: ModuleType, loopback: Any, told: Told) -> None:
    """A 429 sent early during a large upload arrives as itself or as a broken connection; either can be retried."""
    url = loopback.serve(loopback.refuse_early).url
    async with library.AsyncClient(verify=PLAIN) as client:
        try:
            failure = classify(await client.post(url, content=b"x" * 8_000_000))
        except library.TransportError as error:
            failure = classify(error)
    assert told(failure) in {("rate_limit", "transient", "processed", "ignored"), LOST}


@both
class TestTls:
    """What the handshake finds."""

    async def test_unknown_authority(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A certificate of nobody we trust is final."""
        endpoint = loopback.serve(loopback.reply(200), tls=loopback.certificate())
        assert told(await fetch(endpoint.url, verify=ssl.create_default_context())) == UNTRUSTED

    async def test_other_host(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A certificate for somebody else is final."""
        endpoint = loopback.serve(loopback.reply(200), tls=loopback.certificate("example.org"))
        assert told(await fetch(endpoint.url)) == UNTRUSTED

    async def test_expired(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A certificate that has run out is final."""
        assert told(await fetch(loopback.serve(loopback.reply(200), tls=loopback.expired()).url)) == UNTRUSTED

    async def test_no_common_version(self, fetch: Any, loopback: Any, told: Told) -> None:
        """Two sides without a common TLS version are set up wrongly, and unreachable."""
        server, client = loopback.certificate(), loopback.trust()
        server.maximum_version, client.minimum_version = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        failure = await fetch(loopback.serve(loopback.reply(200), tls=server).url, verify=client)
        assert told(failure) == ("configuration_error", "fatal", "unsent", "failure")

    async def test_client_certificate_missing(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A server that wants a certificate of ours says so only after our request may have left."""
        server = loopback.certificate()
        server.verify_mode = ssl.CERT_REQUIRED
        failure = await fetch(loopback.serve(loopback.reply(200), tls=server).url)
        assert told(failure) == ("certificate_error", "fatal", "maybe", "failure")

    async def test_handshake_cut(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A connection that is closed during the handshake sent nothing."""
        endpoint = loopback.serve(lambda peer: peer.receive())
        assert told(await fetch(endpoint.url.replace("http:", "https:"))) == REFUSED

    async def test_plain_http_behind_https(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A server that does not speak TLS at all is a mistake in the settings."""
        endpoint = loopback.serve(lambda peer: peer.send(loopback.http(400)))
        failure = await fetch(endpoint.url.replace("http:", "https:"))
        assert told(failure) == ("configuration_error", "fatal", "unsent", "failure")


@both
class TestOurOwnMistakes:
    """Nothing of this is the provider's fault."""

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "nonsense"])
    async def test_url(self, fetch: Any, url: str, told: Told) -> None:
        """An address that cannot be called is a mistake in the settings."""
        assert told(await fetch(url)) == ("configuration_error", "fatal", "unsent", "ignored")

    async def test_header(self, library: ModuleType, loopback: Any, told: Told) -> None:
        """A request that cannot be written down is the caller's."""
        async with library.AsyncClient(verify=PLAIN) as client:
            url = loopback.serve(loopback.reply(200)).url
            failure = await failure_of(lambda: client.get(url, headers={"x": "a\nb"}))
        assert told(failure) == ("bad_request", "invalid_input", "unsent", "ignored")

    async def test_stream_read_twice(self, library: ModuleType, loopback: Any, told: Told) -> None:
        """Misuse of a stream is the caller's."""
        async with library.AsyncClient(verify=PLAIN) as client:
            async with client.stream("GET", loopback.serve(loopback.reply(200, {}, b"x")).url) as response:
                pass
            failure = await failure_of(response.aread)
        assert told(failure) == ("bad_request", "invalid_input", "maybe", "ignored")

    async def test_redirects_without_end(self, fetch: Any, loopback: Any, told: Told) -> None:
        """A circle of redirects is final: the next call would go round it as well."""
        url = loopback.serve(loopback.reply(302, {"location": "/"})).url
        failure = await fetch(url, follow_redirects=True, max_redirects=2)
        assert told(failure) == ("bad_request", "fatal", "processed", "success")


@both
@pytest.mark.parametrize("status", [407, 502])
async def test_proxy_that_refuses(fetch: Any, status: int, loopback: Any, told: Told) -> None:
    """A proxy that does not let us through kept the request from the provider."""
    proxy = loopback.serve(loopback.reply(status)).url
    assert told(await fetch("https://example.org/", proxy=proxy)) == REFUSED


@both
async def test_library_error_wrapped_by_the_application(library: ModuleType, loopback: Any, told: Told) -> None:
    """An application's own exception says what its cause says, and keeps its own name."""

    class StorageError(Exception):
        pass

    async def save() -> None:
        async with library.AsyncClient(verify=PLAIN) as client:
            try:
                await client.get(loopback.refused().url)
            except library.HTTPError as error:
                raise StorageError("could not save") from error

    failure = await failure_of(save)
    assert told(failure) == REFUSED
    assert failure.error_type == "tests.StorageError"


@both
async def test_in_a_task_group(library: ModuleType, loopback: Any, told: Told) -> None:
    """A group of one error is that error."""

    async def call() -> None:
        async with anyio.create_task_group() as tasks, library.AsyncClient(verify=PLAIN) as client:
            tasks.start_soon(client.get, loopback.refused().url)
            await anyio.sleep_forever()

    assert told(await failure_of(call)) == REFUSED
