"""The spans of real calls, as an SDK records them."""

from __future__ import annotations

import logging
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from resilience import (
    AllProvidersFailed,
    CallTimeout,
    CircuitOpen,
    ProviderRegistry,
    ProviderSettings,
    ResilientProvider,
    Settings,
    StreamInterrupted,
)
from resilience.telemetry import names, tracing
from resilience.testing import cancelled_everywhere

pytestmark = pytest.mark.anyio

SECRET = "sk-hunter2"


class Answer(Exception):
    """What a provider's SDK raises: with a status, and with a text that nobody may see."""

    def __init__(self, status: int) -> None:
        super().__init__(f"https://api.example/?key={SECRET}")
        self.status_code = status


class Open(SpanProcessor):
    """Knows the spans that have begun and have not ended."""

    def __init__(self) -> None:
        self.spans: dict[int, str] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context = span.get_span_context()
        assert context is not None
        self.spans[context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        del self.spans[span.context.span_id]


@pytest.fixture
def unended(tracer_provider: TracerProvider) -> dict[int, str]:
    """The spans that have begun and have not ended."""
    processor = Open()
    tracer_provider.add_span_processor(processor)
    return processor.spans


@pytest.fixture(autouse=True)
def _traced(tracer_provider: TracerProvider) -> Generator[None, None, None]:
    tracing.install(tracer_provider)
    yield
    tracing.remove()


def provider(name: str = "openai", **settings: Any) -> ResilientProvider:
    """A provider whose calls are always spans, and that retries after a second."""
    given: dict[str, Any] = {
        "telemetry": {"spans": "always"},
        "retry": {"max_attempts": 3, "base_delay": 1.0, "jitter": "none"},
        "budget": {"enabled": False},
        **settings,
    }
    registry = ProviderRegistry(Settings(defaults=ProviderSettings(**given)), clock=anyio.current_time)
    return ResilientProvider(name, registry=registry)


def failing(*statuses: int) -> Callable[[], Any]:
    """A function that fails once with each of *statuses*, then answers."""
    left = list(statuses)

    async def call() -> str:
        await anyio.sleep(0.1)
        if left:
            raise Answer(left.pop(0))
        return "done"

    return call


def told(span: ReadableSpan) -> dict[str, Any]:
    """What a span says beyond whose it is."""
    return {
        name.removeprefix("resilience."): value
        for name, value in (span.attributes or {}).items()
        if name != names.PROVIDER
    }


def ours(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The one call that was recorded, and its attempts in order."""
    spans = exporter.get_finished_spans()
    [call] = [span for span in spans if span.name.startswith("execute")]
    attempts = sorted(
        (span for span in spans if span.name.startswith("attempt")), key=lambda span: span.start_time or 0
    )
    assert call.context is not None
    assert all(span.parent is not None and span.parent.span_id == call.context.span_id for span in attempts)
    return call, attempts


def statuses(call: ReadableSpan, attempts: list[ReadableSpan]) -> list[StatusCode]:
    return [span.status.status_code for span in (call, *attempts)]


UNSET, ERROR = StatusCode.UNSET, StatusCode.ERROR


# -- how calls end -----------------------------------------------------------------------------------------------------


async def test_success(exporter: InMemorySpanExporter) -> None:
    """A call that succeeds is a span with one attempt below it, neither of them marked."""
    assert await provider().with_options(operation="chat").execute(failing()) == "done"
    call, [attempt] = ours(exporter)
    assert (call.name, attempt.name) == ("execute openai", "attempt openai")
    assert statuses(call, [attempt]) == [UNSET, UNSET]
    assert told(call) == {"operation": "chat", "outcome": "success", "attempts": 1}
    assert told(attempt) == {"operation": "chat", "outcome": "success", "attempt": 1}
    assert {call.kind, attempt.kind} == {SpanKind.INTERNAL}
    assert call.instrumentation_scope is not None
    assert call.instrumentation_scope.name == "resilience"


async def test_the_function_runs_inside_its_attempt(
    tracer_provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """What the user's function records nests under the attempt, and what is recorded afterwards does not."""
    tracer = tracer_provider.get_tracer("app")

    async def work() -> None:
        with tracer.start_as_current_span("GET"):
            await anyio.sleep(0.1)

    with tracer.start_as_current_span("request") as request:
        await provider().execute(work)
        assert trace.get_current_span() is request
    call, [attempt] = ours(exporter)
    [inner] = [span for span in exporter.get_finished_spans() if span.name == "GET"]
    assert inner.parent == attempt.context
    assert call.parent == request.get_span_context()


async def test_retried_errors_do_not_mark_the_call(exporter: InMemorySpanExporter) -> None:
    """A call that succeeds in the end is not marked; the attempts that failed are, with what they failed of."""
    await provider().execute(failing(500, 429))
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [UNSET, ERROR, ERROR, UNSET]
    assert told(call) == {"outcome": "success_after_retry", "attempts": 3}
    assert told(attempts[0]) == {
        "outcome": "failure",
        "attempt": 1,
        "kind": "server_error",
        "category": "retriable",
        "error.type": "tests.Answer",
        "http.response.status_code": 500,
    }
    assert told(attempts[1])["kind"] == "rate_limit"
    assert told(attempts[2]) == {"outcome": "success", "attempt": 3}


async def test_a_failure_marks_the_call(exporter: InMemorySpanExporter) -> None:
    """A call that gives up is marked with the error that came out, and says why there was no other attempt."""
    with pytest.raises(Answer):
        await provider().execute(failing(500, 500, 500))
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [ERROR] * 4
    assert told(call) == {
        "outcome": "failure",
        "attempts": 3,
        "reason": "attempts_spent",
        "kind": "server_error",
        "category": "retriable",
        "error.type": "tests.Answer",
        "http.response.status_code": 500,
    }
    assert call.status.description == "server_error after 3 attempts"


async def test_no_text_of_others(exporter: InMemorySpanExporter) -> None:
    """No span holds the text of a provider's error, nor an exception event, which would."""
    with pytest.raises(Answer):
        await provider(errors="native").execute(failing(503, 401))
    spans = exporter.get_finished_spans()
    assert not any(span.events for span in spans)
    assert SECRET not in "".join(span.to_json() for span in spans)


async def test_a_bug_of_the_caller(exporter: InMemorySpanExporter) -> None:
    """An error in the caller's own code marks the call as well, with its class."""

    async def bug() -> None:
        await anyio.sleep(0.1)
        raise AttributeError("x")

    with pytest.raises(AttributeError):
        await provider().execute(bug)
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [ERROR, ERROR]
    assert told(call)["error.type"] == "AttributeError"


async def test_rejection(exporter: InMemorySpanExporter) -> None:
    """A refused call is a span without attempts, marked with our refusal and its reason, in our words."""
    openai = provider()
    openai.breaker.open()
    with pytest.raises(CircuitOpen):
        await openai.execute(failing())
    call, attempts = ours(exporter)
    assert not attempts
    assert told(call) == {
        "outcome": "rejected",
        "attempts": 0,
        "reason": "forced_open",
        "error.type": "resilience.CircuitOpen",
    }
    assert call.status.status_code is ERROR
    assert (call.status.description or "").startswith("openai: circuit open")


@pytest.mark.parametrize("quietly", [False, True])
async def test_rejection_on_the_quick_way(
    exporter: InMemorySpanExporter, tracer_provider: TracerProvider, quietly: bool
) -> None:
    """A recorded request shows the calls that an open circuit refuses at once, whichever way they were made."""
    openai = provider(telemetry={"spans": "sampled"}, retry={"enabled": False})
    for _ in range(5):
        assert not (await openai.try_execute(failing(503))).ok
    assert (await openai.try_execute(failing())).rejected
    assert not exporter.get_finished_spans() or {s.name for s in exporter.get_finished_spans()} == {
        "circuit_breaker.transition"
    }
    with tracer_provider.get_tracer("app").start_as_current_span("request"):
        if quietly:
            assert (await openai.try_execute(failing())).rejected
        else:
            with pytest.raises(CircuitOpen):
                await openai.execute(failing())
    call, attempts = ours(exporter)
    assert (told(call)["reason"], attempts) == ("circuit_open", [])


async def test_timeout(exporter: InMemorySpanExporter) -> None:
    """An attempt that our own limit interrupts is marked as a timeout."""
    openai = provider(retry={"enabled": False}, timeout={"attempt": 1})
    with pytest.raises(CallTimeout):
        await openai.execute(anyio.sleep, 5)
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [ERROR, ERROR]
    assert [told(span)["kind"] for span in (call, *attempts)] == ["timeout", "timeout"]
    assert told(call)["error.type"] == "resilience.CallTimeout"
    assert told(call)["reason"] == "retry_disabled"


# -- cancellation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds, attempts", [(0.05, 1), (0.5, 1), (1.15, 2)])
async def test_a_cancelled_call_is_no_error(exporter: InMemorySpanExporter, seconds: float, attempts: int) -> None:
    """A call that its caller cancels, in an attempt or between two, is neither a success nor marked as an error."""
    openai, failing_twice = provider(), failing(500, 500)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(openai.execute, failing_twice)
        await anyio.sleep(seconds)
        tasks.cancel_scope.cancel()
    call, tried = ours(exporter)
    assert told(call) == {"outcome": "cancelled", "attempts": attempts}
    assert call.status.status_code is UNSET
    assert len(tried) == attempts
    if seconds != 0.5:
        assert told(tried[-1])["outcome"] == "cancelled"
        assert tried[-1].status.status_code is UNSET


async def test_cancelled_before_the_first_attempt(exporter: InMemorySpanExporter) -> None:
    """A call that is cancelled while it waits to be let in has made no attempt."""
    openai = provider(bulkhead={"max_concurrent": 1, "max_wait": 60})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(openai.execute, anyio.sleep, 10)
        await anyio.sleep(1)
        with anyio.move_on_after(1):
            await openai.execute(failing())
    cancelled, _ = [span for span in exporter.get_finished_spans() if span.name == "execute openai"]
    assert told(cancelled) == {"outcome": "cancelled", "attempts": 0}


# -- what is held ------------------------------------------------------------------------------------------------------


async def numbers(count: int, *, breaks: bool = False) -> AsyncIterator[int]:
    for number in range(count):
        await anyio.sleep(1)
        yield number
    if breaks:
        raise ConnectionResetError(SECRET)


async def test_a_stream_ends_with_its_last_item(exporter: InMemorySpanExporter) -> None:
    """The spans of a stream last until it ends, and what its reader does is not inside of them."""
    openai = provider()
    before = trace.get_current_span()
    async with openai.stream(numbers, 3) as items:
        async for _ in items:
            assert trace.get_current_span() is before
            assert not exporter.get_finished_spans()
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [UNSET, UNSET]
    assert [told(span)["outcome"] for span in (call, *attempts)] == ["success", "success"]


async def test_a_stream_that_is_cut(exporter: InMemorySpanExporter) -> None:
    """A stream that breaks after its first items marks both spans, without its error's text."""
    with pytest.raises(StreamInterrupted):
        async with provider().stream(numbers, 2, breaks=True) as items:
            async for _ in items:
                pass
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [ERROR, ERROR]
    assert told(call)["reason"] == "stream_committed"
    assert SECRET not in call.to_json()


async def test_a_stream_that_is_left(exporter: InMemorySpanExporter) -> None:
    """A stream whose reader goes away is over for the trace as well, and no error."""
    async with provider().stream(numbers, 9) as items:
        async for _ in items:
            break
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [UNSET, UNSET]


async def test_what_is_held_ends_when_it_is_let_go(exporter: InMemorySpanExporter) -> None:
    """A held call is recorded until it is let go, with the error that it ends with."""
    hold = await provider().hold(failing())
    assert not exporter.get_finished_spans()
    await anyio.sleep(5)
    hold.end(Answer(500))
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [ERROR, ERROR]
    assert told(call)["kind"] == "server_error"


async def test_blocks(exporter: InMemorySpanExporter) -> None:
    """Attempts that are blocks are recorded like functions, also when they are left early."""
    openai, statuses_ = provider(), [503]
    async for attempt in openai.attempts():
        async with attempt:
            assert trace.get_current_span().is_recording()
            if statuses_:
                raise Answer(statuses_.pop())
    call, attempts = ours(exporter)
    assert statuses(call, attempts) == [UNSET, ERROR, UNSET]
    assert not trace.get_current_span().is_recording()


# -- several at once ---------------------------------------------------------------------------------------------------


def hedging(**settings: Any) -> ResilientProvider:
    """A provider that starts a second attempt after a second."""
    hedge = {"enabled": True, "warm_up": 1, "max_extra_load": 0.5, "min_delay": 1.0, "max_delay": 1.0}
    return provider(retry={"enabled": False}, operations={"search": {"hedge": hedge}}, **settings)


async def test_a_hedge_is_a_sibling(exporter: InMemorySpanExporter) -> None:
    """The second attempt of a hedged call is a span beside the first, and says that it won."""
    openai = hedging().with_options(operation="search", idempotent=True)
    for _ in range(60):
        await openai.execute(anyio.sleep, 0.1)
    exporter.clear()
    slow = [30.0, 0.1]

    async def call() -> None:
        await anyio.sleep(slow.pop(0))

    await openai.execute(call)
    call_, [first, second] = ours(exporter)
    assert statuses(call_, [first, second]) == [UNSET] * 3
    assert told(first) == {"operation": "search", "outcome": "cancelled", "attempt": 1}
    assert told(second) == {"operation": "search", "outcome": "success", "attempt": 2, "hedge": "won"}
    assert told(call_)["outcome"] == "success"


async def test_a_call_inside_a_call(exporter: InMemorySpanExporter) -> None:
    """A call inside the function of another one nests under its attempt; each has its own spans."""
    outer = provider("gateway")
    inner = provider("openai")

    async def work() -> None:
        await inner.execute(failing())

    await outer.execute(work)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["execute openai"].parent == spans["attempt gateway"].context
    assert len(spans) == 4


async def test_calls_at_the_same_time_do_not_mix(
    tracer_provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Of many calls at the same time, some of them retried, each has its own spans, and its user's below them."""
    openai, tracer = provider(breaker={"enabled": False}), tracer_provider.get_tracer("app")

    async def request(number: int) -> None:
        act, tried = failing(*[500] * (number % 3)), 0

        async def work() -> None:
            nonlocal tried
            tried += 1
            with tracer.start_as_current_span(f"work {number} {tried}"):
                await act()

        with tracer.start_as_current_span(f"request {number}"):
            await openai.execute(work)

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(request, number)
    spans = {span.context.span_id: span for span in exporter.get_finished_spans() if span.context is not None}
    works = [span for span in spans.values() if span.name.startswith("work")]
    assert len(works) == 20 * (1 + 2 + 3)
    for work in works:
        _, number, tried = work.name.split()
        line = [work]
        while (parent := line[-1].parent) is not None:
            line.append(spans[parent.span_id])
        assert [span.name for span in line[1:]] == ["attempt openai", "execute openai", f"request {number}"]
        assert told(line[1])["attempt"] == int(tried)


async def test_a_fallback_is_a_call_of_its_own(tracer_provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    """Each provider of a chain that was asked has a span, side by side in the request's trace."""
    first, second = provider("openai", retry={"enabled": False}), provider("anthropic")
    left = [503]

    async def work() -> str:
        await anyio.sleep(0.1)
        if left:
            raise Answer(left.pop())
        return "done"

    with tracer_provider.get_tracer("app").start_as_current_span("request") as request:
        assert await first.fallback_to(second).execute(work) == "done"
    calls = [span for span in exporter.get_finished_spans() if span.name.startswith("execute")]
    assert [(span.name, span.status.status_code) for span in calls] == [
        ("execute openai", ERROR),
        ("execute anthropic", UNSET),
    ]
    assert all(span.parent == request.get_span_context() for span in calls)


async def test_a_transition_is_linked_to_the_call_that_caused_it(exporter: InMemorySpanExporter) -> None:
    """The trip of a circuit leads to the very call that was the last straw, also where nothing else is recorded."""
    openai = provider(retry={"enabled": False}, breaker={"failure_threshold": 2})
    for _ in range(2):
        with suppress(Answer):
            await openai.execute(failing(503))
    spans = exporter.get_finished_spans()
    [trip] = [span for span in spans if span.name == "circuit_breaker.transition"]
    last = [span for span in spans if span.name == "execute openai"][-1]
    assert [link.context for link in trip.links] == [last.context]


# -- nothing is left open ----------------------------------------------------------------------------------------------


async def retried() -> None:
    await provider().execute(failing(500, 500))


async def streamed() -> None:
    async with provider().stream(numbers, 2) as items:
        async for _ in items:
            pass


async def held() -> None:
    async with await provider().hold(failing(500)):
        await anyio.sleep(1)


async def in_blocks() -> None:
    act = failing(500)
    async for attempt in provider().attempts():
        async with attempt:
            await act()


async def hedged() -> None:
    openai = hedging().with_options(operation="search", idempotent=True)
    await openai.execute(anyio.sleep, 0.1)
    slow = [3.0, 0.5]

    async def call() -> None:
        await anyio.sleep(slow.pop(0))

    await openai.execute(call)


async def nested() -> None:
    await provider("gateway").execute(retried)


async def queued() -> None:
    openai = provider(bulkhead={"max_concurrent": 1, "max_wait": 60})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(openai.execute, anyio.sleep, 2)
        await openai.execute(anyio.sleep, 1)


async def failed_over() -> None:
    first = provider(retry={"enabled": False})
    with suppress(AllProvidersFailed):
        await first.fallback_to(provider("anthropic", retry={"enabled": False})).execute(failing(500, 500))


ACTS = [retried, streamed, held, in_blocks, hedged, nested, queued, failed_over]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_no_span_is_left_open(
    exporter: InMemorySpanExporter, unended: dict[int, str], act: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Wherever a call of any kind is cancelled, its spans have ended when it has, and none says it was an error."""
    for ending in cancelled_everywhere():
        exporter.clear()
        await ending(act)
        assert not unended, ending
        assert not trace.get_current_span().get_span_context().is_valid, ending
        spans = exporter.get_finished_spans()
        assert all(span.attributes and names.OUTCOME in span.attributes for span in spans), ending
        if ending.came_out:
            # A cancellation can still meet a call that has just succeeded; it is no error then, either.
            calls = [span for span in spans if span.name.startswith("execute")]
            assert told(calls[-1])["outcome"] in ("cancelled", "success"), ending
            assert calls[-1].status.status_code is UNSET, ending


@pytest.mark.parametrize("act", [retried, held, in_blocks, nested], ids=lambda act: act.__name__)
async def test_a_call_that_is_thrown_away(
    exporter: InMemorySpanExporter,
    unended: dict[int, str],
    caplog: pytest.LogCaptureFixture,
    act: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """A coroutine that is closed by whoever drops it ends its spans as well, and nobody complains about its context."""
    for ending in cancelled_everywhere("close"):
        await ending(act)
        assert not unended, ending
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_coroutine_that_is_closed_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """What the collector closes, in whatever context it happens to run, leaves that context alone."""

    @types.coroutine
    def stop_here() -> Generator[None, None, None]:
        yield

    async def work() -> None:
        await stop_here()

    body = provider().execute(work)
    copy_context().run(body.send, None)
    mine = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    with trace.use_span(mine):
        body.close()
        assert trace.get_current_span() is mine
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


# -- who is recorded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, alone, inside", [("off", 0, 0), ("sampled", 0, 2), ("always", 2, 2)])
async def test_modes(
    tracer_provider: TracerProvider, exporter: InMemorySpanExporter, mode: str, alone: int, inside: int
) -> None:
    """Calls are recorded never, inside a trace that is recorded, or always, as the provider's settings say."""
    openai = provider(telemetry={"spans": mode})
    for _ in range(2):  # the first call makes the lane
        exporter.clear()
        await openai.execute(failing())
        assert len(exporter.get_finished_spans()) == alone
    with tracer_provider.get_tracer("app").start_as_current_span("request"):
        exporter.clear()
        await openai.execute(failing())
        assert len(exporter.get_finished_spans()) == inside


async def test_the_arms_of_an_experiment(exporter: InMemorySpanExporter) -> None:
    """The spans of an experiment's calls say which arm made them; others say nothing of it."""
    tree = {
        "defaults": {"telemetry": {"spans": "always"}},
        "experiments": {"openai": {"share": 1.0, "settings": {"retry": {"max_attempts": 5}}}},
    }
    registry = ProviderRegistry(Settings.model_validate(tree), clock=anyio.current_time)
    await registry.provider("openai").execute(failing())
    call, [attempt] = ours(exporter)
    assert told(call)["variant"] == told(attempt)["variant"] == "b"
    exporter.clear()
    await registry.provider("other").execute(failing())
    assert "variant" not in told(ours(exporter)[0])


async def test_a_call_that_a_shutdown_refuses(exporter: InMemorySpanExporter) -> None:
    """A call that comes while its registry shuts down is refused in the trace as well."""
    registry = ProviderRegistry(
        Settings(defaults=ProviderSettings.model_validate({"telemetry": {"spans": "always"}})), clock=anyio.current_time
    )
    openai = registry.provider("openai")
    await registry.shutdown()
    assert (await openai.try_execute(failing())).rejected
    call, attempts = ours(exporter)
    assert (told(call)["reason"], told(call)["error.type"], attempts) == (
        "shutting_down",
        "resilience.ShuttingDown",
        [],
    )


async def test_what_a_sampler_drops_stays_dropped(exporter: InMemorySpanExporter) -> None:
    """Where the sampler decides against a call, nothing inside of it becomes a trace of its own."""
    sdk = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    sdk.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.install(sdk)
    seen: list[trace.SpanContext] = []

    async def work() -> None:
        seen.append(trace.get_current_span().get_span_context())
        await anyio.sleep(0.1)

    await provider().execute(work)
    assert not exporter.get_finished_spans()
    assert seen[0].is_valid
    assert not seen[0].trace_flags.sampled
    assert not trace.get_current_span().get_span_context().is_valid


async def test_removed(exporter: InMemorySpanExporter) -> None:
    """Nothing is recorded any more once it was removed."""
    openai = provider()
    await openai.execute(failing())
    tracing.remove()
    exporter.clear()
    await openai.execute(failing())
    assert not exporter.get_finished_spans()


async def test_many_operations_are_not_kept(exporter: InMemorySpanExporter) -> None:
    """Operations that are named by whoever calls do not fill the memory."""
    watcher = tracing.Tracing(trace.NoOpTracer())
    for number in range(5000):
        watcher.call("openai", f"chat-{number}", variant="")
    assert len(watcher._shapes) <= 1024


class Broken(SpanProcessor):
    """A processor that fails at each span."""

    def __init__(self, at: str) -> None:
        self._at = at

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self._at in ("start", span.name.partition(" ")[0]):
            raise RuntimeError("no space left")

    def on_end(self, span: ReadableSpan) -> None:
        if self._at == "end":
            raise RuntimeError("no space left")


@pytest.mark.parametrize("at", ["start", "attempt", "end"])
async def test_a_broken_processor_harms_no_call(
    tracer_provider: TracerProvider, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    """A processor of the application's that raises is logged, and the call goes on, retries included."""
    tracer_provider.add_span_processor(Broken(at))
    with caplog.at_level(logging.ERROR, logger="resilience.telemetry"):
        assert await provider().execute(failing(503)) == "done"
    assert {record.getMessage() for record in caplog.records} == {"tracing failed"}
    assert not trace.get_current_span().get_span_context().is_valid
