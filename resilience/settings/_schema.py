"""The JSON Schema of a settings file."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from textwrap import dedent
from typing import Any

from resilience.settings._places import Entries, Place, fields
from resilience.settings._tables import Table

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def file_schema(model: type[Table]) -> dict[str, Any]:
    """Return the schema of *model* as a file holds it: with overlays, and with the name of the schema itself."""
    schema = model.model_json_schema()
    tables: list[type[Table]] = []
    _collect(model, tables)
    for table in tables:
        _describe(schema if table is model else schema["$defs"][table.__name__], table)
    for named in ("providers", "experiments"):
        schema["properties"][named]["additionalProperties"] = False  # beside the pattern of their names
    tree = {key: schema[key] for key in ("type", "properties", "additionalProperties")}
    overlays = {
        "type": "object",
        "description": "What differs in single environments; RESILIENCE_ENV chooses one.",
        "additionalProperties": {"$ref": "#/$defs/Overlay"},
    }
    return {
        "$schema": _DRAFT,
        **schema,
        "properties": {"$schema": {"type": "string"}, **tree["properties"], "environments": overlays},
        "$defs": {**schema["$defs"], "Overlay": tree},
    }


def _collect(place: Place, tables: list[type[Table]]) -> None:
    """Add every table in *place* to *tables*."""
    if isinstance(place, Entries):
        _collect(place.item, tables)
    elif isinstance(place, type) and place not in tables:
        tables.append(place)
        for below in fields(place).values():
            _collect(below, tables)


def _describe(schema: dict[str, Any], table: type[Table]) -> None:
    """
    Describe every setting by the string below it in the source.

    Pydantic can do the same, but does it whenever the models are imported, which takes as long as all the rest.
    """
    try:
        body = ast.parse(dedent(inspect.getsource(table))).body[0]
    except OSError:  # installed without its source
        return
    for node, text in pairwise(getattr(body, "body", ())):
        match node, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(description))):
                schema["properties"].get(name, {})["description"] = description
            case _:
                pass
