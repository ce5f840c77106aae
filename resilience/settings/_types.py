"""The value types that settings are made of: durations, shares, names and mappings that stay as they were read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn, TypeVar, final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from resilience.failure import FailureKind

K = TypeVar("K")
V = TypeVar("V")

YEAR = 366 * 86400.0
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?P<unit>[a-zµ]*)\s*", re.IGNORECASE)
_UNIT_SLIPS = {
    "us": "the shortest unit is ms",
    "µs": "the shortest unit is ms",
    "ns": "the shortest unit is ms",
    "msec": "write ms",
    "millis": "write ms",
    "milliseconds": "write ms",
    "sec": "write s",
    "secs": "write s",
    "second": "write s",
    "seconds": "write s",
    "min": "write m",
    "mins": "write m",
    "minute": "write m",
    "minutes": "write m",
    "hr": "write h",
    "hour": "write h",
    "hours": "write h",
    "d": "write hours: 1 day is 24h",
    "day": "write hours: 1 day is 24h",
    "days": "write hours: 1 day is 24h",
}


def refuse(text: str) -> NoReturn:
    """Refuse one value; *text* says what was expected and the likely slip."""
    raise PydanticCustomError("resilience", "{text}", {"text": text})


def no_boolean(value: object) -> object:
    """Refuse booleans where a number belongs: Python counts True as 1, a reader does not."""
    if isinstance(value, bool):
        refuse("must be a number, not a boolean")
    return value


def none_word(value: object) -> object:
    """Read the word "none": environment variables and TOML have no other way to say it."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def lower_case(value: object) -> object:
    """Read names regardless of case."""
    return value.strip().lower() if isinstance(value, str) and not isinstance(value, FailureKind) else value


def seconds(value: object) -> object:
    """Read a duration: a number of seconds, or a number with one of the units ms, s, m and h."""
    no_boolean(value)
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        refuse("must be a number of seconds or a duration such as 500ms, 30s, 2m or 1h")
    unit = match["unit"].lower()
    if unit and unit not in UNITS:
        refuse(f"has the unknown unit {match['unit']!r}; {_UNIT_SLIPS.get(unit, 'the units are ms, s, m and h')}")
    return float(match["number"]) * UNITS[unit or "s"]


_NUMBER_OR_TEXT = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*\+?(\d+\.?\d*|\.\d+)\s*(ms|s|m|h)?\s*$"},
    ]
}

Duration = Annotated[
    float,
    Field(ge=0, le=YEAR, allow_inf_nan=False),
    BeforeValidator(seconds),
    WithJsonSchema(_NUMBER_OR_TEXT, mode="validation"),
]
"""Seconds, as a float. Numbers are seconds; text may carry a unit: ``"500ms"``, ``"30s"``, ``"2m"``, ``"1h"``."""

Positive = Annotated[Duration, Field(gt=0)]
Count = Annotated[int, Field(ge=1), BeforeValidator(no_boolean)]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(no_boolean)]
Share = Annotated[Number, Field(gt=0, le=1)]
Unlimited = BeforeValidator(none_word, json_schema_input_type=Any)
Kind = Annotated[FailureKind, BeforeValidator(lower_case)]


@final
class FrozenDict(dict[K, V]):
    """A dict that refuses to change, so that frozen settings are frozen all the way down, and hashable."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("settings never change; make new ones, with model_copy(update=...) for instance")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse  # type: ignore[assignment]

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return FrozenDict, (dict(self),)


def frozen(value: Mapping[K, V]) -> Mapping[K, V]:
    """Keep a copy that nobody can change."""
    return FrozenDict(value)


Frozen = AfterValidator(frozen)

Ignorable = FailureKind | type[BaseException] | Callable[[BaseException], bool]


def ignorable(value: object) -> Ignorable:
    """Read one entry of ``breaker.ignore``: a kind, an exception type or a predicate."""
    if isinstance(value, str):
        try:
            return FailureKind(value.strip().lower())
        except ValueError:
            refuse(f"must be a failure kind: {', '.join(FailureKind)}")
    if isinstance(value, type) and not issubclass(value, BaseException):
        refuse("must be an exception type, a failure kind or a predicate")
    if not callable(value):
        refuse("must be a failure kind, an exception type or a predicate")
    return value


def split_list(value: object) -> object:
    """Read a list from one line of text, as environment variables must write it: ``not_found, timeout``."""
    if not isinstance(value, str) or isinstance(value, FailureKind):
        return value
    return [part for part in (part.strip() for part in value.split(",")) if part]


def shown(value: Ignorable) -> str:
    """Name an entry of ``breaker.ignore`` in JSON."""
    return value if isinstance(value, str) else f"{value.__module__}.{getattr(value, '__qualname__', repr(value))}"


IgnoreList = Annotated[
    tuple[
        Annotated[
            Ignorable,
            PlainValidator(ignorable),
            PlainSerializer(shown, return_type=str, when_used="json"),
            WithJsonSchema({"type": "string", "enum": [kind.value for kind in FailureKind]}),
        ],
        ...,
    ],
    BeforeValidator(split_list),
]
