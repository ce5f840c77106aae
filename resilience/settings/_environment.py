"""
Environment variables.

Every setting has a name of the form ``RESILIENCE_PROVIDERS__OPENAI__RETRY__MAX_ATTEMPTS`` or
``RESILIENCE_DEFAULTS__RETRY__MAX_ATTEMPTS``: the path to it, with two underscores between levels. The common ones
have short names too, which the long ones overrule. Names of providers and operations are read in lower case; one
that holds dots or dashes is written with underscores: ``MY_API`` is the entry ``my-api`` if the file or the code
has one, and otherwise an entry ``my_api``, which serves ``my-api`` as well. Names with two underscores in a row can
be set in files only. A variable that is empty counts as not set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from resilience.settings._checks import Path
from resilience.settings._origins import Origin
from resilience.settings._places import Entries, Leaf, Place, child, fields, folded, unknown
from resilience.settings._refusals import Written, problem
from resilience.settings._root import Settings
from resilience.settings._types import nearest

PREFIX = "RESILIENCE_"
FILE = "RESILIENCE_CONFIG"
OVERLAY = "RESILIENCE_ENV"


def _milliseconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("must be a number, without a unit") from None
    if 0 < number < 1:
        raise ValueError("is less than a millisecond")
    return number / 1000


def _retries(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if number < 0:
        raise ValueError("must be at least 0")
    return number + 1


@final
@dataclass(frozen=True, slots=True)
class Variable:
    """A short name for a setting; *note* is what people get wrong about it."""

    name: str
    key: str
    note: str = ""
    read: Callable[[str], object] = str

    @property
    def path(self) -> Path:
        """The setting it stands for."""
        return tuple(self.key.split("."))


# The later overrules the earlier: ours come last, after names that services may already use.
SHORT = (
    Variable("CB_RESET_SEC", "defaults.breaker.timeout", "CB_RESET_SEC is in seconds"),
    Variable("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", "defaults.breaker.timeout"),
    Variable("CB_FAIL_THRESHOLD", "defaults.breaker.failure_threshold"),
    Variable(
        "HTTP_BACKOFF_BASE_MS", "defaults.retry.base_delay", "HTTP_BACKOFF_BASE_MS is in milliseconds", _milliseconds
    ),
    Variable(
        "HTTP_RETRIES",
        "defaults.retry.max_attempts",
        "HTTP_RETRIES counts retries, so there is one more attempt",
        _retries,
    ),
    Variable("HTTP_TIMEOUT_SEC", "defaults.timeout.attempt", "HTTP_TIMEOUT_SEC is in seconds"),
    Variable("RETRY_MAX_ATTEMPTS", "defaults.retry.max_attempts"),
    Variable("RETRY_BASE_DELAY", "defaults.retry.base_delay"),
    Variable("RETRY_MAX_DELAY", "defaults.retry.max_delay"),
    Variable("RETRY_EXPONENTIAL_BASE", "defaults.retry.exponential_base"),
    Variable("RETRY_JITTER", "defaults.retry.jitter"),
    Variable("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "defaults.breaker.failure_threshold"),
    Variable("CIRCUIT_BREAKER_SUCCESS_THRESHOLD", "defaults.breaker.success_threshold"),
    Variable("CIRCUIT_BREAKER_TIMEOUT", "defaults.breaker.timeout"),
    Variable("CIRCUIT_BREAKER_HALF_OPEN_MAX_CALLS", "defaults.breaker.half_open_max_calls"),
    Variable("RESILIENCE_RETRY_ENABLED", "defaults.retry.enabled"),
    Variable("RESILIENCE_CIRCUIT_BREAKER_ENABLED", "defaults.breaker.enabled"),
)


def _below(place: Place) -> str:
    """Show how a name goes on."""
    return "" if isinstance(place, Leaf) else "__<NAME>__..." if isinstance(place, Entries) else "__..."


_SHORT_NAMES = frozenset(variable.name for variable in SHORT)
_TOP = (
    *(name.removeprefix(PREFIX) for name in (FILE, OVERLAY, *sorted(_SHORT_NAMES)) if name.startswith(PREFIX)),
    *(name.upper() + _below(place) for name, place in fields(Settings).items()),
)
_TABLES = tuple(f"{name.upper()}_" for name, below in fields(Settings).items() if not isinstance(below, Leaf))


def ours(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the variables that are, or look like, ours, with their names in capitals; and what is wrong with them."""
    spelled: dict[str, str] = {}
    problems: list[str] = []
    for name in sorted(name for name in environ if name in _SHORT_NAMES or name.upper().startswith(PREFIX)):
        first = spelled.setdefault(name.upper(), name)
        if environ[first] != environ[name]:
            problems.append(f"{name} (environment variable): it says something else than {first}")
    return {name: environ[first] for name, first in spelled.items()}, problems


