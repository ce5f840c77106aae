"""Identical calls made at the same time become one, and whatever happens to one caller happens to nobody else."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, ClassVar, Self

import anyio
import anyio.lowlevel
import httpx
import pydantic
import pytest

from resilience import CallTimeout, ConfigurationError, DeadlineExceeded, ProviderGated, Reason, ResilienceError
from resilience.errors import leave
from resilience.events import CallCoalesced, EventBus
from resilience.policies import _forks, coalesce
from resilience.policies._twins import SharedError
from resilience.policies.coalesce import Coalescer
from resilience.testing import EventRecorder, VirtualTimeLoop, cancelled_everywhere

pytestmark = pytest.mark.anyio


class Fetch:
    """What is called: it takes a second, and ends as it is told to."""

    def __init__(self, end: Callable[[int], object] = lambda number: f"answer {number}", seconds: float = 1.0) -> None:
        self.end = end
        self.seconds = seconds
        self.by: list[object] = []

    async def __call__(self, who: object = None) -> Any:
        self.by.append(who)
        number = len(self.by)
        await anyio.sleep(self.seconds)
        result = self.end(number)
        try:
            if isinstance(result, BaseException):
                raise result
            return result
        finally:
            del result  # it holds this frame

    @property
    def calls(self) -> int:
        return len(self.by)


def is_empty(coalescer: Coalescer) -> bool:
    """Whether no key, no waiter and no mark of a call is left."""
    figures = coalescer.snapshot()
    return (figures.keys, figures.followers, coalesce._leading.get()) == (0, 0, ())


async def outcomes(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    """Make the calls at the same time, the first first; return what each brought, errors as values."""
    ends: list[object] = [None] * len(calls)

    async def one(place: int, call: Callable[[], Awaitable[object]]) -> None:
        try:
            ends[place] = await call()
        except Exception as error:
            ends[place] = error

    async with anyio.create_task_group() as tasks:
        for place, call in enumerate(calls):
            tasks.start_soon(one, place, call)
            await anyio.wait_all_tasks_blocked()
    return ends


# -- sharing -----------------------------------------------------------------------------------------------------------


async def test_identical_calls_are_one() -> None:
    """Ten callers of one key share one execution and get the very same object."""
    coalescer, fetch = Coalescer(), Fetch(lambda _: ["answer"])
    ends = await outcomes(*[lambda: coalescer.call("k", fetch)] * 10)
    assert fetch.calls == 1
    assert ends[0] == ["answer"]
    assert all(end is ends[0] for end in ends)
    assert is_empty(coalescer)


async def test_different_keys_are_different_calls() -> None:
    """Nothing is shared between two keys."""
    coalescer, fetch = Coalescer(), Fetch()
    ends = await outcomes(*[lambda key=key: coalescer.call(key, fetch, key) for key in ("a", "b", ("a", 1))])
    assert fetch.by == ["a", "b", ("a", 1)]
    assert ends == ["answer 1", "answer 2", "answer 3"]


async def test_nothing_is_kept() -> None:
    """A coalescer is no cache: a call that comes after the end is made anew, and no key stays behind."""
    coalescer, fetch = Coalescer(), Fetch()
    for number in range(1, 4):
        assert await coalescer.call("k", fetch) == f"answer {number}"
        assert is_empty(coalescer)
    for key in range(100):
        await coalescer.call(key, Fetch(seconds=0))
    assert is_empty(coalescer)


async def test_arguments_reach_the_function() -> None:
    """Positional and keyword arguments go to the function, whatever their names."""

    async def function(*args: object, **kwargs: object) -> tuple[object, object]:
        return args, kwargs

    answer = await Coalescer().call("k", function, 1, 2, key=3, func=4, patience=5)
    assert answer == ((1, 2), {"key": 3, "func": 4, "patience": 5})


async def test_the_leader_runs_in_its_own_task() -> None:
    """No task is started for a call: the first caller's own makes it."""
    seen: list[int] = []

    async def fetch() -> None:
        seen.append(anyio.get_current_task().id)

    await Coalescer().call("k", fetch)
    assert seen == [anyio.get_current_task().id]


