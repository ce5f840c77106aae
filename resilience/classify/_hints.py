"""What a provider says in its headers about coming back: how long to stay away, and whether at all."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import islice

from resilience.classify._foreign import called, each

_LONGEST_TEXT = 64
_MOST_HEADERS = 256
# Beyond a year it is no pause: some servers put a Unix time where seconds belong.
_ABSURD = 366 * 86_400.0
# In the order of their precision, as the SDKs read them.
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")


def lowered(headers: object) -> dict[str, str]:
    """
    Header names in lower case, whatever kind of collection the library keeps them in.

    Understands mappings, pairs, and pairs of bytes; anything else holds no headers. Of a repeated header the first
    one counts.
    """
    found: dict[str, str] = {}
    try:
        for pair in islice(each(called(headers, "items") or headers), _MOST_HEADERS):
            name, value = each(pair)
            found.setdefault(_text(name).lower(), _text(value))
    except Exception:  # headers of an unknown make: what was read so far is what there is
        return found
    return found


def seconds(value: object, *, unit: float = 1.0) -> float | None:
    """*value*, counted in *unit*, as a sensible number of seconds: finite, not negative, not beyond a year; or None."""
    number = _number(value) / unit
    return number + 0.0 if 0.0 <= number <= _ABSURD else None  # + 0.0: no minus zero; NaN fits nowhere


def _number(value: object) -> float:
    """A number, or text that is nothing else; NaN for the rest."""
    if isinstance(value, str):
        value = value.strip()
        if len(value) > _LONGEST_TEXT or not value.isascii() or "_" in value:  # float() takes "1_0" and Eastern digits
            return math.nan
    elif not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    """
    How many seconds the provider asks to be left alone, or None.

    A date counts from the response's own ``Date``, so that two clocks need not agree; only without one does *now*
    (seconds since the Unix epoch; None: the wall clock) matter.
    """
    for name in _MILLISECONDS:
        if name in headers and (pause := seconds(headers[name], unit=1000.0)) is not None:
            return pause
    if (wanted := headers.get("retry-after")) is None:
        return None
    if (pause := seconds(wanted)) is not None:
        return pause
    until = _moment(wanted)
    if until is None:
        return None
    start = _moment(headers.get("date", ""))
    if start is None:
        start = time.time() if now is None else now
    return seconds(max(0.0, until - start))


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Whether the provider itself says that trying again makes sense; None if it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def pushback(metadata: object) -> tuple[float | None, bool]:
    """
    Read ``grpc-retry-pushback-ms``: a pause in seconds, and whether the server forbids a retry.

    gRPC's way to forbid it is a value that is no pause: negative, or no number at all.
    """
    pairs = tuple(islice(each(metadata), _MOST_HEADERS))  # a tuple, as items() of grpc.aio's own type does not work
    value = lowered(pairs).get("grpc-retry-pushback-ms")
    pause = seconds(value, unit=1000.0)
    return pause, value is not None and pause is None


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _moment(text: str) -> float | None:
    """An HTTP date as seconds since the Unix epoch."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except Exception:  # the parser answers nonsense with half a dozen kinds of errors
        return None