def read(variables: Mapping[str, str], known: Iterable[Path]) -> Iterator[tuple[Path, Written] | str]:
    """
    Read *variables*, lowest precedence first; a problem comes as text.

    *known* are the settings written elsewhere: they tell how the names of providers and operations are spelled.
    """
    for short in SHORT:
        if text := variables.get(short.name, "").strip():
            yield _short(short, text)
    names = _names(known)
    for name, text in sorted(variables.items()):
        if name not in _SHORT_NAMES and name not in (FILE, OVERLAY):
            found = _path(name, names)
            if isinstance(found, str):
                yield found
            elif text.strip():
                yield found, Written(text, text.strip(), Origin("env", name))


def _short(variable: Variable, text: str) -> tuple[Path, Written] | str:
    written = Written(text, text, Origin("env", variable.name), variable.note)
    try:
        return variable.path, Written(text, variable.read(text), written.origin, variable.note)
    except ValueError as error:
        return problem(variable.path, written, str(error))


# Names under the one are names under the others.
_ALIKE = {
    "providers": ("providers", "experiments"),
    "experiments": ("experiments", "providers"),
    "operations": ("operations",),
}


def _names(known: Iterable[Path]) -> dict[str, set[str]]:
    """Return the names of providers and operations in *known*, by their spelling in environment variables."""
    names: dict[str, set[str]] = {}
    for path in known:
        for level, name in pairwise(path):
            for here in _ALIKE.get(level, ()):
                names.setdefault(f"{here} {folded(name)}", set()).add(name)
    return names


def _path(variable: str, names: Mapping[str, set[str]]) -> Path | str:
    """Return the setting that *variable* stands for, or what is wrong with its name (its value may be a secret)."""
    place: Place = Settings
    path: Path = ()
    above = ""
    for part in variable.removeprefix(PREFIX).split("__"):
        key = part.lower()
        if isinstance(place, Entries) and not place.kinds:
            spelled = names.get(f"{above} {key}", {key})
            if len(spelled) > 1:
                return (
                    f"{variable} (environment variable): it may mean any of {', '.join(sorted(spelled))}; use the file"
                )
            (key,) = spelled
        below = child(place, key)
        if below is None:
            return f"{variable} (environment variable): {_likely(variable, place, path, key)}"
        place, path, above = below, (*path, key), key
    if isinstance(place, Leaf):
        return path
    inside = ", ".join(name.upper() for name in fields(place)) if isinstance(place, type) else "<NAME>__..."
    return f"{variable} (environment variable): not a single setting; add two underscores and one of {inside}"


def _likely(variable: str, place: Place, path: Path, key: str) -> str:
    """Guess which variable was meant."""
    rest = variable.removeprefix(PREFIX)
    if rest in _SHORT_NAMES:
        return f"unknown setting; did you mean {rest!r}?"
    if not path and rest.startswith(_TABLES):
        return "unknown setting; levels are separated by two underscores"
    if not path:
        return f"unknown setting{nearest(rest, _TOP)}"
    if isinstance(place, Entries) and not key:
        return "unknown setting; a name is missing between the underscores"
    return unknown(place, key)
