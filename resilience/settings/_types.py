"""The value types that settings are made of, and how each is read from text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeGuard, TypeVar, cast, final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from resilience.failure import FailureKind

K = TypeVar("K")
V = TypeVar("V")

# Nobody means more; whoever writes more wrote another unit.
YEAR = 366 * 86400.0
MILLION = 1_000_000

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DURATION = re.compile(rf"(?P<number>[+-]?{_NUMBER}(?:e[+-]?[0-9]+)?)\s*(?P<unit>[^\W\d_]*)", re.IGNORECASE)
_WRITE = {
    "ms": ("msec", "msecs", "millis", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "24h for a day": ("d", "day", "days"),
}
_UNIT_SLIPS = {slip: unit for unit, slips in _WRITE.items() for slip in slips}

ENTRY_NAME = re.compile(r"[a-z0-9_.-]+")


def refuse(text: str) -> NoReturn:
    """Refuse one value; *text* says what was expected and the likely slip."""
    raise PydanticCustomError("resilience", "{text}", {"text": text})


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Tell whether *value* is a table of some sort."""
    return isinstance(value, Mapping)


def likely(word: str, among: Iterable[str]) -> str:
    """Ask whether the closest of *among* was meant; empty if none is close."""
    from difflib import get_close_matches  # slow to import, and only mistakes need it

    choices = {choice.lower(): choice for choice in among}
    close = get_close_matches(word.strip().lower(), choices, n=1)
    return f"; did you mean {str(choices[close[0]])!r}?" if close else ""


def nearest(word: str, among: Iterable[str]) -> str:
    """Ask whether the closest of *among* was meant, or name them all."""
    choices = list(among)
    return likely(word, choices) or f"; known: {', '.join(choices)}"


def no_boolean(value: object) -> object:
    """Refuse booleans where a number belongs: Python counts True as 1, a reader does not."""
    if isinstance(value, bool):
        refuse("must be a number, not true or false")
    return value


