"""
What a provider answered: the status, its own error code and its hints, wherever a library keeps them.

The order is the one that real exceptions need: a ``response`` dict (botocore); ``status_code``;
``response.status_code``; ``status``; ``code`` if it is an integer; ``code()`` (gRPC); an SQLSTATE; then the codes in
the body, which count even beside a status below 400 (an error inside a stream).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple, cast

from resilience.classify import _hints
from resilience.classify._codes import END_OF_ERRORS, FIRST_ERROR, of_code, of_grpc, of_sqlstate, of_status
from resilience.classify._finding import Finding
from resilience.classify._foreign import called, each, is_bare, mapping, name_of, root_of, safely, whole
from resilience.classify._texts import obstore_answer, xml_code
from resilience.failure import Category, Failure

_LONGEST_CODE = 64
_LONGEST_BODY = 65_536
_CODE_MARKS = frozenset("_-.")
_SQLSTATE_LENGTH = 5
_CONTENT_HOLDERS = {"httpx": "content", "httpx2": "content", "requests": "_content"}


class _Answer(NamedTuple):
    """What could be read off one object."""

    status: int | None = None
    codes: tuple[str, ...] = ()
    headers: Mapping[str, str] = {}


def of_answer(thing: object, now: float | None) -> Failure | None:
    """The failure that *thing*, an exception or a response, tells of; None if it holds no answer."""
    if (failure := _of_grpc(thing)) is not None or (failure := _of_database(thing)) is not None:
        return failure
    answer = _read(thing)
    finding, code = _judge(answer)
    if finding is None:
        return None
    failure = finding.failure(
        name_of(thing), status=answer.status, code=code, retry_after=_hints.retry_after(answer.headers, now)
    )
    return _obey(failure, _hints.should_retry(answer.headers))


def facts_of(thing: object) -> tuple[int | None, str | None]:
    """The status and the code of something that they do not explain."""
    answer = _Answer() if is_bare(thing) else _read(thing)
    return answer.status, answer.codes[0] if answer.codes else None


def _judge(answer: _Answer) -> tuple[Finding | None, str | None]:
    """A telling code wins over the status; the first code is kept in any case."""
    for code in answer.codes:
        if (finding := of_code(code, answer.status)) is not None:
            return finding, code
    finding = of_status(answer.status) if answer.status is not None else None
    return finding, answer.codes[0] if answer.codes else None


def _obey(failure: Failure, retry: bool | None) -> Failure:
    """``x-should-retry`` is the provider's own word on whether to come back."""
    if retry is None or retry is failure.retryable:
        return failure
    return replace(failure, category=Category.RETRIABLE if retry else Category.FATAL)


def _read(thing: object) -> _Answer:
    response = safely(thing, "response")
    if isinstance(response, dict):
        return _botocore(mapping(cast("object", response)))
    root = root_of(type(thing))
    if root == "obstore" and isinstance(thing, BaseException):
        status, code = obstore_answer(thing)
        return _Answer(status, tuple(_clean((code,))))
    if root == "aiohttp" and safely(thing, "__cause__") is not None:
        return _Answer()  # a reply that is no HTTP arrives as a made-up 400
    status = _status(thing, response)
    headers = _hints.lowered(safely(thing, "headers") if response is None else safely(response, "headers"))
    return _Answer(status, tuple(_clean(_codes(thing, response, status))), headers)


def _botocore(response: Mapping[object, object]) -> _Answer:
    metadata = mapping(response.get("ResponseMetadata"))
    code = mapping(response.get("Error")).get("Code")
    status = _in_range(metadata.get("HTTPStatusCode"))
    return _Answer(status, tuple(_clean((code,))), _hints.lowered(metadata.get("HTTPHeaders")))


def _status(thing: object, response: object) -> int | None:
    """The HTTP status. A plain integer `code` below 400 is somebody's own number."""
    for value in (safely(thing, "status_code"), safely(response, "status_code"), safely(thing, "status")):
        if (status := _in_range(value)) is not None:
            return status
    if root_of(type(thing)) == "aiohttp":
        return None  # reading its `code` warns of deprecation
    code = safely(thing, "code")
    status = _in_range(code)
    return status if status is not None and (status >= FIRST_ERROR or isinstance(code, HTTPStatus)) else None


def _in_range(value: object) -> int | None:
    number = whole(value)
    return number if number is not None and 100 <= number < END_OF_ERRORS else None  # noqa: PLR2004 (HTTP begins at 100)


def _codes(thing: object, response: object, status: int | None) -> Iterator[object]:
    """Everything that may be the provider's own code, the most telling first."""
    root = root_of(type(thing))
    if root == "google":  # a list of objects with a reason each
        yield _first_reason(safely(thing, "errors"))
        yield safely(thing, "reason")
    elif root != "aiohttp":
        yield from (safely(thing, name) for name in ("error_code", "code", "type"))
    if body := mapping(safely(thing, "body")):
        yield from _codes_in(body)
    elif status is not None and status >= FIRST_ERROR:
        yield from _codes_in_reply(thing if response is None else response)


def _codes_in(body: Mapping[object, object]) -> Iterator[object]:
    error = body.get("error")
    inner = mapping(error) or body
    yield mapping(inner.get("details")).get("error_code")
    yield from (_first_reason(inner.get("errors")), inner.get("code"), inner.get("type"), inner.get("status"), error)


def _first_reason(errors: object) -> object:
    return next((mapping(error).get("reason") for error in each(errors)), None)


def _codes_in_reply(response: object) -> Iterator[object]:
    """Look into a reply that has been read already: asking for the content must not start reading it."""
    holder = _CONTENT_HOLDERS.get(root_of(type(response)))
    content = None if holder is None else safely(response, holder)
    if not isinstance(content, bytes) or len(content) > _LONGEST_BODY:
        return
    if content[:1] == b"<":
        yield xml_code(content.decode("utf-8", "replace"))
        return
    try:
        body: object = json.loads(content)
    except (ValueError, RecursionError):
        return
    yield from _codes_in(mapping(body))


def _clean(codes: Iterable[object]) -> Iterator[str]:
    """Short words only: a sentence may hold what must not be logged, and a bare number is the status again."""
    for value in codes:
        code = value.value if isinstance(value, Enum) else value
        if (
            isinstance(code, str)
            and 0 < len(code) <= _LONGEST_CODE
            and not code.isdecimal()
            and code.isascii()
            and all(mark.isalnum() or mark in _CODE_MARKS for mark in code)
        ):
            yield code


def _of_grpc(thing: object) -> Failure | None:
    """A gRPC call: ``code()``, ``details()``, ``trailing_metadata()``. Google's wrapper holds one in ``response``."""
    response = safely(thing, "response")
    call = thing if response is None else response
    name = safely(called(call, "code"), "name")
    if not isinstance(name, str):
        return None
    details = called(call, "details")
    pause, forbidden = _hints.pushback(called(call, "trailing_metadata"))
    finding = of_grpc(name, details if isinstance(details, str) else "", answered=pause is not None)
    if finding is None:
        return None
    failure = finding.failure(name_of(thing), status=_in_range(safely(thing, "code")), code=name, retry_after=pause)
    return _obey(failure, False if forbidden else None)


def _of_database(thing: object) -> Failure | None:
    """PostgreSQL drivers: ``sqlstate``, or ``pgcode`` in psycopg2."""
    state = safely(thing, "sqlstate") or safely(thing, "pgcode")
    if not isinstance(state, str) or len(state) != _SQLSTATE_LENGTH or not state.isalnum():
        return None
    return of_sqlstate(state).failure(name_of(thing), code=state)
