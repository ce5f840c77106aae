"""
What a provider says in its headers about how much may still be sent.

=============================================  ==============================================================
OpenAI, Azure, Groq                            ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``
Anthropic                                      ``anthropic-ratelimit-{...}-{limit,remaining,reset}``
IETF drafts, the newest and the older ones     ``RateLimit`` with ``RateLimit-Policy``; ``RateLimit-Remaining`` ...
=============================================  ==============================================================

Whatever does not make sense is left out. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from resilience.classify._hints import _moment, _number, lowered, seconds

What: TypeAlias = Literal["requests", "tokens", "input_tokens", "output_tokens"]

_MOST_UNITS = 1e15
_LONGEST_TEXT = 1024
_LONGEST_DURATION = 64
_MOST_ITEMS = 16
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)")
_OLD_PAIR = re.compile(r"\b(limit|remaining|reset)=([0-9.]+)")
_ANTHROPIC: Final[dict[What, str]] = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input-tokens",
    "output_tokens": "output-tokens",
}


class Quota(NamedTuple):
    """
    One limit of a provider, and how much of it is left.

    Args:
        what: What it counts.
        limit: How much there is when nothing was used; None if it was not said.
        remaining: How much is left.
        reset: In how many seconds all of it is there again; None if it was not said.
        window: How long the limit looks back, in seconds; None if it was neither said nor can be told.
        gradual: Whether it fills up little by little; if not, all of it comes back at the reset.
    """

    what: What
    limit: float | None
    remaining: float
    reset: float | None
    window: float | None
    gradual: bool

    @property
    def pause(self) -> float:
        """In how many seconds there is something left again, when nothing is; 0 if that was not said."""
        if self.reset is None:
            return 0.0
        missing = self.limit - self.remaining if self.limit is not None else 0.0
        return self.reset / missing if self.gradual and missing >= 1 else self.reset


def quotas(headers: object, now: float) -> list[Quota]:
    """
    Return the limits that *headers* tell of.

    Args:
        headers: Of a response, in any kind of collection.
        now: Seconds since the Unix epoch, for answers that name a time and carry no ``Date``.
    """
    known = lowered(headers)
    found = [*_openai(known), *_anthropic(known, now)]
    return found or list(_ietf(known))


def _gradual(what: What, limit: float | None, remaining: float, reset: float | None) -> Quota:
    """A limit that fills up little by little: how fast it does, tells how long its window is."""
    window = None
    if limit is not None and reset and remaining < limit:
        window = reset * limit / (limit - remaining)
    return Quota(what, limit, remaining, reset, window, gradual=True)


# -- OpenAI and those who speak like it ----------------------------------------------------------------------------


def _openai(headers: Mapping[str, str]) -> Iterator[Quota]:
    kinds: tuple[What, What] = ("requests", "tokens")
    for what in kinds:
        remaining = _units(headers.get(f"x-ratelimit-remaining-{what}"))
        if remaining is not None:
            limit = _units(headers.get(f"x-ratelimit-limit-{what}"))
            reset = duration(headers.get(f"x-ratelimit-reset-{what}", ""))
            yield _gradual(what, limit, remaining, reset)


def duration(text: str) -> float | None:
    """Read a duration as Go writes it, such as ``1s``, ``6m0s`` or ``20ms``; a bare number is seconds."""
    text = text.strip()
    if not text or len(text) > _LONGEST_DURATION:
        return None
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return seconds(text)
    return seconds(sum(float(number) * _UNITS[unit] for number, unit in parts))


# -- Anthropic -----------------------------------------------------------------------------------------------------


def _anthropic(headers: Mapping[str, str], now: float) -> Iterator[Quota]:
    start = _moment(headers.get("date", ""))
    start = now if start is None else start
    for what, name in _ANTHROPIC.items():
        remaining = _units(headers.get(f"anthropic-ratelimit-{name}-remaining"))
        if remaining is not None:
            limit = _units(headers.get(f"anthropic-ratelimit-{name}-limit"))
            until = _timestamp(headers.get(f"anthropic-ratelimit-{name}-reset", ""))
            reset = seconds(max(0.0, until - start)) if until is not None else None
            yield _gradual(what, limit, remaining, reset)


def _timestamp(text: str) -> float | None:
    """RFC 3339 as seconds since the Unix epoch."""
    if len(text) > _LONGEST_DURATION:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# -- IETF ----------------------------------------------------------------------------------------------------------


def _ietf(headers: Mapping[str, str]) -> Iterator[Quota]:
    text = headers.get("ratelimit", "")[:_LONGEST_TEXT]
    policies = dict(_items(headers.get("ratelimit-policy", "")[:_LONGEST_TEXT]))
    known = False
    for name, values in _items(text):
        policy = policies.get(name, {})
        remaining = _units(values.get("r"))
        if remaining is not None and policy.get("qu", "requests") == "requests":
            known = True
            limit, window = _units(policy.get("q")), seconds(policy.get("w")) or None
            yield Quota("requests", limit, remaining, seconds(values.get("t")), window, gradual=False)
    if not known:
        yield from _older_ietf(headers, text)


def _older_ietf(headers: Mapping[str, str], text: str) -> Iterator[Quota]:
    """Read ``RateLimit: limit=10, remaining=3, reset=20``, and the three headers that came before it."""
    names = ("limit", "remaining", "reset")
    values = {name: headers[f"ratelimit-{name}"] for name in names if f"ratelimit-{name}" in headers}
    values.update(_OLD_PAIR.findall(text))
    remaining = _units(values.get("remaining"))
    if remaining is not None:
        limit = _units(values.get("limit", "").partition(",")[0])
        yield Quota("requests", limit, remaining, seconds(values.get("reset")), None, gradual=False)


def _items(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a structured list with their parameters."""
    for member in text.split(",")[:_MOST_ITEMS]:
        name, *parameters = (part.strip() for part in member.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield _unquoted(name), {key.strip(): _unquoted(value.strip()) for key, _, value in pairs}


def _unquoted(text: str) -> str:
    return text.strip('"')


def _units(text: str | None) -> float | None:
    number = _number(text)
    return number if 0 <= number <= _MOST_UNITS else None  # NaN fits nowhere
