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


def seconds(value: object) -> float | None:
    """*value* as a sensible number of seconds: not negative, finite, and not beyond a year; else None."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _LONGEST_TEXT or not text.isascii() or "_" in text:  # float() takes "1_0" and Eastern digits
            return None
        try:
            number = float(text)
        except ValueError:
            return None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number + 0.0 if math.isfinite(number) and 0.0 <= number <= _ABSURD else None  # + 0.0: no minus zero


def milliseconds(value: object) -> float | None:
    """The same for a value in milliseconds."""
    number = seconds(value)
    return None if number is None else number / 1000.0


def retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    """
    How many seconds the provider asks to be left alone, or None.

    A date counts from the response's own ``Date``, so that two clocks need not agree; only without one does *now*
    (seconds since the Unix epoch; None: the wall clock) matter.
    """
    for name in _MILLISECONDS:
        if name in headers and (pause := milliseconds(headers[name])) is not None:
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
    pause = milliseconds(value)
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
