"""The base of every settings model: frozen, closed, comparable, and merged by what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from resilience.settings._checks import Contradiction
from resilience.settings._types import FrozenDict, is_mapping

T = TypeVar("T", bound="Table")


class Table(BaseModel):
    """A table of settings. Its repr shows what differs, and only what was written overrides when tables are merged."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            from resilience.settings._refusals import refusal

            raise refusal(type(self), error, data) from None

    # With this mark pydantic validates nested tables itself, as it would without this __init__, and so keeps the
    # whole path of a mistake.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _contradicts_nothing(self) -> Self:
        if found := list(self._contradictions()):
            raise PydanticCustomError("contradiction", "{text}", {"text": "; ".join(map(str, found)), "found": found})
        return self

    def _contradictions(self) -> Iterator[Contradiction]:
        """Find what makes no sense together in this table."""
        yield from ()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """
        Return a copy with *update* in place of what is there.

        Args:
            update: The fields that change. They are checked like any others.
            deep: Whether to copy the values too. Default: False, they cannot change anyway.

        Raises:
            ConfigurationError: The result would make no sense.
        """
        copy = super().model_copy(update=update, deep=deep)
        return type(self)(**{name: getattr(copy, name) for name in copy.model_fields_set}) if update else copy

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        written = self.model_fields_set
        fields = ((name, getattr(self, name), field) for name, field in type(self).model_fields.items())
        return [
            (name, value)
            for name, value, field in fields
            if name in written or value != field.get_default(call_default_factory=True)
        ]


def merged(base: T, over: T) -> T:
    """Lay what was written in *over* on top of *base*, table by table."""
    written = {name: _merged_value(getattr(base, name), getattr(over, name)) for name in over.model_fields_set}
    return super(Table, base).model_copy(update=written) if written else base


def merged_mapping(base: Mapping[Any, Any], over: Mapping[Any, Any]) -> FrozenDict[Any, Any]:
    """Lay the entries of *over* on top of those of *base*, entry by entry."""
    entries = {key: _merged_value(base[key], value) if key in base else value for key, value in over.items()}
    return FrozenDict({**base, **entries})


def _merged_value(base: object, over: object) -> object:
    if isinstance(base, Table) and isinstance(over, Table):
        return merged(base, over)
    if is_mapping(base) and is_mapping(over):
        return merged_mapping(base, over)
    return over
