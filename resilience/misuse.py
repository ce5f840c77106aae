"""The likely slips in what people hand to `execute`, told in words that lead to the right call."""

from __future__ import annotations

import inspect

from resilience._core.words import UNSET


def explain_misuse(error: TypeError, func: object) -> None:
    """
    Raise a clearer error if *error* says that *func* is not what `execute` takes.

    Only an error that was raised by the call or the ``await`` itself is looked at, never one from inside *func*.
    """
    traceback = error.__traceback__
    if func is UNSET or traceback is None or traceback.tb_next is not None:
        return
    name = getattr(func, "__qualname__", None) or type(func).__name__
    if inspect.iscoroutine(func):
        func.close()
        raise TypeError(
            f"execute() takes a function and its arguments, not a coroutine: "
            f"write execute({name}, ...) instead of execute({name}(...))"
        ) from None
    if not callable(func):
        raise TypeError(f"execute() takes an async function and its arguments, not {type(func).__name__}") from None
    if "'await' expression" in str(error) or "can't be awaited" in str(error):  # from 3.14 on the latter
        raise TypeError(
            f"execute() awaits what {name} returns, and that cannot be awaited. If {name} is a synchronous function, "
            f"write execute(anyio.to_thread.run_sync, {name}, ...)"
        ) from None