async def test_a_snapshot_tells_what_is_under_way() -> None:
    """Keys in flight, followers, and the running numbers; the text says the same."""
    coalescer = Coalescer("openai")
    seen: list[object] = []

    async def look() -> None:
        await anyio.wait_all_tasks_blocked()
        seen.append(coalescer.snapshot())
        seen.append(repr(coalescer))

    await outcomes(*[lambda: coalescer.call("a", Fetch())] * 3, *[lambda: coalescer.call("b", Fetch())] * 2, look)
    assert dataclasses.asdict(seen[0]) == {  # type: ignore[call-overload]
        "name": "openai",
        "keys": 2,
        "followers": 3,
        "coalesced": 3,
        "handed_over": 0,
    }
    assert seen[1] == "<Coalescer 'openai' 2 in flight, 3 following, 3 coalesced>"
    assert coalescer.snapshot().coalesced == 3


async def test_followers_are_told_of() -> None:
    """Each call that finds an identical one under way emits an event with its operation; the leader emits none."""
    heard, bus = EventRecorder(), EventBus()
    bus.subscribe(heard, CallCoalesced)
    coalescer, fetch = Coalescer("openai", bus=bus, wall_clock=lambda: 17.0), Fetch()
    await outcomes(*[lambda: coalescer.share("k", fetch, operation="models")] * 3)
    assert list(heard) == [CallCoalesced(provider="openai", operation="models", time=17.0)] * 2


# -- slips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [["a"], {"a": 1}, ("a", ["b"]), {1}])
async def test_an_unhashable_key_is_refused(key: Any) -> None:
    """The error names the type and says what to write instead."""
    with pytest.raises(TypeError, match=rf"has to be hashable, and this {type(key).__name__} is not.*a tuple of"):
        await Coalescer().call(key, Fetch())


async def test_none_is_no_key() -> None:
    """A missing id must not make all calls identical."""
    with pytest.raises(TypeError, match="is an id missing"):
        await Coalescer().call(None, Fetch())


async def test_swapped_arguments_are_refused() -> None:
    """The function first and the key second, or a coroutine in place of the function."""
    with pytest.raises(TypeError, match="were the key and the function swapped"):
        await Coalescer().call(Fetch(), "key")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not coroutine: pass the function and its arguments"):
        await Coalescer().call("key", Fetch()())  # type: ignore[arg-type]


async def test_a_coalescers_name_is_a_string() -> None:
    """A function or a key in its place is refused at once."""
    with pytest.raises(ConfigurationError, match="name is a string, not 5"):
        Coalescer(5)  # type: ignore[arg-type]


def test_outside_of_a_loop_it_says_so() -> None:
    """A call that is driven by hand has no loop to wait in."""
    call = Coalescer().call("k", Fetch())
    with pytest.raises(RuntimeError, match="asyncio or trio task"):
        call.send(None)


# -- a leader that goes away -------------------------------------------------------------------------------------------

WHO: ContextVar[str] = ContextVar("who")


async def test_a_cancelled_leader_hands_over() -> None:
    """The longest waiting follower makes its own call, in its own context, and everybody else gets its result."""
    coalescer, seen = Coalescer(), []
    ends: dict[str, object] = {}

    async def fetch(name: str) -> str:
        seen.append((name, WHO.get()))
        await anyio.sleep(1)
        return f"by {name}"

    async def caller(name: str, patience: float | None = None) -> None:
        WHO.set(f"context of {name}")
        with anyio.move_on_after(patience):
            ends[name] = await coalescer.call("k", fetch, name)

    async with anyio.create_task_group() as tasks:
        for name, patience in [("leader", 0.5), ("first", None), ("second", None), ("third", None)]:
            tasks.start_soon(caller, name, patience)
            await anyio.wait_all_tasks_blocked()
    assert seen == [("leader", "context of leader"), ("first", "context of first")]
    assert ends == dict.fromkeys(["first", "second", "third"], "by first")
    assert coalescer.snapshot().handed_over == 1
    assert is_empty(coalescer)


async def test_leaders_may_go_one_after_the_other() -> None:
    """However many leaders are cancelled, those who stay get a result."""
    coalescer, fetch = Coalescer(), Fetch()
    ends: list[object] = []

    async def caller(number: int) -> None:
        with anyio.move_on_after(0.5 * (number + 1)):
            await coalescer.call("k", fetch, number)
        if number == 9:
            ends.append(await coalescer.call("k", fetch, number))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(caller, number)
            await anyio.wait_all_tasks_blocked()
    assert fetch.by == [*range(10), 9]
    assert ends == ["answer 11"]
    assert is_empty(coalescer)


