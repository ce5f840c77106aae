"""A transport makes each request a call of its provider."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import providers.http
from resilience import (
    CallTimeout,
    CircuitOpen,
    CircuitState,
    ConfigurationError,
    FailureKind,
    ProviderError,
    ProviderRegistry,
    RetrySettings,
    failure_of,
)
from resilience.events import GateClosed, RetryScheduled

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

ONE = {"failure_threshold": 1}
CODE = "insufficient_quota"
ONCE = RetrySettings(enabled=False)


@pytest.fixture
def open_client(library: Any, serve: Any, world: Any) -> Any:
    """Start a site and open a protected client on it."""

    def start(*steps: Any, settings: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any, Any]:
        site = serve(*steps)
        registry = world.registry(**(settings or {}))
        client = library.client("api", base_url=site.url, registry=registry, trust_env=False, **options)
        return client, site, registry.provider("api")

    return start


class TestRetries:
    """What may be sent again is, and nothing else."""

    async def test_on_the_same_connection(self, open_client: Any, world: Any) -> None:
        """A status that is worth it is tried again, and the connection of the refusal is free for it."""
        http, site, provider = open_client(world.Site.reply(503), world.Site.reply(200, b"fine"))
        async with http:
            answer = await http.get("/")
            assert (answer.status_code, answer.content) == (200, b"fine")
            assert [connection.is_idle() for connection in world.pool(http).connections] == [True]
        assert [seen.connection for seen in site.seen] == [1, 1]
        assert provider.snapshot().recovered == 1

    async def test_the_last_answer_comes_back(self, open_client: Any, world: Any) -> None:
        """After the last attempt the client gets the response itself, and what it was taken for."""
        http, site, provider = open_client(world.Site.reply(503, {"error": "busy"}))
        async with http:
            answer = await http.get("/")
            assert (answer.status_code, answer.json()) == (503, {"error": "busy"})
            assert answer.request.url.path == "/"
            failure = answer.extensions["resilience"]
            assert (failure.kind, failure.attempts, failure.status) == (FailureKind.OVERLOADED, 3, 503)
            assert provider.breaker.snapshot().failures_in_a_row == 3
        assert site.requests == 3

    async def test_an_answer_that_is_final(self, open_client: Any, world: Any) -> None:
        """A refusal of the request itself comes back at once, and speaks for the provider."""
        http, site, provider = open_client(world.Site.reply(404, b"no"))
        async with http:
            assert (await http.get("/")).status_code == 404
        assert site.requests == 1
        assert provider.breaker.snapshot().failed == 0

    async def test_what_the_body_says_counts(self, open_client: Any, world: Any) -> None:
        """A 429 that no waiting mends is not tried again: its body tells."""
        quota = {"error": {"code": "insufficient_quota"}}
        http, site, _ = open_client(world.Site.reply(429, quota))
        async with http:
            answer = await http.get("/")
            assert answer.extensions["resilience"].kind is FailureKind.QUOTA_EXHAUSTED
            assert answer.json() == quota
        assert site.requests == 1

    async def test_hints_are_obeyed(self, open_client: Any, world: Any) -> None:
        """A Retry-After closes the gate, and the next attempt waits for it."""
        http, site, _ = open_client(world.Site.reply(429, retry_after_ms="30"), world.Site.reply())
        async with http:
            assert (await http.get("/")).status_code == 200
        assert site.requests == 2
        assert world.events.of(GateClosed)[0].hinted
        assert world.events.of(RetryScheduled)[0].delay >= 0.03

    @pytest.mark.parametrize("fault", ["reset", "status"])
    async def test_a_post_is_not_repeated(self, open_client: Any, world: Any, library: Any, fault: str) -> None:
        """What may have had an effect is not sent again."""
        http, site, _ = open_client(world.Site.reset if fault == "reset" else world.Site.reply(503))
        async with http:
            if fault == "reset":
                with pytest.raises(library.module.ReadError):
                    await http.post("/", content=b"order")
            else:
                assert (await http.post("/", content=b"order")).status_code == 503
        assert site.requests == 1

    async def test_a_post_that_was_not_sent(self, library: Any, world: Any) -> None:
        """A refused connection has no effect, so even a POST is tried again."""
        registry = world.registry()
        async with library.client("api", registry=registry, trust_env=False) as http:
            with pytest.raises(library.module.ConnectError) as caught:
                await http.post("http://127.0.0.1:1/", content=b"order")
        assert registry.provider("api").snapshot().retries == 2
        failure = failure_of(caught.value)
        assert failure is not None
        assert failure.attempts == 3

    async def test_with_a_key_of_its_own(self, open_client: Any, world: Any) -> None:
        """An Idempotency-Key makes every request one that may be repeated."""
        http, site, _ = open_client(world.Site.reply(503), world.Site.reply())
        async with http:
            await http.post("/", content=b"order", headers={"Idempotency-Key": "42"})
        assert [seen.headers["idempotency-key"] for seen in site.seen] == ["42", "42"]

    async def test_with_a_key_of_ours(self, open_client: Any, world: Any) -> None:
        """The key is the same on each attempt of a call, and another one for the next call."""
        http, site, _ = open_client(world.Site.reply(503), world.Site.reply(), idempotency_key=True)
        async with http:
            await http.post("/", content=b"order")
            await http.post("/", content=b"order")
        keys = [seen.headers["idempotency-key"] for seen in site.seen]
        assert keys[0] == keys[1] != keys[2]
        assert [seen.body for seen in site.seen] == [b"order"] * 3

    async def test_methods_that_do_no_harm(self, open_client: Any, world: Any) -> None:
        """Who knows that a POST does no harm says so."""
        http, site, _ = open_client(world.Site.reply(503), world.Site.reply(), methods={"GET", "POST"})
        async with http:
            assert (await http.post("/")).status_code == 200
        assert site.requests == 2

    async def test_a_body_that_can_be_read_once(self, open_client: Any, world: Any) -> None:
        """A body that is gone is not sent again, whatever the method."""

        async def once() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        http, site, _ = open_client(world.Site.reply(503))
        async with http:
            assert (await http.put("/", content=once())).status_code == 503
        assert [seen.body for seen in site.seen] == [b"onetwo"]

    @pytest.mark.parametrize("seekable", [True, False])
    async def test_a_form(self, open_client: Any, world: Any, seekable: bool) -> None:
        """A form is repeated if its files can be rewound, and arrives whole each time."""
        file = io.BytesIO(b"content")
        file.seekable = lambda: seekable  # type: ignore[method-assign]
        http, site, _ = open_client(world.Site.reply(503), world.Site.reply())
        async with http:
            answer = await http.put("/", files={"file": file}, data={"name": "x"})
        assert answer.status_code == (200 if seekable else 503)
        assert [b"content" in seen.body for seen in site.seen] == [True] * (1 + seekable)

    async def test_options_of_one_request(self, open_client: Any, world: Any) -> None:
        """A single request may change what holds for it."""
        http, site, _ = open_client(world.Site.reply(503))
        async with http:
            answer = await http.get("/", extensions={"resilience": {"retry": False, "operation": "list"}})
            assert answer.extensions["resilience"].operation == "list"
            with pytest.raises(ConfigurationError, match="as a dict"):
                await http.get("/", extensions={"resilience": "list"})
        assert site.requests == 1


class TestErrorBodies:
    """The body of an error is read to judge it, and is still there for the client."""

    async def test_a_long_one(self, open_client: Any, world: Any) -> None:
        """It is not read to its end, but the client may; those of earlier attempts are closed."""
        http, site, _ = open_client(world.Site.reply(500, b"x" * 200_000))
        async with http:
            answer = await http.get("/")
            assert len(answer.content) == 200_000
            assert len(world.pool(http).connections) == 1
        assert site.requests == 3

    async def test_one_that_is_followed_by_success(self, open_client: Any, world: Any) -> None:
        """Its connection is given up before the next attempt."""
        http, _, _ = open_client(world.Site.reply(500, b"x" * 200_000), world.Site.reply())
        async with http:
            assert (await http.get("/")).status_code == 200
            assert [connection.is_idle() for connection in world.pool(http).connections] == [True]

    async def test_one_before_a_cancellation(self, open_client: Any, world: Any) -> None:
        """Whoever is cancelled in the back-off leaves no connection behind."""
        settings = {"retry": RetrySettings(base_delay=60, jitter="none")}
        http, site, provider = open_client(world.Site.reply(500, b"x" * 200_000), settings=settings)
        async with http:
            async with anyio.create_task_group() as group:
                provider.subscribe(lambda _: group.cancel_scope.cancel(), RetryScheduled)
                group.start_soon(http.get, "/")
            assert site.requests == 1
            assert provider.snapshot().in_flight == 0
            assert not world.pool(http).connections

    async def test_one_that_is_here_already(self, library: Any, world: Any) -> None:
        """A response that was never on the wire is judged like any other."""
        transport = library.module.MockTransport(lambda _: library.module.Response(429, json={"error": {"code": CODE}}))
        async with library.client("api", registry=world.registry(), transport=transport) as http:
            answer = await http.get("http://api/")
        assert answer.extensions["resilience"].kind is FailureKind.QUOTA_EXHAUSTED
        assert answer.json() == {"error": {"code": CODE}}

    async def test_one_that_breaks_off(self, open_client: Any, world: Any, library: Any) -> None:
        """The status counts, and the client meets the break where it reads on."""
        http, site, _ = open_client(world.Site.stream(b"part", then="cut", status=503), settings={"retry": ONCE})
        async with http, http.stream("GET", "/") as answer:
            assert answer.status_code == 503
            with pytest.raises(library.module.RemoteProtocolError):
                await answer.aread()
        assert site.requests == 1

    async def test_one_that_is_not_what_it_says(self, open_client: Any, world: Any, library: Any) -> None:
        """A body that cannot be decoded leaves the status to judge by."""
        http, _, _ = open_client(world.Site.reply(503, b"plain", content_encoding="gzip"), settings={"retry": ONCE})
        async with http, http.stream("GET", "/") as answer:
            assert answer.extensions["resilience"].kind is FailureKind.OVERLOADED
            with pytest.raises(library.module.DecodingError):
                await answer.aread()

    async def test_one_that_hangs(self, open_client: Any, world: Any) -> None:
        """It is part of the attempt, whose limit ends it."""
        http, _, provider = open_client(
            world.Site.stream(b"part", then="hang", status=503), settings={"retry": ONCE, "timeout": {"attempt": 0.05}}
        )
        async with http:
            with pytest.raises(CallTimeout):
                await http.get("/")
            assert world.held(provider) == 0
            assert not [one for one in world.pool(http).connections if not one.is_closed()]


class TestBodies:
    """A response is covered to its end."""

    async def test_read_to_the_end(self, open_client: Any, world: Any) -> None:
        """The permit is held while the body is being read; then the attempt was a success."""
        http, _, provider = open_client(world.Site.stream(b"one", b"two"))
        async with http:
            async with http.stream("GET", "/") as answer:
                assert world.held(provider) == 1
                assert provider.breaker.snapshot().calls == 0
                assert await answer.aread() == b"onetwo"
                assert world.held(provider) == 0
            assert provider.breaker.snapshot().calls == 1
            assert [connection.is_idle() for connection in world.pool(http).connections] == [True]

    @pytest.mark.parametrize("fault", ["cut", "reset"])
    async def test_a_break_is_evidence(self, open_client: Any, world: Any, library: Any, fault: str) -> None:
        """A body that breaks off counts against the provider, and its error is the library's own."""
        http, site, provider = open_client(world.Site.stream(b"one", then=fault), settings={"breaker": ONE})
        async with http:
            with pytest.raises(library.module.TransportError) as caught:
                await http.get("/")
            assert not isinstance(caught.value, ProviderError)
            assert provider.breaker.state is CircuitState.OPEN
            assert world.held(provider) == 0
        assert site.requests == 1  # what the client has begun to read is not made anew

    async def test_closed_early(self, open_client: Any, world: Any) -> None:
        """A reader who leaves says nothing about the provider, and holds nothing any more."""
        http, _, provider = open_client(world.Site.stream(b"one", then="hang"), settings={"breaker": ONE})
        async with http:
            async with http.stream("GET", "/") as answer:
                async for part in answer.aiter_bytes():
                    assert part == b"one"
                    break
            assert world.held(provider) == 0
            assert provider.breaker.snapshot().calls == 0
            assert not world.pool(http).connections

    async def test_cancelled(self, open_client: Any, world: Any) -> None:
        """A reader who is cancelled holds nothing any more either."""
        http, _, provider = open_client(world.Site.stream(b"one", then="hang"), settings={"breaker": ONE})
        async with http:
            with anyio.move_on_after(0.05) as scope:
                await http.get("/")
            assert scope.cancelled_caught
            assert world.held(provider) == 0
            assert provider.breaker.state is CircuitState.CLOSED
            assert not world.pool(http).connections

    async def test_forgotten(self, open_client: Any, world: Any, library: Any) -> None:
        """A response that nobody closes gives back its permit when it is collected, with a warning."""
        http, site, provider = open_client(world.Site.stream(b"one", then="hang"))
        async with http:
            answer = await http._transport.handle_async_request(library.module.Request("GET", site.url))
            assert world.held(provider) == 1
            with pytest.warns(ResourceWarning, match="neither read to its end nor closed"):
                del answer
            assert world.held(provider) == 0

    @pytest.mark.parametrize("method, status", [("HEAD", 200), ("GET", 204)])
    async def test_no_body(self, open_client: Any, world: Any, method: str, status: int) -> None:
        """Where no body comes the answer is the end."""
        http, _, provider = open_client(world.Site.reply(status))
        async with http, http.stream(method, "/"):
            assert world.held(provider) == 0
            assert provider.breaker.snapshot().calls == 1

    async def test_a_probe(self, open_client: Any, world: Any, library: Any) -> None:
        """A half-open circuit's probe is decided by the whole answer."""
        settings = {"breaker": {"failure_threshold": 1, "success_threshold": 1, "timeout": 0.01}}
        http, _, provider = open_client(world.Site.reset, world.Site.stream(b"one", b"two"), settings=settings)
        async with http:
            with pytest.raises(library.module.ReadError):
                await http.get("/", extensions={"resilience": {"retry": False}})
            await anyio.sleep(0.02)
            async with http.stream("GET", "/") as answer:
                assert provider.breaker.state is CircuitState.HALF_OPEN
                await answer.aread()
            assert provider.breaker.state is CircuitState.CLOSED


