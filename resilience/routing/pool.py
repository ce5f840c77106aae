"""
Equals behind one call: several providers, keys or regions that can do the same.

Who is asked, in this order: members that nothing is said against, by weight or in the given order; members that are
left out for doing worse than the others; members whose circuit is open, which refuse by themselves; and, if nobody
could be asked, the one whose gate opens first, which is waited for.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast, final
from weakref import WeakSet

from resilience._core.router import Ejected, Outliers, Returned, Weights
from resilience._core.router import Ejection as Ejection
from resilience._core.states import CircuitState
from resilience._core.words import Verdict
from resilience.errors import ConfigurationError
from resilience.events import MemberEjected, MemberReturned
from resilience.failure import FailureKind
from resilience.outcome import Outcome
from resilience.provider import ResilientProvider
from resilience.routing.tried import On, Tried, rules_of, variant

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Order: TypeAlias = Literal["weighted", "ordered"]

# The provider is reachable and yet no use to us with this key: the circuit does not see it, the pool has to.
_NO_USE = frozenset({FailureKind.AUTHENTICATION_ERROR, FailureKind.PERMISSION_DENIED, FailureKind.QUOTA_EXHAUSTED})

_EJECTION = Ejection()


@final
@dataclass(frozen=True, slots=True)
class Member(Generic[R]):
    """
    One of a pool.

    Args:
        provider: Under whose policies it is called.
        resource: What the function gets first: a client, a key, a base URL.
        weight: Its share of the calls, beside the others' weights. Default: 1.
    """

    provider: ResilientProvider
    resource: R
    weight: float = 1.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSnapshot:
    """
    One look at a member of a pool.

    Args:
        member: Its provider's name.
        weight: Its share of the calls, beside the others' weights.
        chosen: How often it was asked.
        calls: Calls in this interval that count in the comparison.
        failed: Failed ones among them.
        ejected_for: For how many seconds more it is left out; 0 if it is not.
        state: Its circuit.
        gate_closed_for: In how many seconds its gate opens; 0 when it is open.
    """

    member: str
    weight: float
    chosen: int
    calls: int
    failed: int
    ejected_for: float
    state: CircuitState
    gate_closed_for: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """
    One look at a pool. JSON-ready through `dataclasses.asdict`.

    Args:
        order: ``"weighted"`` or ``"ordered"``.
        members: Each member.
    """

    order: Order
    members: tuple[MemberSnapshot, ...]


class _Seat(NamedTuple):
    """A member at its place, with the views through which it is asked."""

    place: int
    provider: ResilientProvider
    resource: Any
    weight: float
    alone: ResilientProvider
    """When nobody else is left: it may try again, though not wait at a gate."""
    quick: ResilientProvider
    """While others are left: one attempt, since the next try is better made elsewhere."""


_pools: WeakSet[ProviderPool[Any]] = WeakSet()


@final
class ProviderPool(Generic[R]):
    """
    Shares calls out among equals, and goes on with the next when one refuses or fails.

    ::

        pool = ProviderPool({ResilientProvider("openai-key-1"): client_1, ResilientProvider("openai-key-2"): client_2})
        reply = await pool.execute(ask, prompt)  # calls ask(client_1, prompt), or ask(client_2, prompt)

    A member is asked once; only the last one that is left makes all its attempts. Endpoints of one provider name share
    its gate and its retry budget, so keys with limits of their own are better named apart.

    Args:
        members: What each provider's calls are made with, or a list of `Member`.
        weights: Shares by the providers' names. Default: None, all the same.
        order: ``"weighted"``: by weight, evenly in time. ``"ordered"``: always the first that can be asked. Default:
            ``"weighted"``.
        max_members: How many are asked for one call at most; refusals do not count. Default: None, all.
        ejection: When a member is left out for doing worse than the others. None: never. Default: `Ejection()`.
        on: Which errors lead to the next, as in `FallbackChain.fallback_to`. Default: None, the usual ones.
        rng: Draws the jitter of ejections. Default: a fresh `random.Random`.

    Raises:
        ConfigurationError: There is no member, one is there twice, or a value makes no sense.
    """

    __slots__ = (
        "__weakref__",
        "_chosen",
        "_limit",
        "_lock",
        "_order",
        "_outliers",
        "_rng",
        "_rules",
        "_seats",
        "_weights",
    )

    def __init__(
        self,
        members: Mapping[ResilientProvider, R] | Iterable[Member[R]],
        *,
        weights: Mapping[str, float] | None = None,
        order: Order = "weighted",
        max_members: int | None = None,
        ejection: Ejection | None = _EJECTION,
        on: On = None,
        rng: random.Random | None = None,
    ) -> None:
        self._seats = tuple(_seat(place, member) for place, member in enumerate(_listed(members, weights or {})))
        _check(order, max_members, len(self._seats))
        try:
            self._weights = Weights(seat.weight for seat in self._seats)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"ProviderPool: {error}") from None
        self._order: Order = order
        self._limit = max_members if max_members is not None else len(self._seats)
        self._rules = rules_of(on)
        self._rng = rng if rng is not None else random.Random()
        self._outliers = Outliers(ejection, len(self._seats), self._now()) if ejection is not None else None
        self._chosen = [0] * len(self._seats)
        self._lock = threading.Lock()
        _pools.add(self)

    def _now(self) -> float:
        return self._seats[0].provider._current().clock()

    # -- calling ---------------------------------------------------------------------------------------------------

    async def execute(self, func: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Await ``func(resource, *args, **kwargs)`` through one member, and through others if need be.

        Raises:
            AllProvidersFailed: Several were asked and none answered; it tells what each one said.
            Exception: The error of the only one that was asked, or an error that is for nobody else.
        """
        outcome = await self.try_execute(func, *args, **kwargs)
        try:
            if outcome.error is not None:
                raise outcome.error
            return cast("T", outcome.value)
        finally:
            del outcome  # its error holds this frame

    async def try_execute(
        self, func: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[T]:
        """Like `execute`, but return how the call ended as a value."""
        tried, outcome, free = Tried(None), None, None
        try:
            left = list(self._seats)
            asked = 0
            while left and asked < self._limit and self._may_go_on(tried):
                seat, spare = self._choose(left)
                left.remove(seat)
                if tried.answers:
                    if not tried.last.pays_for(seat.provider):
                        continue
                    await tried.leave_for(seat.provider.name)
                handle = seat.quick if spare and asked + 1 < self._limit else seat.alone
                outcome = await handle.try_execute(func, seat.resource, *args, **kwargs)
                if self._learn(seat, outcome, tried):
                    return outcome
                asked += not outcome.rejected
            if (free := tried.soonest()) is not None and (asked < self._limit or not free.rejected):
                seat = self._seats[cast("int", free.place)]
                outcome = await seat.provider.try_execute(func, seat.resource, *args, **kwargs)
                if self._learn(seat, outcome, tried):
                    return outcome
            return Outcome(None, tried.result())
        finally:
            del tried, outcome, free  # their errors hold the frames below, and from 3.12 on those hold this one

    def _may_go_on(self, tried: Tried) -> bool:
        if not tried.answers:
            return True
        return tried.last.is_for(self._rules) and tried.last.repeatable and not tried.ends

    # -- choosing --------------------------------------------------------------------------------------------------

    def _choose(self, left: list[_Seat]) -> tuple[_Seat, bool]:
        """Return who of those that are *left* is asked next, and whether somebody as good would be left then."""
        now = self._now()
        with self._lock:
            changes = self._outliers.advance(now, self._rng) if self._outliers is not None else []
            ranks = [self._rank(seat, now) for seat in left]
            best = min(ranks)
            candidates = [seat.place for seat, rank in zip(left, ranks, strict=True) if rank == best]
            ordered = self._order == "ordered" or best > 0
            index = candidates[0] if ordered else self._weights.pick(candidates)
            self._chosen[index] += 1
        self._tell(changes)
        return self._seats[index], sum(rank < _REFUSES for rank in ranks) > 1

    def _rank(self, seat: _Seat, now: float) -> float:
        """How good a choice a member is: 0 the best, then those left out, the gated, and the open circuits."""
        runtime = seat.provider._current()
        if runtime.enabled:
            if runtime.breaker.state is not CircuitState.CLOSED and runtime.peek(now) is not None:
                return _REFUSES + 1
            if runtime.common.gate_left(now):
                return _REFUSES
        left_out = self._outliers is not None and self._outliers.until[seat.place] > -math.inf
        return 1 if left_out else 0

    # -- learning --------------------------------------------------------------------------------------------------

    def _learn(self, seat: _Seat, outcome: Outcome[Any], tried: Tried) -> bool:
        """Count what came of asking a member, and return whether it answered."""
        if outcome.ok:
            self._record(seat, ok=True)
            return True
        answer = tried.add(seat.place, seat.provider, outcome)
        if not answer.rejected and (answer.failure.verdict is not Verdict.IGNORED or answer.failure.kind in _NO_USE):
            bad = answer.failure.verdict is Verdict.FAILURE or answer.failure.kind in _NO_USE
            self._record(seat, ok=not bad)
        return False

    def _record(self, seat: _Seat, *, ok: bool) -> None:
        if self._outliers is not None:
            with self._lock:
                self._outliers.record(seat.place, ok=ok)

    def _tell(self, changes: list[Ejected | Returned]) -> None:
        for change in changes:
            runtime = self._seats[change.member].provider._current()
            name, time = runtime.name, runtime.wall_clock()
            if isinstance(change, Ejected):
                runtime.bus.emit(
                    MemberEjected(provider=name, time=time, member=name, seconds=change.seconds, figures=change.figures)
                )
            else:
                runtime.bus.emit(MemberReturned(provider=name, time=time, member=name))

    # -- looking ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> PoolSnapshot:
        """Return the figures as they are now."""
        now = self._now()
        with self._lock:
            return PoolSnapshot(order=self._order, members=tuple(self._look(seat, now) for seat in self._seats))

    def _look(self, seat: _Seat, now: float) -> MemberSnapshot:
        runtime, outliers, index = seat.provider._current(), self._outliers, seat.place
        return MemberSnapshot(
            member=seat.provider.name,
            weight=seat.weight,
            chosen=self._chosen[index],
            calls=outliers.calls[index] if outliers is not None else 0,
            failed=outliers.failed[index] if outliers is not None else 0,
            ejected_for=outliers.ejected_for(index, now) if outliers is not None else 0.0,
            state=runtime.breaker.state,
            gate_closed_for=runtime.common.gate_left(now),
        )

    def _start_anew(self) -> None:
        self._lock = threading.Lock()  # the parent's may have been held by a thread that does not exist here
        if self._outliers is not None:
            self._outliers.forget()

    def __len__(self) -> int:
        """Return how many members there are."""
        return len(self._seats)

    def __repr__(self) -> str:
        return f"<ProviderPool {self._order}: {', '.join(seat.provider.name for seat in self._seats)}>"


def _start_anew_after_fork() -> None:
    for pool in _pools:
        pool._start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew_after_fork)


