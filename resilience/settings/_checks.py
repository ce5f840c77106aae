"""Find settings that are fine one by one and make no sense together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias, cast

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The value at *path* must stand in *relation* to the *other* one, for this *reason*."""

    path: Path
    value: object
    relation: str
    other: Path
    other_value: object
    other_written: bool
    reason: str

    def __str__(self) -> str:
        other = f"{'.'.join(self.other)} = {self.other_value}"
        return f"{'.'.join(self.path)} = {self.value} {self.relation} {other}: {self.reason}"


def ordered(
    table: object,
    keys: str,
    reason: str,
    *,
    effective: object = None,
    at: Path = (),
    a_default_gives_way: bool = True,
) -> Iterator[Contradiction]:
    """
    Find out whether two values stand in the wrong order.

    Args:
        table: What was written.
        keys: Such as ``"attempt <= total"``, or with ``<``.
        reason: Why it must be so.
        effective: What comes out when *table* is laid over the defaults. Default: *table*.
        at: Where *table* stands. Default: at the top.
        a_default_gives_way: Whether the wrong order is an error only when both values were written in *table*.
            Default: True. If not, it is one when the first was.
    """
    low, sign, high = keys.split()
    paths = tuple(low.split(".")), tuple(high.split("."))
    if not is_written(table, paths[0]) or (a_default_gives_way and not is_written(table, paths[1])):
        return
    whole = table if effective is None else effective
    first, second = (cast("float | None", reduce(getattr, path, whole)) for path in paths)
    if first is None or second is None or first < second or (sign == "<=" and first == second):
        return
    relation = "must be less than" if sign == "<" else "must not be more than"
    here, there = ((*at, *path) for path in paths)
    yield Contradiction(here, first, relation, there, second, is_written(whole, paths[1]), reason)


def is_written(table: object, path: Path) -> bool:
    """Tell whether somebody wrote the value at *path*."""
    if path[0] not in getattr(table, "model_fields_set", ()):
        return False
    return len(path) == 1 or is_written(getattr(table, path[0]), path[1:])
