"""The JSON Schema of a settings file."""

from __future__ import annotations

from typing import Any

from resilience.settings._tables import Table

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def file_schema(model: type[Table]) -> dict[str, Any]:
    """Return the schema of *model* as a file holds it: with overlays, and with the name of the schema itself."""
    schema = model.model_json_schema()
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