async def test_a_newcomer_joins_what_was_handed_over() -> None:
    """Between two leaders there is no gap in which a third call could start."""
    coalescer, fetch = Coalescer(), Fetch()
    ends: list[object] = []

    async def leave_then_join() -> None:
        with anyio.move_on_after(0.5):
            await coalescer.call("k", fetch, "leader")
        ends.append(await coalescer.call("k", fetch, "newcomer"))  # before the follower has run

    async def follow() -> None:
        ends.append(await coalescer.call("k", fetch, "follower"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave_then_join)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(follow)
    assert fetch.by == ["leader", "follower"]
    assert ends == ["answer 2", "answer 2"]


async def test_a_leaders_deadline_is_not_a_followers() -> None:
    """And a follower's own one interrupts nobody but itself."""
    coalescer, fetch = Coalescer(), Fetch(seconds=10)
    ends: dict[str, float] = {}

    async def caller(name: str, limit: float) -> None:
        with anyio.move_on_after(limit) as scope:
            await coalescer.call("k", fetch, name)
        ends[name] = anyio.current_time() - began
        assert scope.cancelled_caught is (name != "patient")

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for name, limit in [("leader", 3), ("hasty", 1), ("patient", 100)]:
            tasks.start_soon(caller, name, limit)
            await anyio.wait_all_tasks_blocked()
    assert fetch.by == ["leader", "patient"]
    assert ends == pytest.approx({"hasty": 1, "leader": 3, "patient": 13})


class Shutdown(BaseException):
    """Not an error of the call."""


async def test_an_exit_is_not_shared() -> None:
    """A `BaseException` that is no `Exception` is the leader's alone: a follower takes over."""
    coalescer = Coalescer()
    fetch = Fetch(lambda number: Shutdown() if number == 1 else "answer")
    left: list[str] = []

    async def lead() -> None:
        try:
            await coalescer.call("k", fetch)
        except Shutdown:
            left.append("leader")

    ends = await outcomes(lead, lambda: coalescer.call("k", fetch))
    assert (left, ends[1], fetch.calls) == (["leader"], "answer", 2)


# -- patience, and errors that speak of one caller ---------------------------------------------------------------------


async def test_a_followers_patience_ends() -> None:
    """With our own timeout, which names the limit; the call it waited for goes on."""
    coalescer, fetch = Coalescer("openai"), Fetch(seconds=10)
    ends = await outcomes(
        lambda: coalescer.share("k", fetch), lambda: coalescer.share("k", fetch, patience=2, operation="models")
    )
    assert ends[0] == "answer 1"
    assert isinstance(ends[1], CallTimeout)
    assert str(ends[1]) == "openai.models: call timed out after 2 s (limit 2 s)"
    assert fetch.calls == 1
    assert is_empty(coalescer)


async def test_a_patient_follower_gets_its_share() -> None:
    """Patience that suffices changes nothing."""
    coalescer, fetch = Coalescer(), Fetch(seconds=10)
    ends = await outcomes(*[lambda: coalescer.share("k", fetch, patience=11)] * 2)
    assert ends == ["answer 1"] * 2


@pytest.mark.parametrize("end", ["leaves", "answers"])
async def test_patience_that_ends_at_the_last_moment_loses_nothing(end: str) -> None:
    """The leader answers or goes in the very moment in which a follower gives up: others still get their result."""
    coalescer, fetch = Coalescer(), Fetch(seconds=2)

    async def lead() -> object:
        with anyio.move_on_after(2 if end == "leaves" else 5):
            return await coalescer.call("k", fetch)
        return "left"

    first, second, third = await outcomes(
        lead, lambda: coalescer.share("k", fetch, patience=2), lambda: coalescer.share("k", fetch)
    )
    assert first in ("left", "answer 1")
    assert isinstance(second, CallTimeout) or second in ("answer 1", "answer 2")
    assert third in ("answer 1", "answer 2")
    assert is_empty(coalescer)


@pytest.mark.parametrize(
    "error",
    [
        CallTimeout("openai", "", "total", 1.0, 1.0),
        DeadlineExceeded("openai", Reason.DEADLINE_WOULD_PASS, None, "it passed"),
        ProviderGated("openai", Reason.DEADLINE_WOULD_PASS, 9.0, ""),
    ],
)
async def test_an_error_of_the_leaders_own_is_not_shared(error: Exception) -> None:
    """What says that the leader's time was over goes to the leader; a follower makes the call."""
    coalescer = Coalescer("openai")
    fetch = Fetch(lambda number: error if number == 1 else "answer")
    ends = await outcomes(*[lambda: coalescer.share("k", fetch, is_own=coalescer.tells_of_deadline)] * 3)
    assert ends == [error, "answer", "answer"]
    assert fetch.calls == 2


@pytest.mark.parametrize(
    "error",
    [
        CallTimeout("openai", "", "attempt", 1.0, 1.0),
        CallTimeout("another", "", "total", 1.0, 1.0),
        DeadlineExceeded("another", Reason.DEADLINE_WOULD_PASS, None, "it passed"),
        ProviderGated("openai", Reason.PROVIDER_GATED, 9.0, ""),
        ConnectionResetError("reset"),
    ],
)
async def test_other_errors_are_everybodys(error: Exception) -> None:
    """A slow attempt, a closed gate, or another provider's trouble: one call is enough to know."""
    coalescer = Coalescer("openai")
    fetch = Fetch(lambda _: error)
    ends = await outcomes(*[lambda: coalescer.share("k", fetch, is_own=coalescer.tells_of_deadline)] * 3)
    assert [type(end) for end in ends] == [type(error)] * 3
    assert fetch.calls == 1


# -- a call inside itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["same task", "child task"])
async def test_a_call_inside_itself_does_not_wait_for_itself(way: str) -> None:
    """The inner call of a key that the code is part of is simply made."""
    coalescer, ends = Coalescer(), []

    async def inner() -> None:
        ends.append(await coalescer.call("k", Fetch(lambda _: "inner")))

    async def outer() -> str:
        if way == "same task":
            await inner()
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inner)
        return "outer"

    assert await coalescer.call("k", outer) == "outer"
    assert ends == ["inner"]
    assert is_empty(coalescer)


