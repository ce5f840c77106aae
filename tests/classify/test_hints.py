"""How long a provider asks to be left alone."""

from __future__ import annotations

import math
import string
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.classify import classify

NOW = 1_767_225_600.0  # the first of January 2026
HINTS = ["retry-after", "retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after", "date", "x-should-retry"]


def at(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)


class Answer(Exception):
    """A 503 with headers, kept as they are given."""

    def __init__(self, headers: object) -> None:
        self.status_code = 503
        self.headers = headers


def hint(headers: object, now: float | None = NOW) -> float | None:
    failure = classify(Answer(headers), now=now)
    assert failure.status == 503  # no header can spoil the rest
    return failure.retry_after


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, None),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "700"}, 0.7),
        ({"x-amz-retry-after": "1500"}, 1.5),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "9", "retry-after-ms": "soon"}, 9.0),
        ({"Retry-After": at(30), "Date": at(0)}, 30.0),
        ({"Retry-After": at(30 + 86_400), "Date": at(86_400)}, 30.0),
        ({"Retry-After": at(-30), "Date": at(0)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1_000"}, None),
        ({"Retry-After": "1767225600"}, None),
    ],
)
def test_hints_over_http(library: Any, headers: dict[str, str], expected: float | None, loopback: Any) -> None:
    """Every form of a hint, as a server sends it; nonsense, and a Unix time for seconds, is no hint."""
    with library.Client(verify=False) as client:
        response = client.get(loopback.serve(loopback.reply(429, headers)).url)
    failure = classify(response)
    assert (failure.status, failure.retry_after) == (429, expected)


def test_clocks_that_disagree() -> None:
    """A date counts from the response's own Date: a machine whose clock is an hour off waits no longer for it."""
    assert hint({"retry-after": at(30), "date": at(0)}, now=NOW + 3600) == 30.0


def test_date_without_a_date() -> None:
    """Only without a usable Date does our own clock count."""
    assert hint({"retry-after": at(30)}) == 30.0
    assert hint({"retry-after": at(30), "date": "yesterday"}) == 30.0
    assert hint({"retry-after": at(30)}, now=None) == 0.0  # the wall clock is past 2026


def test_date_without_a_zone() -> None:
    """A date that names no zone is in UTC."""
    assert hint({"retry-after": "Thu, 01 Jan 2026 00:00:30 -0000"}) == 30.0


@pytest.mark.parametrize(
    "headers",
    [
        {"RETRY-AFTER": "5"},
        [("Retry-After", "5")],
        ((b"Retry-After", b"5"),),
        {b"retry-after": b"5"},
        {"retry-after": 5},
        [("retry-after", "5"), ("retry-after", "9")],
    ],
)
def test_any_kind_of_headers(headers: object) -> None:
    """Mappings and pairs, of text and of bytes, in any case; of a repeated header the first one counts."""
    assert hint(headers) == 5.0


@pytest.mark.parametrize("headers", [None, 5, "retry-after", ["retry-after"], [("a", "b", "c")], object(), [None]])
def test_no_headers(headers: object) -> None:
    """What holds no headers holds no hint."""
    assert hint(headers) is None


def test_headers_without_end() -> None:
    """A collection that never ends is not read to the end."""

    class Endless:
        def items(self) -> Any:
            return ((str(number), "x") for number in iter(int, 1))

    assert hint(Endless()) is None


numbers = st.one_of(
    st.text(), st.floats().map(str), st.integers().map(str), st.datetimes().map(format_datetime),
    st.text(string.digits + "+-.eE ", max_size=40), st.floats(), st.integers(), st.booleans(), st.binary(),
)  # fmt: skip


@given(headers=st.dictionaries(st.sampled_from(HINTS), numbers), now=st.none() | st.floats(0, 4e9))
def test_no_hint_ever_hurts(headers: dict[str, object], now: float | None) -> None:
    """Whatever stands in the headers, a hint is a sensible number of seconds or None."""
    pause = hint(headers, now)
    assert pause is None or (math.isfinite(pause) and 0 <= pause <= 366 * 86_400)
    assert pause is None or math.copysign(1, pause) == 1


@given(seconds=st.integers(0, 86_400))
def test_seconds_and_dates_agree(seconds: int) -> None:
    """A pause means the same in seconds, in milliseconds and as a date."""
    forms = ({"retry-after": str(seconds)}, {"retry-after-ms": str(seconds * 1000)}, {"retry-after": at(seconds)})
    assert {hint(form) for form in forms} == {float(seconds)}
