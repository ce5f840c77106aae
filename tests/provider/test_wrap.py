"""`wrap`: a function whose calls are all protected."""

from __future__ import annotations

import inspect
from functools import partial

import anyio
import pytest

from resilience import CircuitOpen, failure_of

pytestmark = pytest.mark.anyio


async def fetch(url: str, *, timeout: float = 3.0) -> str:
    """Fetch a page."""
    return f"{url} in {timeout:g} s"


fetch.cost = 7  # type: ignore[attr-defined]


async def test_it_looks_like_the_function(world) -> None:
    """The wrapped function keeps name, documentation, signature and attributes, and is a coroutine function."""
    wrapped = world.provider().wrap(fetch)
    assert (wrapped.__name__, wrapped.__qualname__, wrapped.__doc__) == ("fetch", "fetch", "Fetch a page.")
    assert wrapped.__module__ == fetch.__module__
    assert inspect.signature(wrapped) == inspect.signature(fetch)
    assert inspect.iscoroutinefunction(wrapped)
    assert wrapped.__wrapped__ is fetch
    assert wrapped.cost == 7
    assert await wrapped("a", timeout=2) == "a in 2 s"


async def test_each_call_is_protected(world) -> None:
    """Each call goes through `execute`: tried again, counted, refused when the circuit is open."""
    provider, call = world.provider(), world.script(ConnectionResetError, "stored")
    wrapped = provider.wrap(call)
    assert await wrapped("body", key="k") == "stored"
    assert call.given == [(("body",), {"key": "k"})] * 2
    assert provider.snapshot().recovered == 1
    provider.breaker.open()
    with pytest.raises(CircuitOpen):
        await wrapped("body")
    assert call.calls == 2


async def test_no_keyword_is_taken(world) -> None:
    """Every keyword belongs to the function."""
    call = world.script("done")
    given = {name: object() for name in ("self", "func", "args", "kwargs", "timeout", "operation", "retry")}
    await world.provider().wrap(call)(**given)
    assert call.given == [((), given)]


async def test_as_a_decorator_of_methods(world) -> None:
    """Methods can be decorated; they get their instance."""
    provider = world.provider()

    class Store:
        def __init__(self, name: str) -> None:
            self.name = name

        @provider.wrap
        async def put(self, key: str) -> str:
            return f"{self.name}/{key}"

        @staticmethod
        @provider.wrap
        async def check(key: str) -> str:
            return key

        @classmethod
        @provider.wrap
        async def kind(cls) -> str:
            return cls.__name__

    store = Store("s3")
    assert (await store.put("k"), await store.check("k"), await store.kind()) == ("s3/k", "k", "Store")
    assert provider.snapshot().calls == 3


async def test_what_has_no_name(world) -> None:
    """Partials and callable objects can be wrapped like functions."""
    provider = world.provider()
    assert await provider.wrap(partial(fetch, "a"))() == "a in 3 s"
    assert await provider.wrap(world.script("reply"))() == "reply"
    assert await provider.wrap(lambda: fetch("b"))() == "b in 3 s"


async def test_through_a_view(world) -> None:
    """A function that is wrapped through a view has the view's options."""
    call = world.script(ConnectionResetError)
    wrapped = world.provider().with_options(retry=False, operation="upload").wrap(call)
    with pytest.raises(ConnectionResetError) as caught:
        await wrapped()
    assert (call.calls, failure_of(caught.value).operation) == (1, "upload")


async def test_nested_in_itself(world) -> None:
    """A wrapped function may call itself."""
    provider = world.provider()

    @provider.wrap
    async def count_down(number: int) -> int:
        return 0 if not number else 1 + await count_down(number - 1)

    assert await count_down(20) == 20
    assert provider.snapshot().in_flight == 0


async def test_concurrently(world) -> None:
    """A wrapped function holds no state between its calls."""
    wrapped, results = world.provider().wrap(fetch), []

    async def one(number: int) -> None:
        results.append(await wrapped(str(number)))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    assert sorted(results) == sorted(f"{number} in 3 s" for number in range(20))


async def test_what_cannot_be_called(world) -> None:
    """What cannot be called is refused where it is wrapped."""
    with pytest.raises(TypeError) as caught:
        world.provider().wrap("fetch")
    assert str(caught.value) == "wrap() takes an async function, not str"


async def test_a_synchronous_function(world) -> None:
    """A synchronous function is told from an asynchronous one when it is called."""
    wrapped = world.provider().wrap(lambda: 5)
    with pytest.raises(TypeError) as caught:
        await wrapped()
    assert "anyio.to_thread.run_sync" in str(caught.value)