async def test_a_follower_inside_another_call_is_a_follower() -> None:
    """Only the calls one is part of are not waited for: other keys are, from within a call too."""
    coalescer, fetch = Coalescer(), Fetch()
    ends = await outcomes(
        lambda: coalescer.call("k", fetch), lambda: coalescer.call("other", coalescer.call, "k", fetch)
    )
    assert ends == ["answer 1", "answer 1"]
    assert fetch.calls == 1


# -- errors ------------------------------------------------------------------------------------------------------------


class Plain(Exception):
    """Copies as it is."""


class Formatted(Exception):
    """Its text is made from its argument, so copying by its ``args`` would make it a second time."""

    def __init__(self, code: int) -> None:
        super().__init__(f"failed with {code}")
        self.code = code


class KeywordsOnly(Exception):
    """As httpx and the LLM SDKs have them: it cannot be made from its ``args``."""

    def __init__(self, message: str, *, response: object) -> None:
        super().__init__(message)
        self.response = response


class Slotted(Exception):
    """Keeps its figures where no copy looks."""

    __slots__ = ("figure", "unset")

    def __init__(self, figure: int) -> None:
        super().__init__()
        self.figure = figure

    def __str__(self) -> str:
        return f"figure {self.figure}"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Refuses every attribute."""

    code: int = 0


class Itself(Exception):
    """Copies as itself, and can be made by nobody."""

    def __copy__(self) -> Itself:
        return self


class Unmakeable(Exception):
    """Can neither be copied nor made by whoever does not know how."""

    def __new__(cls, *args: object) -> Self:
        raise RuntimeError("not like this")

    @staticmethod
    def made() -> Unmakeable:
        return Exception.__new__(Unmakeable)


class Array:
    """Compares like numpy's arrays: not to a truth value."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Figures(Exception):
    """Copies what it holds, too."""

    def __init__(self, array: object) -> None:
        super().__init__(array)
        self.array = array

    def __reduce__(self) -> Any:
        return type(self), (Array(),)


class Forgetful(Exception):
    """Pickles by its arguments alone, and loses what was hung on it."""

    def __reduce__(self) -> Any:
        return type(self), self.args