_REFUSES = 2
"""From this rank on a member would not admit a call at once."""


def _listed(
    members: Mapping[ResilientProvider, R] | Iterable[Member[R]], weights: Mapping[str, float]
) -> list[Member[R]]:
    """Return *members* as a list, with their weights."""
    listed: list[Member[R]]
    if isinstance(members, Mapping):
        mapping = cast("Mapping[ResilientProvider, R]", members)
        listed = [Member(provider, resource) for provider, resource in mapping.items()]
    else:
        listed = list(members)
    for member in listed:
        if not isinstance(member, Member) or not isinstance(member.provider, ResilientProvider):
            raise ConfigurationError(
                f"ProviderPool: {member!r} is no member: expected {{ResilientProvider(...): client}} or Member(...)"
            )
    names = [member.provider.name for member in listed]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"ProviderPool: {name!r} is a member twice: give each a name or an endpoint")
    for name in weights:
        if name not in names:
            raise ConfigurationError(f"ProviderPool: weights name {name!r}, but the members are {', '.join(names)}")
    return [Member(one.provider, one.resource, weights.get(one.provider.name, one.weight)) for one in listed]


def _check(order: object, max_members: object, count: int) -> None:
    if not count:
        raise ConfigurationError("ProviderPool: expected at least one member")
    if order not in ("weighted", "ordered"):
        raise ConfigurationError(f"ProviderPool(order={order!r}): expected 'weighted' or 'ordered'")
    wrong = isinstance(max_members, bool) or not isinstance(max_members, int) or max_members < 1
    if max_members is not None and wrong:
        raise ConfigurationError(f"ProviderPool(max_members={max_members!r}): expected a whole number, at least 1")


def _seat(place: int, member: Member[Any]) -> _Seat:
    provider = member.provider
    return _Seat(
        place,
        provider,
        member.resource,
        member.weight,
        variant(provider, may_wait=False),
        variant(provider, may_wait=False, retry=False),
    )
