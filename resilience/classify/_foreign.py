"""Reading objects of unknown make, which may lie, raise, or not be what their names promise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast


def safely(thing: object, name: str) -> object:
    """Read an attribute of something foreign: a property that raises tells as little as none at all."""
    try:
        value: object = getattr(thing, name, None)
    except Exception:
        return None
    return value


def called(thing: object, name: str) -> object:
    """The result of a method that takes nothing, or None if there is none or it raises."""
    method = safely(thing, name)
    if not callable(method) or isinstance(thing, type):
        return None
    try:
        result: object = method()
    except Exception:
        return None
    return result


def mapping(value: object) -> Mapping[object, object]:
    """*value* if it is a mapping, else an empty one."""
    return cast("Mapping[object, object]", value) if isinstance(value, Mapping) else {}


def each(value: object) -> Iterable[object]:
    """The items of *value* if it has any."""
    return cast("Iterable[object]", value) if isinstance(value, Iterable) else ()


def is_bare(thing: object) -> bool:
    """Whether *thing* is one of Python's own exceptions to which nothing was added: it can hold no answer."""
    return type(thing).__module__ == "builtins" and not getattr(thing, "__dict__", None)


def members(error: BaseException) -> tuple[BaseException, ...]:
    """The errors in a group; none of a plain error."""
    return cast("BaseExceptionGroup[BaseException]", error).exceptions if isinstance(error, BaseExceptionGroup) else ()


def whole(value: object) -> int | None:
    """*value* if it is an integer, which `True` is not."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(error: BaseException) -> str:
    """The message of *error*, or nothing if it cannot even be printed."""
    try:
        return str(error)
    except Exception:
        return ""


def root_of(cls: type) -> str:
    """The top-level package that *cls* comes from."""
    module: object = cls.__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def name_of(thing: object) -> str:
    """The class of *thing* as people call it: ``"httpx.ConnectError"``, ``"ValueError"``."""
    cls = type(thing)
    root = root_of(cls)
    return cls.__name__ if root in {"", "builtins"} else f"{root}.{cls.__name__}"