class Disguised(Exception):
    """Copies as something else."""

    def __reduce__(self) -> Any:
        return Plain, self.args


class Registered(Exception):
    """Only a function of its own can make it, and copying knows that function."""

    def __new__(cls, *args: object, through: object = None) -> Self:
        if through is not Registered.make:
            raise RuntimeError("not like this")
        return super().__new__(cls, *args)

    def __init__(self, *args: object, through: object = None) -> None:
        super().__init__(*args)

    @staticmethod
    def make(*args: object) -> Registered:
        return Registered(*args, through=Registered.make)

    def __reduce__(self) -> Any:
        return Registered.make, self.args


class Doubled(Exception):
    """Looks the same when it is not."""

    def __init__(self, figure: int) -> None:
        super().__init__(2 * figure)

    def __str__(self) -> str:
        return "doubled"


class Hidden(Exception):
    """Keeps its text where nobody can copy it from."""

    texts: ClassVar[dict[int, str]] = {}

    @staticmethod
    def made() -> Hidden:
        error = Hidden()
        Hidden.texts[id(error)] = "hidden"
        return error

    def __str__(self) -> str:
        return self.texts.get(id(self), "lost")


def forgetful() -> Exception:
    error = Forgetful("text")
    error.request_id = "r-1"  # type: ignore[attr-defined]
    return error


def http_error() -> Exception:
    request = httpx.Request("GET", "http://s3.test")
    return httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))


