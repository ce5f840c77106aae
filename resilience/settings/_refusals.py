"""Say what is wrong with settings: the key, the value, where it came from, and the likely slip."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from resilience.errors import ConfigurationError


def refusal(model: type[BaseModel], error: ValidationError) -> ConfigurationError:
    """Translate what pydantic found into the one error that users see."""
    lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return ConfigurationError(f"{model.__name__} refused: " + "; ".join(lines))
