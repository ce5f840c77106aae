"""
Our own errors, for those who know httpx only.

A client's user catches ``httpx.TransportError``, and an SDK makes its own ``APIConnectionError`` of it. So what we
raise is both: the `CircuitOpen` that it always was, and a transport's error of the library whose client called.
"""

from __future__ import annotations

from typing import Any, Final, cast

from providers.http._library import Library
from resilience import ResilienceError


def as_transport_error(error: ResilienceError, library: Library) -> ResilienceError:
    """
    Return *error* as an error that is also one of the library's: a timeout if it is one, else a transport error.

    All that was left on it goes with it: notes, failure, cause and traceback.
    """
    theirs = library.timeout if isinstance(error, TimeoutError) else library.transport_error
    if isinstance(error, theirs):
        return error
    kinds = (type(error), theirs)
    both = (_made.get(kinds) or _made.setdefault(kinds, _both(*kinds)))(*error.args)
    vars(both).update(vars(error))
    both.__cause__ = error.__cause__
    return both.with_traceback(error.__traceback__)


_made: Final[dict[tuple[type[ResilienceError], type[Exception]], type[ResilienceError]]] = {}


def _both(ours: type[ResilienceError], theirs: type[Exception]) -> type[ResilienceError]:
    def __init__(self: Any, *facts: object) -> None:  # noqa: N807
        Exception.__init__(self)  # neither OSError's nor the library's: they take other arguments
        self.args = facts
        self._request = None  # the library's clients fill it in

    def __reduce__(self: ResilienceError) -> tuple[object, ...]:  # noqa: N807
        state = {**vars(self)}
        state.pop("_request", None)
        return ours, self.args, state  # what is sent elsewhere is what everybody can import

    body = {
        "__doc__": ours.__doc__,
        "__module__": ours.__module__,
        "__qualname__": ours.__qualname__,
        "__init__": __init__,
        "__reduce__": __reduce__,
    }
    return cast("type[ResilienceError]", type(ours.__name__, (ours, theirs), body))
