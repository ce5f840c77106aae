"""
One error for many: each of those who share an error raises an object of their own.

An exception that is raised in several places collects all their tracebacks, and with them their frames. So whoever
shares one gets a likeness: same class, same arguments and attributes, same notes, likenesses of its cause and context,
and none of the frames of whoever raised it first.

==========================================  ==========================================================================
the error                                   what a sharer raises
==========================================  ==========================================================================
copies faithfully (`copy.copy`)             the copy
does not, but can be filled in by hand      the same class, made without its ``__init__`` and given what it had
neither                                     a `ResilienceError` whose cause is the error itself
==========================================  ==========================================================================

"Faithfully" is checked, not believed: class, arguments, attributes and text have to be the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from types import MemberDescriptorType
from typing import Any, TypeVar, cast, final

from resilience._core.words import UNSET
from resilience.errors import ResilienceError, leave

_E = TypeVar("_E", bound=BaseException)

_DEEPEST = 20
"""How far a chain of causes and contexts is followed."""

_NOTES = "__notes__"


@final
class SharedError:
    """
    An error that several callers are about to raise.

    Args:
        error: What one of them raised.
        name: What they called; it stands in the note that tells where the traceback is.
    """

    __slots__ = ("_error", "_name", "_template")

    def __init__(self, error: Exception, name: str) -> None:
        self._name = name
        # Made at once: whoever raised the error goes on to change it on its way out.
        self._template = _deep_twin(error, {}, 0)
        self._error = error if self._template is None else None  # kept only where nothing else can stand for it
        if self._template is not None:
            told = f"resilience: {name}: raised by an identical call that was under way"
            leave(self._template, _NOTES, [*(_notes(self._template) or ()), told])

    def another(self) -> Exception:
        """Return a new exception that stands for the error."""
        template = self._template
        if template is not None and (twin := _twin(template)) is not None:
            _chain(twin, template.__cause__, template.__context__, suppress=template.__suppress_context__)
            return twin
        original = self._error if self._error is not None else template
        what = type(original).__name__
        wrapper = ResilienceError(f"{self._name}: an identical call failed with {what}, which cannot be copied")
        wrapper.__cause__ = original
        return wrapper


def _deep_twin(error: _E, made: dict[int, BaseException], depth: int) -> _E | None:
    """Return a likeness of *error* whose cause, context and members are likenesses too, or None."""
    made[id(error)] = error  # until there is a likeness: what leads back to it must not lead on for ever
    twin = _twin(error, _args_of_group(error, made, depth + 1))
    if twin is not None:
        made[id(error)] = twin
        cause, context = (_link(linked, made, depth + 1) for linked in (error.__cause__, error.__context__))
        _chain(twin, cause, context, suppress=error.__suppress_context__)
    return twin


def _args_of_group(error: object, made: dict[int, BaseException], depth: int) -> tuple[object, ...] | None:
    """Return what a likeness of a group is made from; None if *error* is no group."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    group = cast("BaseExceptionGroup[BaseException]", error)
    return group.message, [_stand_in(one, made, depth) for one in group.exceptions]


def _link(error: BaseException | None, made: dict[int, BaseException], depth: int) -> BaseException | None:
    """Return what stands for a cause or a context; very long chains are cut."""
    return _stand_in(error, made, depth) if error is not None and depth <= _DEEPEST else None


def _stand_in(error: BaseException, made: dict[int, BaseException], depth: int) -> BaseException:
    """Return a likeness of *error*, or itself where there can be none."""
    if id(error) not in made and depth <= _DEEPEST:
        _deep_twin(error, made, depth)
    return made.get(id(error), error)


def _chain(error: BaseException, cause: BaseException | None, context: BaseException | None, *, suppress: bool) -> None:
    leave(error, "__cause__", cause)
    leave(error, "__context__", context)
    leave(error, "__suppress_context__", suppress)


def _twin(error: _E, args: tuple[object, ...] | None = None) -> _E | None:
    """Return a likeness of *error* without its chain and its traceback, or None."""
    for make in (_copied, _remade) if args is None else (_remade,):
        try:
            twin = make(error, args if args is not None else error.args)
            if _is_faithful(twin, error, args):
                return twin
        except Exception:  # noqa: S112 - foreign constructors and copiers may do anything
            continue
    return None


def _copied(error: _E, _args: tuple[object, ...]) -> _E:
    twin = copy.copy(error)
    _fill(twin, error)
    return twin


def _remade(error: _E, args: tuple[object, ...]) -> _E:
    twin = type(error).__new__(type(error), *args)
    leave(twin, "args", args)
    vars(twin).update(vars(error))
    _fill(twin, error)
    return twin


def _fill(twin: BaseException, error: BaseException) -> None:
    """Give *twin* its own list of notes, and what *error* keeps outside its ``__dict__``."""
    if twin is error:
        raise TypeError("it copies as itself")
    notes = _notes(error)
    if notes is not None:
        leave(twin, _NOTES, notes)
    for member in _members(error):
        with suppress(AttributeError, TypeError):  # unset, or read-only
            value = member.__get__(error)
            if _read(member, twin) is not value:  # an OSError tells a file name that is None from none
                member.__set__(twin, value)
    twin.with_traceback(None)


def _notes(error: BaseException) -> list[object] | None:
    """Return a new list of *error*'s notes, or None if it has none (or something of its own in their place)."""
    notes: object = vars(error).get(_NOTES)
    return [*cast("list[object]", notes)] if isinstance(notes, list) else None


def _members(error: BaseException) -> Iterator[Any]:
    """Yield the slots of *error*'s classes, those of the built-in ones included."""
    for cls in type(error).__mro__:
        if cls not in (Exception, BaseException, object):
            yield from (value for value in vars(cls).values() if isinstance(value, MemberDescriptorType))


def _is_faithful(twin: BaseException, error: BaseException, args: tuple[object, ...] | None) -> bool:
    if type(twin) is not type(error) or str(twin) != str(error):
        return False
    mine, its = vars(twin), vars(error)
    if mine.keys() != its.keys() or not all(_same(mine[name], its[name]) for name in its):
        return False
    if args is not None:  # the members of a group, made anew
        return True
    return len(twin.args) == len(error.args) and all(map(_same, twin.args, error.args))


def _read(member: Any, error: BaseException) -> object:
    try:
        return member.__get__(error)
    except AttributeError:
        return UNSET


def _same(one: object, other: object) -> bool:
    return one is other or bool(one == other)