def none_word(value: object) -> object:
    """Read the word "none": environment variables and TOML have no other way to say it."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def lower_case(value: object) -> object:
    """Read names regardless of case."""
    return value.strip().lower() if isinstance(value, str) else value


def upper_case(value: object) -> object:
    """Read names that are written in capitals regardless of case."""
    return value.strip().upper() if isinstance(value, str) else value


def seconds(value: object) -> object:
    """Read a duration: a number of seconds, or a number with one of the units ms, s, m and h."""
    if not isinstance(value, str):
        return no_boolean(value)
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        refuse("must be a duration: a number of seconds, or text such as 500ms, 30s, 2m, 1h")
    unit = match["unit"].lower()
    if unit and unit not in _UNITS:
        slip = f"write {_UNIT_SLIPS[unit]}" if unit in _UNIT_SLIPS else "the units are ms, s, m and h"
        refuse(f"has the unknown unit {match['unit']!r}; {slip}")
    return float(match["number"]) * _UNITS[unit or "s"]


# What may be written, for the JSON Schema; the validators beside it are what is enforced.
_NoneWord = Literal["none"] | None
_Text = Annotated[str, Field(pattern=rf"^\s*\+?{_NUMBER}\s*(ms|s|m|h)?\s*$")]
_AnyDuration = Annotated[float, Field(ge=0, le=YEAR)] | _Text
_PositiveDuration = Annotated[float, Field(gt=0, le=YEAR)] | _Text

Duration = Annotated[
    float,
    Field(ge=0, le=YEAR, allow_inf_nan=False),
    BeforeValidator(seconds, json_schema_input_type=_AnyDuration),
]
"""Seconds, as a float. Numbers are seconds; text may carry a unit: ``"500ms"``, ``"30s"``, ``"2m"``, ``"1h"``."""

Positive = Annotated[
    float,
    Field(gt=0, le=YEAR, allow_inf_nan=False),
    BeforeValidator(seconds, json_schema_input_type=_PositiveDuration),
]
OptionalPositive = Annotated[
    Positive | None, BeforeValidator(none_word, json_schema_input_type=_PositiveDuration | _NoneWord)
]

Count = Annotated[int, Field(ge=1, le=MILLION), BeforeValidator(no_boolean)]
OptionalCount = Annotated[Count | None, BeforeValidator(none_word, json_schema_input_type=Count | _NoneWord)]
CountOrZero = Annotated[int, Field(ge=0, le=MILLION), BeforeValidator(no_boolean)]

OptionalBool = Annotated[bool | None, BeforeValidator(none_word, json_schema_input_type=bool | _NoneWord)]

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), BeforeValidator(no_boolean)]
OptionalShare = Annotated[Share | None, BeforeValidator(none_word, json_schema_input_type=Share | _NoneWord)]
ShareOrZero = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(no_boolean)]
Spread = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(no_boolean)]
Part = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(no_boolean)]
OptionalPart = Annotated[Part | None, BeforeValidator(none_word, json_schema_input_type=Part | _NoneWord)]
Factor = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), BeforeValidator(no_boolean)]
Growth = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False), BeforeValidator(no_boolean)]
SmallShare = Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False), BeforeValidator(no_boolean)]
Multiple = Annotated[float, Field(gt=1, le=100, allow_inf_nan=False), BeforeValidator(no_boolean)]
Amount = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False), BeforeValidator(no_boolean)]
OptionalAmount = Annotated[Amount | None, BeforeValidator(none_word, json_schema_input_type=Amount | _NoneWord)]
Rate = Annotated[float, Field(ge=0, le=MILLION, allow_inf_nan=False), BeforeValidator(no_boolean)]


def _jitter_word(value: object) -> object:
    """Read ``RETRY_JITTER=true`` and ``false`` too: full and none."""
    word = str(value).lower() if isinstance(value, bool) else lower_case(value)
    return {"true": "full", "false": "none"}.get(word, word) if isinstance(word, str) else word


_HOST = re.compile(r"[A-Za-z0-9_.:%-]+")


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        refuse("must be an address of this machine, such as 127.0.0.1, ::1 or 0.0.0.0, without a port")
    return value


_URL_PATH = re.compile(r"/[A-Za-z0-9_./~-]*")


def _url_path(value: str) -> str:
    if not _URL_PATH.fullmatch(value):
        refuse("must be the path of an address, such as /metrics")
    return value


JitterName = Literal["full", "none", "equal", "decorrelated", "proportional", "constant"]
Jitter = Annotated[JitterName, BeforeValidator(_jitter_word, json_schema_input_type=JitterName | bool)]
Mode = Annotated[Literal["enforce", "shadow", "disabled", "forced_open"], BeforeValidator(lower_case)]
LimitMode = Annotated[Literal["enforce", "shadow", "disabled"], BeforeValidator(lower_case)]
Order = Annotated[Literal["fifo", "adaptive_lifo"], BeforeValidator(lower_case)]
Adaptive = Annotated[Literal["off", "aimd", "vegas"], BeforeValidator(lower_case)]
Latency = Annotated[Literal["attempt", "first_item"], BeforeValidator(lower_case)]
Oversized = Annotated[Literal["refuse", "clamp"], BeforeValidator(lower_case)]
Errors = Annotated[Literal["native", "standard"], BeforeValidator(lower_case)]
Kind = Annotated[FailureKind, BeforeValidator(lower_case)]
Spans = Annotated[Literal["off", "sampled", "always"], BeforeValidator(lower_case)]
LogFormat = Annotated[Literal["console", "json"], BeforeValidator(lower_case)]

LevelName = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogLevel = Annotated[LevelName, BeforeValidator(upper_case)]

ProfileName = Literal["llm", "object_storage", "upload", "webhook", "database", "internal_rpc"]
OptionalProfile = Annotated[
    Annotated[ProfileName, BeforeValidator(lower_case)] | None,
    BeforeValidator(none_word, json_schema_input_type=ProfileName | _NoneWord),
]

Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(no_boolean)]
UrlPath = Annotated[
    str, AfterValidator(_url_path), WithJsonSchema({"type": "string", "pattern": f"^{_URL_PATH.pattern}$"})
]
Host = Annotated[str, AfterValidator(_host), WithJsonSchema({"type": "string", "pattern": f"^{_HOST.pattern}$"})]
Directory = Annotated[str, Field(min_length=1)]
OptionalDirectory = Annotated[Directory | None, BeforeValidator(none_word)]


def no_provider(name: str) -> str:
    """Say why *name* is no name of a provider; empty if it is one."""
    if ENTRY_NAME.fullmatch(name):
        return ""
    slip = name.strip().lower().replace(" ", "-")
    meant = f"; did you mean {slip!r}?" if ENTRY_NAME.fullmatch(slip) else ""
    return f"{name!r} is no provider name: those are lower-case letters, digits, '_', '-' and '.'{meant}"


def _provider_name(name: str) -> str:
    if why := no_provider(name):
        refuse(why)
    return name


ProviderName = Annotated[
    str,
    AfterValidator(_provider_name),
    WithJsonSchema({"type": "string", "pattern": f"^{ENTRY_NAME.pattern}$"}),
]


@final
class FrozenDict(dict[K, V]):
    """A dict that refuses to change, so that frozen settings are frozen all the way down, and hashable."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("settings never change; make new ones, for instance with model_copy(update=...)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return repr({str(key) if isinstance(key, str) else key: value for key, value in self.items()})

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return FrozenDict, (dict(self),)


def frozen(value: Mapping[K, V]) -> Mapping[K, V]:
    """Keep a copy that nobody can change."""
    return FrozenDict(value)


Frozen = AfterValidator(frozen)

Ignorable = FailureKind | type[BaseException] | Callable[[BaseException], bool]


def _ignorable(value: object) -> Ignorable:
    """Read one entry of ``breaker.ignore``: a kind, an exception type or a predicate."""
    if isinstance(value, str):
        try:
            return FailureKind(value.strip().lower())
        except ValueError:
            refuse(f"{value!r} is no failure kind{nearest(value, FailureKind)}")
    if isinstance(value, type) and not issubclass(value, BaseException):
        refuse(f"must be failure kinds, exception types or predicates; {value.__name__} is another kind of type")
    if not callable(value):
        refuse("must be failure kinds, exception types or predicates")
    return cast("Ignorable", value)


def _shown(value: Ignorable) -> str:
    """Name an entry of ``breaker.ignore`` in JSON."""
    return value if isinstance(value, str) else f"{value.__module__}.{getattr(value, '__qualname__', repr(value))}"


def _split(value: object) -> object:
    """Read a list from one line of text, as environment variables must write it: ``not_found, timeout``."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_Ignored = Annotated[
    Ignorable,
    PlainValidator(_ignorable),
    PlainSerializer(_shown, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "enum": [kind.value for kind in FailureKind]}),
]
IgnoreList = Annotated[tuple[_Ignored, ...], BeforeValidator(_split, json_schema_input_type=tuple[_Ignored, ...] | str)]
