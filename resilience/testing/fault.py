"""One thing that can go wrong with a call, and the error that shows it."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from resilience._core.words import UNSET, Unset

MakeError: TypeAlias = Callable[[], BaseException]
"""Makes an error: most often its class."""


class FaultKind(StrEnum):
    """
    What can happen to a call.

    ==================  ===================================================  ======================================
    kind                a function's caller sees                             an httpx client's user sees
    ==================  ===================================================  ======================================
    ``ok``              nothing                                              nothing
    ``latency``         a call that takes longer                             `ReadTimeout`, if it takes too long
    ``error``           `ConnectionResetError`, or one of your own           `ReadError`, or one of your own
    ``timeout``         `TimeoutError` at once                               `ReadTimeout` at once
    ``server_error``    `InjectedStatus` with ``status_code`` 500            a response with status 500
    ``rate_limit``      `InjectedStatus` with 429 and ``Retry-After``        a response with 429, ``Retry-After``
    ``hang``            a call that never ends                               `ReadTimeout`, after the read time-out
    ``partition``       `TimeoutError`, when the patience is at its end      `ConnectTimeout`, after its time-out
    ``exhausted_pool``  httpx's `PoolTimeout`, likewise                      `PoolTimeout`, after its time-out
    ``lost_answer``     a `ConnectionResetError` after the call took effect  `ReadError`, likewise
    ``cut``             `ConnectionResetError` after some items of a stream  `RemoteProtocolError` after some chunks
    ``stall``           a pause after some items of a stream                 `ReadTimeout`, if it takes too long
    ==================  ===================================================  ======================================
    """

    OK = "ok"
    LATENCY = "latency"
    ERROR = "error"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    RATE_LIMIT = "rate_limit"
    HANG = "hang"
    PARTITION = "partition"
    EXHAUSTED_POOL = "exhausted_pool"
    LOST_ANSWER = "lost_answer"
    CUT = "cut"
    STALL = "stall"


_STATUSES: Final = {FaultKind.SERVER_ERROR: 500, FaultKind.RATE_LIMIT: 429}
_STREAMS: Final = (FaultKind.CUT, FaultKind.STALL)
_WAITING: Final = (FaultKind.PARTITION, FaultKind.EXHAUSTED_POOL)
_MEANT_FOR: Final = {
    "error": (FaultKind.ERROR, FaultKind.CUT, FaultKind.LOST_ANSWER),
    "status": tuple(_STATUSES),
    "retry_after": tuple(_STATUSES),
    "after": _STREAMS,
    "seconds": (*_WAITING, FaultKind.STALL),
}
_PATIENCE: Final = 5.0
_STATUS_RANGE: Final = range(400, 600)


class InjectedStatus(Exception):
    """
    An answer with a bad status, as SDKs raise it. Only `Faults` raise it.

    Attributes:
        status_code: The status.
        headers: The answer's headers.
    """

    status_code: int
    headers: dict[str, str]

    def __init__(self, message: str, status_code: int, headers: dict[str, str]) -> None:
        super().__init__(message, status_code, headers)
        self.status_code = status_code
        self.headers = headers

    def __str__(self) -> str:
        return f"status {self.status_code}: {self.args[0]}"


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that goes wrong, in detail: a step of a script.

    Args:
        kind: What: a `FaultKind`, or its word.
        latency: By how many seconds the call is held up before anything else happens to it.
        error: For ``error``, ``lost_answer`` and ``cut``: what to raise, as an exception or as what makes one. Default:
            that the connection was reset.
        status: For ``server_error`` and ``rate_limit``. Default: 500 and 429.
        retry_after: For the same: how long the answer tells the caller to stay away, in seconds. None: it does not.
            Default: 1 for ``rate_limit``, None for ``server_error``.
        after: For ``cut`` and ``stall``: after how many items. Default: 1.
        seconds: For ``stall``: for how long, by default for ever. For ``partition`` and ``exhausted_pool``: until the
            client gives up, by default 5.

    Raises:
        ValueError: There is no such kind, a figure makes no sense, or it means nothing to this kind.
        TypeError: *error* is neither an exception nor callable.
    """

    kind: FaultKind
    _: KW_ONLY
    latency: float = 0.0
    error: BaseException | MakeError | None = None
    status: int | None = None
    retry_after: float | Unset | None = UNSET
    after: int | None = None
    seconds: float | None = None

    if TYPE_CHECKING:  # what the generated one takes: a word becomes the kind that it names

        def __init__(
            self,
            kind: FaultKind | str,
            *,
            latency: float = 0.0,
            error: BaseException | MakeError | None = None,
            status: int | None = None,
            retry_after: float | Unset | None = UNSET,
            after: int | None = None,
            seconds: float | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", kind_of(self.kind))
        for name, kinds in _MEANT_FOR.items():
            if getattr(self, name) not in (None, UNSET) and self.kind not in kinds:
                meant = " and ".join(repr(kind.value) for kind in kinds)
                given = f"{name}={getattr(self, name)!r}"
                raise ValueError(f"{given} means nothing to {self.kind.value!r}: it is for {meant}")
        check_seconds("latency", self.latency, finite=True)
        check_seconds("seconds", self.seconds)
        check_seconds("retry_after", self.hint, finite=True)
        check_items("after", self.after)
        if self.status is not None and self.status not in _STATUS_RANGE:
            raise ValueError(f"status={self.status!r} is no status of an error: expected 400 to 599")
        if not (self.error is None or isinstance(self.error, BaseException) or callable(self.error)):
            raise TypeError(f"error={self.error!r}: expected an exception, its class, or a function that makes one")

    # -- what it comes to ------------------------------------------------------------------------------------------

    @property
    def of_streams(self) -> bool:
        """Whether it waits for a stream to happen to."""
        return self.kind in _STREAMS

    @property
    def items(self) -> int:
        """How many items of a stream come before it strikes."""
        return 1 if self.after is None else self.after

    @property
    def lasts(self) -> float:
        """How many seconds it takes until it is over."""
        if self.seconds is not None:
            return self.seconds
        return _PATIENCE if self.kind in _WAITING else math.inf

    @property
    def answer(self) -> tuple[int, dict[str, str]] | None:
        """Status and headers of the answer that it is, or None."""
        if self.kind not in _STATUSES:
            return None
        return self.status or _STATUSES[self.kind], hint_headers(self.hint)

    @property
    def hint(self) -> float | None:
        """For how many seconds the answer tells the caller to stay away."""
        if isinstance(self.retry_after, Unset):
            return 1.0 if self.kind is FaultKind.RATE_LIMIT else None
        return self.retry_after

    def made(self, default: MakeError) -> BaseException:
        """Return the error to raise: the one that was asked for, or *default*'s."""
        return self.error if isinstance(self.error, BaseException) else (self.error or default)()


def kind_of(word: object) -> FaultKind:
    """
    Return the kind of fault that *word* names.

    Raises:
        ValueError: None has this name.
    """
    try:
        return FaultKind(word)  # type: ignore[arg-type]  # whatever it is: the enum tells
    except ValueError:
        known = [kind.value for kind in FaultKind]
        near = get_close_matches(str(word), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise ValueError(f"{word!r} is no kind of fault: {hint}") from None


def check_seconds(name: str, seconds: Any, *, finite: bool = False) -> None:
    """
    Check a number of seconds, or None.

    Raises:
        ValueError: It is something else.
    """
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds >= 0):
        raise ValueError(f"{name}={seconds!r}: expected a number of seconds, 0 or more")
    if finite and seconds == math.inf:
        raise ValueError(f"{name}={seconds!r}: expected an end; what has none is a 'hang', or a 'stall'")


def check_items(name: str, count: Any) -> None:
    """
    Check a number of items, or None.

    Raises:
        ValueError: It is something else.
    """
    if count is not None and not (isinstance(count, int) and count >= 0):
        raise ValueError(f"{name}={count!r}: expected a number of items, 0 or more")


def hint_headers(retry_after: float | None) -> dict[str, str]:
    """Return the headers that tell a caller for how many seconds to stay away: whole ones, and to the millisecond."""
    if retry_after is None:
        return {}
    return {"retry-after": str(math.ceil(retry_after)), "retry-after-ms": str(math.ceil(retry_after * 1000))}


def system_error(number: int, text: str, call: int) -> OSError:
    """Return the error of the operating system, as Python raises it, with a word on where it comes from."""
    return OSError(number, f"{text} (injected into call {call})")  # Python picks the subclass by the number


def error_for(fault: Fault, call: int) -> BaseException:
    """Return the error that a function's caller gets to see."""
    if fault.answer is not None:
        return InjectedStatus(f"injected into call {call}", *fault.answer)
    if fault.kind in (FaultKind.TIMEOUT, FaultKind.PARTITION):
        return system_error(errno.ETIMEDOUT, "Connection timed out", call)
    if fault.kind is FaultKind.EXHAUSTED_POOL:
        from httpx import PoolTimeout  # what classification knows best; only those who ask for it load it

        return PoolTimeout(f"no connection is free (injected into call {call})")
    return fault.made(lambda: system_error(errno.ECONNRESET, "Connection reset by peer", call))