COPIED = [
    lambda: Plain("text", 1),
    lambda: Formatted(5),
    lambda: KeywordsOnly("bad", response={"status": 500}),
    lambda: Slotted(7),
    lambda: Frozen(code=3),
    lambda: Itself("itself"),
    lambda: Figures(Array()),
    forgetful,
    lambda: Registered.make("text"),
    lambda: Doubled(5),
    lambda: Disguised("text"),
    http_error,
    lambda: OSError(2, "No such file", "name"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    lambda: AttributeError("no", name="x", obj=5),
    lambda: CallTimeout("s3", "get", "attempt", 1.0, 2.0),
    lambda: KeyError("k"),
]


@pytest.mark.parametrize("make", COPIED)
async def test_each_sharer_gets_an_error_of_its_own(make: Callable[[], Exception]) -> None:
    """Of the same class, with the same arguments, attributes and text; only the leader gets the original."""
    original = make()
    leave(original, "__notes__", ["a note"])
    coalescer, fetch = Coalescer(), Fetch(lambda _: original)
    ends: list[Any] = await outcomes(*[lambda: coalescer.call("k", fetch)] * 4)
    assert ends[0] is original
    assert len({id(end) for end in ends}) == 4
    for end in ends[1:]:
        assert type(end) is type(original)
        assert str(end) == str(original)
        assert all(one is other for one, other in zip(end.args, original.args, strict=True))
        assert {**vars(end), "__notes__": 0} == {**vars(original), "__notes__": 0}
        assert end.__notes__[0] == "a note"
        assert end.__notes__[1:] == ["resilience: coalescer: raised by an identical call that was under way"]
    assert original.__notes__ == ["a note"]


async def test_a_note_on_one_error_is_on_no_other() -> None:
    """Each sharer's notes are its own, too."""
    error = Plain("text")
    error.add_note("a note")
    shared = SharedError(error, "s3")
    one, other = shared.another(), shared.another()
    one.add_note("mine")
    assert len(one.__notes__) == 3
    assert len(other.__notes__) == 2
    assert error.__notes__ == ["a note"]


@pytest.mark.parametrize(
    "name, make",
    [
        ("figure", lambda: Slotted(7)),
        ("errno", lambda: OSError(2, "no")),
        ("name", lambda: AttributeError("no", name="x")),
    ],
)
async def test_what_an_error_keeps_outside_its_dict_is_there(name: str, make: Callable[[], Exception]) -> None:
    """Slots, and the fields of built-in errors."""
    shared = SharedError(original := make(), "s3").another()
    assert getattr(shared, name) == getattr(original, name)


def invalid() -> Exception:
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("make", [Unmakeable.made, Hidden.made, invalid])
async def test_an_error_that_cannot_be_copied_is_wrapped(make: Callable[[], Exception]) -> None:
    """Each sharer gets an error of ours that names its class and is chained to it."""
    original = make()
    coalescer, fetch = Coalescer("s3"), Fetch(lambda _: original)
    ends: list[Any] = await outcomes(*[lambda: coalescer.call("k", fetch)] * 3)
    assert ends[0] is original
    assert ends[1] is not ends[2]
    for end in ends[1:]:
        assert type(end) is ResilienceError
        assert str(end) == f"s3: an identical call failed with {type(original).__name__}, which cannot be copied"
        assert end.__cause__ is original


def test_an_error_that_copies_only_once_is_wrapped() -> None:
    """What looked copyable and is not any more ends in a wrapper, and not in the copier's error."""
    error = Plain("once")
    shared = SharedError(error, "s3")
    template: Any = shared._template
    template.__class__ = type("Moody", (Plain,), {"__new__": None, "__copy__": None})
    wrapper = shared.another()
    assert type(wrapper) is ResilienceError
    assert wrapper.__cause__ is template


def chained() -> Exception:
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise ConnectionResetError("cause")  # noqa: B904 - its context is what is meant
    except ConnectionResetError as cause:
        error = Plain("text")
        error.__cause__ = cause
        return error


async def test_causes_and_contexts_come_along() -> None:
    """As likenesses without tracebacks: they tell what happened, and hold nobody's frames."""
    error = chained()
    shared = SharedError(error, "s3").another()
    cause = shared.__cause__
    assert isinstance(cause, ConnectionResetError)
    assert cause is not error.__cause__
    assert isinstance(cause.__context__, KeyError)
    assert shared.__suppress_context__
    links = [shared, cause, cause.__context__]
    assert [link.__traceback__ for link in links] == [None] * 3


async def test_a_group_of_errors_comes_along_whole() -> None:
    """With likenesses of its members, which hold no frames either."""
    members = []
    for text in "ab":
        try:
            raise ValueError(text)
        except ValueError as error:
            members.append(error)
    group = ExceptionGroup("both", [*members, ExceptionGroup("inner", [members[0]])])
    for member in members:
        member.__cause__ = group  # leads back, on every way
    shared = SharedError(group, "s3").another()
    assert isinstance(shared, ExceptionGroup)
    assert str(shared) == str(group)
    first, second, inner = shared.exceptions
    assert [str(first), str(second), str(inner)] == ["a", "b", "inner (1 sub-exception)"]
    assert inner.exceptions == (first,)  # type: ignore[union-attr]
    assert all(one.__traceback__ is None for one in (first, second, inner))
    assert first is not members[0]


def test_an_endless_chain_is_cut() -> None:
    """Hundreds of errors behind each other are not worth a recursion of hundreds of frames."""
    error = Plain("0")
    for number in range(1, 500):
        error, before = Plain(str(number)), error
        error.__cause__ = before
    length, link = 0, SharedError(error, "s3").another().__cause__
    while link is not None:
        length, link = length + 1, link.__cause__
    assert length == 20


def frames(error: BaseException) -> int:
    length, traceback = 0, error.__traceback__
    while traceback is not None:
        length, traceback = length + 1, traceback.tb_next
    return length


async def test_a_stored_error_does_not_grow_by_its_followers() -> None:
    """A function that raises one stored object is shared by many, and collects no more than its leader's frames."""
    stored = ConnectionError("lost")
    coalescer, fetch = Coalescer(), Fetch(lambda _: stored)
    lengths = []
    for followers in (0, 1, 50):
        stored.__traceback__ = None
        await outcomes(*[lambda: coalescer.call("k", fetch)] * (1 + followers))
        lengths.append(frames(stored))
    assert lengths[0] == lengths[1] == lengths[2]
    assert getattr(stored, "__notes__", []) == []


class Load:
    """Something big in a frame of the leader's function."""


async def test_a_followers_error_keeps_nothing_of_the_leader() -> None:
    """Whoever keeps a shared error does not keep the leader's frames with it."""
    loads: list[weakref.ref[Load]] = []
    kept: list[Exception] = []
    coalescer = Coalescer()

    async def fetch() -> None:
        load = Load()
        loads.append(weakref.ref(load))
        await anyio.sleep(1)
        try:
            raise ConnectionResetError("inner")
        except ConnectionResetError as error:
            raise Plain("outer") from error

    async def lead() -> None:
        with suppress(Plain):
            await coalescer.call("k", fetch)

    async def follow() -> None:
        try:
            await coalescer.call("k", fetch)
        except Plain as error:
            kept.append(error)

    await outcomes(lead, follow, follow)
    assert len(kept) == 2
    gc.collect()
    assert [load() for load in loads] == [None]


def test_no_garbage_is_left(garbage_of: Any) -> None:
    """However calls end, their frames and errors are freed at once: no cycle keeps them."""

    async def way() -> None:
        coalescer = Coalescer()

        async def call(fetch: Fetch, patience: float) -> None:
            with suppress(Plain, CallTimeout):
                await coalescer.share("k", fetch, patience=patience)

        for fetch, patience in [(Fetch(), 9.0), (Fetch(lambda _: Plain("no")), 9.0), (Fetch(), 0.5)]:
            tasks = [asyncio.create_task(call(fetch, patience)) for _ in range(3)]
            await asyncio.wait(tasks)
        tasks = [asyncio.create_task(call(Fetch(), 9.0)) for _ in range(3)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        await asyncio.wait(tasks)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(garbage_of(way)) == []


# -- loops, threads, forks ---------------------------------------------------------------------------------------------


def test_two_loops_never_share() -> None:
    """The same key in another loop is another call: nobody waits for a loop that may stand still."""
    coalescer = Coalescer()
    one, other = VirtualTimeLoop(), VirtualTimeLoop()
    try:
        leader = one.create_task(coalescer.call("k", Fetch(lambda _: "one", seconds=5)))
        one.run_until_complete(asyncio.sleep(1))
        assert other.run_until_complete(coalescer.call("k", Fetch(lambda _: "other"))) == "other"
        assert coalescer.snapshot().keys == 1
        assert one.run_until_complete(leader) == "one"
    finally:
        one.close()
        other.close()
    assert is_empty(coalescer)


def by_hand(coalescer: Coalescer) -> Coroutine[Any, Any, object]:
    """A call that waits for ever, driven by hand and in a context of its own, so that it can be closed anywhere."""
    coroutine = coalescer.call("k", anyio.Event().wait)
    copy_context().run(coroutine.send, None)
    return coroutine


@pytest.mark.real_time
async def test_a_leader_that_is_closed_in_another_thread_hands_over() -> None:
    """The collector closes an abandoned coroutine wherever it runs: the follower is woken in its own loop."""
    coalescer = Coalescer()
    leader = by_hand(coalescer)
    ends = []

    async def follow() -> None:
        ends.append(await coalescer.call("k", Fetch(seconds=0)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(leader.close)
    assert ends == ["answer 1"]
    assert is_empty(coalescer)


def test_a_leader_that_is_closed_in_another_loop_hands_over() -> None:
    """The collector runs wherever memory is asked for, also while another loop is running in this thread."""
    coalescer = Coalescer()
    one, other = VirtualTimeLoop(), VirtualTimeLoop()

    async def begin() -> tuple[Coroutine[Any, Any, object], asyncio.Task[object]]:
        leader = by_hand(coalescer)
        follower = asyncio.create_task(coalescer.call("k", Fetch()))
        await anyio.wait_all_tasks_blocked()
        return leader, follower

    async def collect(leader: Coroutine[Any, Any, object]) -> None:
        leader.close()

    try:
        leader, follower = one.run_until_complete(begin())
        other.run_until_complete(collect(leader))
        assert one.run_until_complete(follower) == "answer 1"
    finally:
        one.close()
        other.close()
    assert is_empty(coalescer)


@pytest.mark.real_time
async def test_a_leader_that_is_closed_outside_of_any_task_hands_over() -> None:
    """As a callback of the loop would do it."""
    coalescer = Coalescer()
    leader = by_hand(coalescer)
    ends = []

    async def follow() -> None:
        ends.append(await coalescer.call("k", Fetch(seconds=0)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        if loop := asyncio._get_running_loop():
            loop.call_soon(leader.close)
        else:
            import trio

            trio.lowlevel.current_trio_token().run_sync_soon(leader.close)
    assert ends == ["answer 1"]


def test_a_loop_that_ended_in_the_middle_leaves_nothing() -> None:
    """A leader and a follower that nobody finished are closed by the collector: their key goes with them."""
    coalescer = Coalescer()
    loop = VirtualTimeLoop()

    async def main() -> list[Coroutine[Any, Any, Any]]:
        return [by_hand(coalescer), by_hand(coalescer)]

    leader, follower = loop.run_until_complete(main())
    loop.close()
    assert (coalescer.snapshot().keys, coalescer.snapshot().followers) == (1, 1)
    leader.close()
    assert is_empty(coalescer)
    follower.close()
    assert is_empty(coalescer)


def test_a_forked_child_starts_anew() -> None:
    """What was under way in the parent does not exist in the child; a call that ends later disturbs nothing."""
    coalescer = Coalescer()
    loop = VirtualTimeLoop()
    leader = loop.create_task(coalescer.call("k", Fetch()))
    loop.run_until_complete(asyncio.sleep(0.5))
    _forks.start_anew()
    assert is_empty(coalescer)
    second = loop.create_task(coalescer.call("k", Fetch(lambda _: "anew", seconds=3)))
    assert loop.run_until_complete(leader) == "answer 1"
    assert coalescer.snapshot().keys == 1
    assert loop.run_until_complete(second) == "anew"
    loop.close()


# -- cancellation at every point ---------------------------------------------------------------------------------------


async def work() -> str:
    await anyio.lowlevel.checkpoint()
    await anyio.sleep(1)
    await anyio.lowlevel.checkpoint()
    return "done"


@pytest.mark.parametrize("patience", [float("inf"), 60.0])
@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_caller_ended_anywhere_harms_nobody(victim: int, earlier: int, patience: float) -> None:
    """Three callers of one key; one of them is ended at each of its points, also where it has just taken over."""
    for ending in cancelled_everywhere("scope", "task", "close"):
        coalescer = Coalescer()
        results: list[object] = []

        async def suffer(coalescer: Any = coalescer, ending: Any = ending) -> None:
            await ending(lambda: coalescer.share("k", work, patience=patience))

        async def live(coalescer: Any = coalescer, results: Any = results) -> None:
            results.append(await coalescer.share("k", work, patience=patience))

        async with anyio.create_task_group() as tasks:
            for _ in range(earlier):  # somebody leads, and goes: then the next one has taken over
                tasks.start_soon(lead_for_a_while, coalescer)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            for place in range(3):
                tasks.start_soon(suffer if place == victim else live)
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
        assert results == ["done", "done"], ending
        assert is_empty(coalescer), ending


async def lead_for_a_while(coalescer: Coalescer) -> None:
    with anyio.move_on_after(0.25):
        await coalescer.share("k", work)


@pytest.mark.parametrize("hit", [1, 2, 3])
async def test_a_woken_follower_that_is_cancelled_hands_its_turn_on(hit: int, anyio_backend: Any) -> None:
    """The leader and the next in line are cancelled in the same moment: the one after them takes over."""
    coalescer, results = Coalescer(), []
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def caller(scope: anyio.CancelScope) -> None:
        with scope:
            results.append(await coalescer.call("k", work))

    async with anyio.create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(caller, scope)
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.5)
        for scope in scopes[:hit]:
            scope.cancel()
    assert results == ["done"] * (4 - hit)
    assert is_empty(coalescer)


def test_a_woken_follower_whose_task_is_cancelled_hands_its_turn_on() -> None:
    """On asyncio a cancellation can overtake the wake-up that is on its way already."""
    coalescer = Coalescer()

    async def main() -> list[object]:
        tasks = [asyncio.create_task(coalescer.call("k", work)) for _ in range(4)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert coalescer.snapshot().handed_over == 1
        assert tasks[1].cancel()  # woken, and has not run yet
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False, False]
        return [task.result() for task in tasks[2:]]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == ["done", "done"]
    assert coalescer.snapshot().handed_over == 2
    assert is_empty(coalescer)


def test_errors_still_copy_by_themselves() -> None:
    """The classes these tests share do what they claim: some copy, some copy wrongly, some not at all."""
    assert copy.copy(Formatted(5)).args != Formatted(5).args
    with pytest.raises(TypeError):
        copy.copy(KeywordsOnly("bad", response=1))
    with pytest.raises(RuntimeError):
        copy.copy(Unmakeable.made())
