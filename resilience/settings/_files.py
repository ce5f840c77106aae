"""
Settings files: TOML, YAML or JSON, all with the same tree.

Overlays stand in the same file, as tables ``[environments.dev]``, ``[environments.staging]`` and
``[environments.production]``: one file to ship, and what is wrong in any of them shows wherever the file is read.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path as FilePath
from typing import Any, final

from resilience.settings._types import is_mapping, likely

USUAL = ("dev", "staging", "production")
_SLIPS = {"prod": "production", "prd": "production", "live": "production", "development": "dev", "stage": "staging"}


@final
class Unusable(Exception):
    """A settings file, or the name of an overlay, is no good."""


@final
@dataclass(frozen=True, slots=True)
class Document:
    """What a settings file says: a *base*, and the *overlays* that may be laid over it."""

    base: Mapping[str, Any]
    overlays: Mapping[str, Any]


def read(path: FilePath) -> Document:
    """
    Read a settings file.

    Raises:
        Unusable: It cannot be read. The text never quotes the file, which may hold anything.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise Unusable("cannot be read: not UTF-8") from None
    except (RuntimeError, ValueError):  # nobody's home directory, or characters that no file system takes
        raise Unusable("cannot be read: no such name is possible") from None
    try:
        content = _parsed(text, path.suffix.lower())
    except RecursionError:
        raise Unusable("is nested too deeply") from None
    table = _table(content, "it must hold a table of settings")
    overlays = _table(table.get("environments"), "environments must be a table, with a table for each environment")
    for name in overlays:
        if slip := _SLIPS.get(str(name).lower()):
            raise Unusable(f"environments.{name}: did you mean {slip!r}? Those are the names that RESILIENCE_ENV takes")
    base = {key: value for key, value in table.items() if key not in ("environments", "$schema")}
    return Document(base, overlays)


def _table(value: object, expected: str) -> Mapping[Any, Any]:
    if value is None:  # YAML: nothing written
        return {}
    if not is_mapping(value):
        raise Unusable(f"{expected}, not {type(value).__name__}")
    return value


def check_environment(name: str, document: Document | None) -> None:
    """
    Make sure that *name* can be meant.

    Raises:
        Unusable: Neither usual nor in the file.
    """
    known = tuple(dict.fromkeys((*USUAL, *(document.overlays if document else ()))))
    if name not in known:
        slip = f"; did you mean {_SLIPS[name.lower()]!r}?" if name.lower() in _SLIPS else likely(name.lower(), known)
        raise Unusable(f"must be one of {', '.join(known)}, or a table under 'environments' in the file{slip}")


def _parsed(text: str, suffix: str) -> object:
    match suffix:
        case ".toml":
            return _toml(text)
        case ".json":
            return _json(text)
        case ".yaml" | ".yml":
            return _yaml(text)
        case _:
            raise Unusable(f"must be a .toml, .yaml, .yml or .json file, not {suffix or 'one without a suffix'}")


def _toml(text: str) -> object:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise Unusable(f"is no valid TOML: {error}") from None


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise Unusable(f"is no valid JSON: {error.msg} (at line {error.lineno}, column {error.colno})") from None
    except ValueError:
        raise Unusable("is no valid JSON: it holds a number that is too long") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a key that is written twice, where JSON would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Unusable(f"says {next(key for key in keys if keys.count(key) > 1)!r} twice in one table")
    return found


def _yaml(text: str) -> object:
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        raise Unusable("needs PyYAML: pip install 'resilient-providers[yaml]'") from None
    try:
        _no_duplicates(yaml, yaml.compose(text, Loader=yaml.SafeLoader), set())
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise Unusable(f"is no valid YAML: {getattr(error, 'problem', None) or 'unreadable'}{where}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # What PyYAML raises for a value that contradicts its own tag, and for days that no month has.
        raise Unusable("is no valid YAML: it holds a value that is none") from None


def _no_duplicates(yaml: Any, node: Any, seen: set[int]) -> None:
    """Refuse a key that is written twice, where PyYAML would take the last."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _no_duplicates(yaml, item, seen)
    elif isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise Unusable(f"says {key[1]!r} twice in one table")
        for _, item in node.value:
            _no_duplicates(yaml, item, seen)