class TestTimeouts:
    """The shortest of the client's timeouts and ours holds, and says which it was."""

    async def test_ours(self, open_client: Any, world: Any, library: Any) -> None:
        """Our attempt timeout is a timeout of the library too, and evidence."""
        http, _, provider = open_client(world.Site.hang, settings={"timeout": {"attempt": 0.05}, "retry": ONCE})
        async with http:
            with pytest.raises(library.module.TimeoutException, match=r"attempt timed out .*limit 0\.05 s") as caught:
                await http.get("/")
            assert isinstance(caught.value, CallTimeout)
            assert str(caught.value.request.url).endswith("/")
            assert provider.breaker.snapshot().failed == 1

    async def test_the_clients(self, open_client: Any, world: Any, library: Any) -> None:
        """A shorter one of the client fires first, and is classified as what it is."""
        http, site, provider = open_client(world.Site.hang, timeout=0.05)
        async with http:
            with pytest.raises(library.module.ReadTimeout) as caught:
                await http.get("/")
            failure = failure_of(caught.value)
            assert failure is not None
            assert (failure.kind, failure.attempts) == (FailureKind.TIMEOUT, 3)
            assert provider.breaker.snapshot().failed == 3
        assert site.requests == 3

    @pytest.mark.parametrize("read", [None, 30.0])
    async def test_a_pause_in_the_body(self, open_client: Any, world: Any, library: Any, read: float | None) -> None:
        """A body may pause for `stream.idle`, whatever the client would put up with."""
        settings = {"stream": {"idle": 0.05}, "breaker": ONE}
        http, _, provider = open_client(
            world.Site.stream(b"one", then="hang"), settings=settings, timeout=library.module.Timeout(5, read=read)
        )
        async with http:
            with pytest.raises(library.module.ReadTimeout) as caught:
                await http.get("/")
            assert "nothing more of the body came for 0.05 s" in "".join(caught.value.__notes__)
            assert provider.breaker.state is CircuitState.OPEN

    async def test_a_pause_in_a_foreign_body(self, library: Any, world: Any) -> None:
        """The same holds where another transport than the library's own carries the request."""

        class Body(library.module.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"one"
                await anyio.sleep_forever()

        transport = library.module.MockTransport(lambda _: library.module.Response(200, stream=Body()))
        registry = world.registry(stream={"idle": 0.05}, breaker=ONE)
        async with library.client("api", registry=registry, transport=transport) as http:
            with pytest.raises(library.module.ReadTimeout) as caught:
                await http.get("http://api/")
        assert "nothing more of the body came" in "".join(caught.value.__notes__)
        assert registry.provider("api").breaker.state is CircuitState.OPEN

    @pytest.mark.parametrize("read", [0.1, 60.0])
    async def test_never_both(self, open_client: Any, world: Any, library: Any, read: float) -> None:
        """A timeout of the client's that is not shorter leaves it to ours, so that the same one fires each time."""
        settings = {"timeout": {"attempt": 0.1}, "retry": ONCE}
        http, _, _ = open_client(world.Site.hang, settings=settings, timeout=read)
        async with http:
            with pytest.raises(CallTimeout):
                await http.get("/")

    @pytest.mark.parametrize("how", ["by a handle", "by the request", "by switching it off"])
    async def test_a_longer_attempt(self, library: Any, serve: Any, world: Any, how: str) -> None:
        """Where an attempt may last longer than the settings say, the client's own timeout still fires."""
        site = serve(world.Site.hang)
        registry = world.registry(timeout={"attempt": 0.1}, retry=ONCE, enabled=how != "by switching it off")
        provider = registry.provider("api")
        given: Any = provider.with_options(attempt_timeout=60.0) if how == "by a handle" else "api"
        options = {} if how == "by a handle" else {"registry": registry}
        extensions = {"resilience": {"attempt_timeout": 60.0}} if how == "by the request" else {}
        async with library.client(given, base_url=site.url, trust_env=False, timeout=0.2, **options) as http:
            with pytest.raises(library.module.ReadTimeout):
                await http.get("/", extensions=extensions)

    async def test_the_request_stays_as_it_was(self, open_client: Any, world: Any) -> None:
        """What we change for the inside is not seen outside."""
        http, _, _ = open_client(world.Site.reply())
        async with http:
            answer = await http.get("/", timeout=600)
            assert answer.request.extensions["timeout"]["read"] == 600
            assert answer.request.extensions["timeout"]["pool"] == 600

    async def test_an_exhausted_pool(self, open_client: Any, world: Any, library: Any) -> None:
        """Waiting for a connection of our own is nobody's failure, however long the client would wait."""
        settings = {"timeout": {"attempt": 0.1}, "retry": ONCE, "breaker": ONE}
        limits = library.module.Limits(max_connections=1)
        http, site, provider = open_client(
            world.Site.stream(b"one", then="hang"), settings=settings, limits=limits, timeout=None
        )
        async with http, http.stream("GET", "/"):
            with pytest.raises(library.module.PoolTimeout):
                await http.get("/")
            assert provider.breaker.state is CircuitState.CLOSED
            assert world.held(provider) == 1
        assert site.requests == 1
        assert world.held(provider) == 0

    async def test_the_deadline_goes_along(self, open_client: Any, world: Any) -> None:
        """When asked for, each attempt tells how much time is left."""
        http, site, _ = open_client(world.Site.reply(503), world.Site.reply(), propagate="X-Left")
        async with http:
            await http.get("/", extensions={"resilience": {"timeout": 10.0}})
        left = [int(seen.headers["x-left"]) for seen in site.seen]
        assert 10_000 >= left[0] >= left[1] > 0

    async def test_the_usual_name_of_the_deadline(self, open_client: Any, world: Any) -> None:
        """Without a name it is X-Request-Timeout-Ms; without the option there is none."""
        for propagate in (True, False):
            http, site, _ = open_client(propagate=propagate)
            async with http:
                await http.get("/")
            assert ("x-request-timeout-ms" in site.seen[0].headers) is propagate


class TestRefusals:
    """What we refuse is our error and the library's."""

    async def test_an_open_circuit(self, open_client: Any, library: Any) -> None:
        """Whoever catches the library's transport errors catches ours, with all that it says."""
        http, site, provider = open_client()
        provider.breaker.open()
        async with http:
            with pytest.raises(library.module.TransportError, match="circuit open") as caught:
                await http.get("/")
        error = caught.value
        assert isinstance(error, CircuitOpen)
        assert (error.provider, error.request.method) == ("api", "GET")
        assert not isinstance(error, library.module.TimeoutException)
        assert site.requests == 0

    async def test_elsewhere_it_is_ours(self, open_client: Any) -> None:
        """What is sent or copied is the plain error that everybody can import."""
        http, _, provider = open_client()
        provider.breaker.open()
        async with http:
            with pytest.raises(CircuitOpen) as caught:
                await http.get("/")
        for sent in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
            assert type(sent) is CircuitOpen
            assert str(sent) == str(caught.value)

    async def test_through_two_transports(self, library: Any, world: Any) -> None:
        """One transport inside another leaves an error as it is."""
        registry = world.registry()
        inner = library.transport("inner", registry=registry)
        registry.provider("inner").breaker.open()
        async with library.client("outer", registry=registry, transport=inner) as http:
            with pytest.raises(library.module.TransportError, match="inner: circuit open"):
                await http.get("http://nowhere/")
        assert registry.provider("outer").breaker.snapshot().failed == 0

    async def test_one_error_for_every_provider(self, open_client: Any, world: Any, library: Any) -> None:
        """With standard errors a response is still a response, and an error is the library's too."""
        http, _, _ = open_client(
            world.Site.reply(503), world.Site.reset, settings={"errors": "standard", "retry": ONCE}
        )
        async with http:
            assert (await http.get("/")).status_code == 503
            with pytest.raises(library.module.TransportError) as caught:
                await http.get("/")
        assert isinstance(caught.value, ProviderError)
        assert isinstance(caught.value.__cause__, library.module.ReadError)

    async def test_switched_off(self, open_client: Any, world: Any) -> None:
        """A provider that is switched off lets everything through as it is."""
        http, site, _ = open_client(world.Site.reply(503), settings={"enabled": False})
        async with http:
            assert (await http.get("/")).status_code == 503
        assert site.requests == 1


class TestHosts:
    """Hosts can be kept apart."""

    async def test_each_host_has_a_circuit(self, serve: Any, world: Any, library: Any) -> None:
        """One host's trouble is not the other's."""
        sick, well = serve(world.Site.reset), serve()
        registry = world.registry(breaker=ONE, retry=ONCE)
        async with library.client("api", registry=registry, per_host=True, trust_env=False) as http:
            with pytest.raises(library.module.ReadError):
                await http.get(sick.url)
            with pytest.raises(CircuitOpen):
                await http.get(sick.url)
            assert (await http.get(well.url)).status_code == 200
        assert f"api/{well.url.removeprefix('http://')}" in registry
        assert sick.requests == 1

    @pytest.mark.parametrize(
        "url, name",
        [
            ("https://API.example.com/v1", "api.example.com"),
            ("http://[::1]:8080/", "::1:8080"),
            ("https://bücher.example/", "xn--bcher-kva.example"),
            ("http://a~b/", "a-b"),
        ],
    )
    async def test_names(self, library: Any, world: Any, url: str, name: str) -> None:
        """Every host becomes the name of an endpoint."""
        registry = world.registry()
        transport = library.module.MockTransport(lambda _: library.module.Response(200))
        async with library.client("api", registry=registry, per_host=True, transport=transport) as http:
            await http.get(url)
        assert f"api/{name}" in registry

    async def test_any_number_of_them(self, library: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A transport does not keep all the hosts it has ever met."""
        monkeypatch.setattr("providers.http._transport._MOST_HOSTS", 2)
        transport = library.module.MockTransport(lambda _: library.module.Response(200))
        async with library.client("api", registry=world.registry(), per_host=True, transport=transport) as http:
            for number in (1, 2, 3, 1):
                assert (await http.get(f"http://host{number}")).status_code == 200
            assert len(http._transport._hosts) == 2


class TestSetup:
    """A client is protected whole, and slips are told."""

    async def test_proxies_of_the_environment(
        self, serve: Any, world: Any, library: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What goes through a proxy is protected as well, and what bypasses it too."""
        proxy, direct = (
            serve(world.Site.reply(503), world.Site.reply()),
            serve(world.Site.reply(503), world.Site.reply()),
        )
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with library.client("api", registry=world.registry()) as http:
            assert (await http.get("http://somewhere.example/")).status_code == 200
            assert (await http.get(direct.url)).status_code == 200
        assert (proxy.requests, direct.requests) == (2, 2)

    async def test_a_handle_with_options(self, library: Any, serve: Any, world: Any) -> None:
        """The options of a handle hold for all requests."""
        site = serve(world.Site.reply(503))
        handle = world.provider().with_options(retry=False, operation="all")
        async with library.client(handle, base_url=site.url, trust_env=False) as http:
            assert (await http.get("/")).extensions["resilience"].operation == "all"
        assert site.requests == 1

    async def test_a_transport_of_its_own(self, library: Any, serve: Any, world: Any) -> None:
        """Any client takes the transport."""
        site = serve(world.Site.reply(503), world.Site.reply())
        transport = library.transport("api", registry=world.registry())
        async with library.module.AsyncClient(transport=transport) as http:
            assert (await http.get(site.url)).status_code == 200
        alone = library.transport("api", registry=world.registry())
        answer = await alone.handle_async_request(library.module.Request("GET", site.url))
        assert [part async for part in answer.stream] == [b"ok"]
        await alone.aclose()

    async def test_without_a_provider(self, library: Any, serve: Any, world: Any) -> None:
        """Without a provider nothing is repeated."""
        site = serve(world.Site.reply(503))
        async with library.client(base_url=site.url, trust_env=False) as http:
            assert (await http.get("/")).status_code == 503
        assert site.requests == 1

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ((("http://api",), {}), "a URL goes into base_url="),
            (((), {"per_host": True}), "per_host=...\\) does nothing without a provider"),
            ((("api",), {"methods": "GET"}), "expected names in capitals"),
            ((("api",), {"methods": ["get"]}), "expected names in capitals"),
            ((("No Name",), {}), "no provider name"),
        ],
    )
    async def test_slips(self, library: Any, arguments: Any, message: str) -> None:
        """What makes no sense is refused when the client is made."""
        args, options = arguments
        with pytest.raises(ConfigurationError, match=message):
            library.client(*args, **options)

    async def test_a_handle_is_one_provider(self, library: Any, world: Any) -> None:
        """Hosts and registries go with a name."""
        for options in ({"per_host": True}, {"registry": ProviderRegistry()}):
            with pytest.raises(ConfigurationError, match="go with the provider's name"):
                library.transport(world.provider(), **options)

    async def test_without_httpx2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever asks for the other library without having it is told what to install."""
        monkeypatch.setitem(sys.modules, "httpx2", None)
        monkeypatch.delitem(sys.modules, "providers.http._httpx2")
        monkeypatch.delattr(providers.http, "_httpx2")
        with pytest.raises(ImportError, match=r"resilient-providers\[httpx2\]"):
            _ = providers.http.client2
        with pytest.raises(AttributeError, match="client3"):
            _ = providers.http.client3  # type: ignore[attr-defined]

    async def test_an_sdk_that_retries_by_itself(
        self, open_client: Any, world: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is told once how to turn that off."""
        http, _, _ = open_client(world.Site.reply(500), settings={"retry": ONCE})
        with caplog.at_level(logging.WARNING, "resilience.http"):
            async with http:
                for count in ("0", "1", "2"):
                    await http.get("/", headers={"x-stainless-retry-count": count})
        told = [record.getMessage() for record in caplog.records if record.name == "resilience.http"]
        assert told == ["api: the SDK retries by itself, so that attempts multiply: give it max_retries=0"]
