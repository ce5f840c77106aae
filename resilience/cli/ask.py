"""Ask a running process over its health address, without a client of anybody's."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard, final
from urllib.parse import quote, urlsplit

from resilience.settings import HealthSettings

Document: TypeAlias = dict[str, Any]
"""What a process answered: JSON, in which everything may be missing."""

_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - listened on, not asked
_HEALTH: Final = "/health"
_NOT_FOUND: Final = 404
_LIMIT: Final = 64 * 1024 * 1024


@final
class NoAnswer(Exception):
    """Nobody answers, or somebody who is no process of ours; the text says who and why."""


@final
class Answer(NamedTuple):
    """What a process answered: an HTTP status, and a document."""

    status: int
    document: Document


def is_document(value: object) -> TypeGuard[Document]:
    """Tell whether *value*, out of JSON, is an object."""
    return isinstance(value, dict)


def address(settings: HealthSettings) -> str:
    """Return where a process on this machine with these settings can be asked."""
    host = _HERE.get(settings.host, settings.host)
    path = settings.path.rstrip("/").removesuffix(_HEALTH)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{path}"


def label(url: str) -> str:
    """Return what people recognise an address by."""
    return urlsplit(url).netloc or url


def providers(url: str, timeout: float) -> Document:
    """
    Return how every provider of the process at *url* is.

    Raises:
        NoAnswer: It cannot be asked.
    """
    status, document = ask(url, "/health/providers", timeout)
    if not is_document(document.get("providers")):
        raise NoAnswer(f"{label(url)} answers with status {status}, and tells nothing about providers")
    return document


def ask(url: str, path: str, timeout: float) -> Answer:
    """
    Return what the process at *url* says at *path*.

    Args:
        url: Where it is. A path in it is where its health was mounted, or its ``health.path``.
        path: What to ask, such as ``/health/providers``.
        timeout: In seconds, for each step.

    Raises:
        NoAnswer: It cannot be asked.
    """
    try:
        where = urlsplit(url)
        kind = {"http": HTTPConnection, "https": HTTPSConnection}.get(where.scheme)
        if kind is None or not where.hostname:
            raise NoAnswer(f"{url} is no address: it must look like http://127.0.0.1:8080")
        with closing(kind(where.hostname, where.port, timeout=timeout)) as connection:
            base = where.path.rstrip("/").removesuffix(_HEALTH)
            status, body = _got(connection, base + path)
            if status == _NOT_FOUND:
                status, body = _got(connection, base + path.removeprefix(_HEALTH))
            document: object = json.loads(body)
    except (OSError, HTTPException) as error:
        raise NoAnswer(f"{label(url)} does not answer: {_why(error)}") from error
    except ValueError as error:
        raise NoAnswer(f"{label(url)} does not answer as a health address does") from error
    if not is_document(document):
        raise NoAnswer(f"{label(url)} does not answer as a health address does")
    return Answer(status, document)


def _got(connection: HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", quote(path))
    answer = connection.getresponse()
    return answer.status, answer.read(_LIMIT)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.lower()
