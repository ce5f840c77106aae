"""What a provider says about how much may still be sent; and nothing it says can do harm."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.classify._quotas import Quota, duration, quotas

NOW = 1_767_225_600.0  # the first of January 2026
IETF = {"window": None, "gradual": False}


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat().replace("+00:00", "Z")


def date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)


def test_openai() -> None:
    """Requests and tokens, with Go's durations; how fast it fills up tells the window."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "6ms",
    }
    requests, tokens = quotas(headers, NOW)
    assert requests == Quota("requests", 60, 59, 1, 60, gradual=True)
    assert tokens[:4] == ("tokens", 150_000, 149_984, 0.006)
    assert tokens.window == pytest.approx(56.25)


def test_groq() -> None:
    """The same names, but requests are counted by the day, which shows."""
    headers = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-tokens": "7.66ms",
    }
    requests, tokens = quotas(headers, NOW)
    assert requests.window == pytest.approx(86_400, rel=0.01)
    assert requests.pause == pytest.approx(6, rel=0.01)
    assert tokens.window == pytest.approx(46, rel=0.01)


def test_anthropic() -> None:
    """Four kinds, each with the time at which all of it is there again."""
    headers = {
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "999",
        "anthropic-ratelimit-requests-reset": rfc3339(1),
        "anthropic-ratelimit-tokens-limit": "80000",
        "anthropic-ratelimit-tokens-remaining": "40000",
        "anthropic-ratelimit-tokens-reset": rfc3339(30),
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "4000",
        "anthropic-ratelimit-output-tokens-reset": rfc3339(-5),
    }
    assert quotas(headers, NOW) == [
        Quota("requests", 1_000, 999, 1, 1_000, gradual=True),
        Quota("tokens", 80_000, 40_000, 30, 60, gradual=True),
        Quota("input_tokens", None, 0, None, None, gradual=True),
        Quota("output_tokens", 8_000, 4_000, 0, None, gradual=True),
    ]


def test_a_time_counts_from_the_answers_own_date() -> None:
    """So two clocks need not agree."""
    headers = {
        "date": date(86_400),
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": rfc3339(86_400 + 20),
    }
    assert quotas(headers, NOW)[0].reset == 20


@pytest.mark.parametrize("until", ["soon", "", "2026" + "0" * 100, "2026-13-01T00:00:00Z"])
def test_a_time_that_is_none(until: str) -> None:
    """What is left counts all the same."""
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": until}
    assert quotas(headers, NOW)[0][:4] == ("requests", None, 0, None)


def test_a_time_without_a_zone_is_utc() -> None:
    """As servers mean it that leave the zone out."""
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:20",
    }
    assert quotas(headers, NOW)[0].reset == 20


@pytest.mark.parametrize(
    "headers, expected",
    [
        (
            {"RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400', "RateLimit": '"burst";r=50;t=30'},
            [Quota("requests", 100, 50, 30, 60, gradual=False)],
        ),
        (
            {"RateLimit-Policy": '"a";q=10;w=1, "b";q=99;w=60', "RateLimit": '"a";r=0;t=1, "b" ; r=7'},
            [Quota("requests", 10, 0, 1, 1, gradual=False), Quota("requests", 99, 7, None, 60, gradual=False)],
        ),
        ({"RateLimit": "default;r=5;t=9"}, [Quota("requests", None, 5, 9, **IETF)]),
        ({"RateLimit-Policy": '"x";q=9;qu="content-bytes";w=1', "RateLimit": '"x";r=1;t=1'}, []),
        ({"RateLimit": "limit=10, remaining=3, reset=20"}, [Quota("requests", 10, 3, 20, **IETF)]),
        (
            {"RateLimit-Limit": "10, 10;w=60", "RateLimit-Remaining": "0", "RateLimit-Reset": "20"},
            [Quota("requests", 10, 0, 20, **IETF)],
        ),
        ({"RateLimit": '"default";r=soon;t=9'}, []),
        ({"RateLimit": ""}, []),
    ],
)
def test_ietf(headers: dict[str, str], expected: list[Quota]) -> None:
    """The draft of today, and the two forms before it; what is not counted in requests is left out."""
    assert quotas(headers, NOW) == expected


def test_what_openai_says_goes_first() -> None:
    """A gateway may add headers of its own kind."""
    headers = {"x-ratelimit-remaining-requests": "3", "RateLimit": '"d";r=1;t=1'}
    assert [quota.remaining for quota in quotas(headers, NOW)] == [3]


@pytest.mark.parametrize("make", [dict, httpx.Headers, lambda pairs: [(k.encode(), v.encode()) for k, v in pairs]])
def test_any_collection_and_any_case(make: object) -> None:
    """As every library keeps its headers."""
    headers = make([("X-RateLimit-Remaining-Requests", "3")])  # type: ignore[operator]
    assert [quota.remaining for quota in quotas(headers, NOW)] == [3]


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("150us", 150e-6),
        ("5µs", 5e-6),
        ("100ns", 1e-7),
        ("0s", 0),
        (" 7 ", 7),
        ("7.5", 7.5),
        ("", None),
        ("1x", None),
        ("s", None),
        ("-1s", None),
        ("1s 2s", None),
        ("nan", None),
        ("9" * 40 + "h", None),
        ("1s" * 40, None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    """Go's way to write them, and bare seconds; anything else is none."""
    found = duration(text)
    assert found == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    "quota, pause",
    [
        (Quota("requests", 60, 0, 60, 60, gradual=True), 1),
        (Quota("requests", 60, 0, 60, 60, gradual=False), 60),
        (Quota("requests", None, 0, 60, None, gradual=True), 60),
        (Quota("requests", 60, 60, 9, None, gradual=True), 9),
        (Quota("requests", 60, 0, None, None, gradual=True), 0),
    ],
)
def test_when_there_is_something_again(quota: Quota, pause: float) -> None:
    """What fills up little by little has a first unit soon; what is refilled as a whole has none before."""
    assert quota.pause == pause


_PARTS = ("limit", "remaining", "reset")
_NAMES = [f"x-ratelimit-{part}-{what}" for part in _PARTS for what in ("requests", "tokens")]
_NAMES += [f"anthropic-ratelimit-{what}-{part}" for part in _PARTS for what in ("tokens", "requests")]
_NAMES += ["ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "date"]
_WORDS = ["0", "-1", "nan", "inf", "1e400", "9" * 400, "1_0", "٣", "", "0x10", "1s", "-6m0s", "1e-320"]
_WORDS += ['"d";r=0;t=-1', '"d";r=;t', ";;;=,,,", '"' * 50, "limit=,remaining=1e5,reset=9", "2026" + "0" * 100]
_WORDS += ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", rfc3339(5)]


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(_NAMES), st.one_of(st.sampled_from(_WORDS), st.text(max_size=40))))
def test_nothing_a_provider_says_does_harm(headers: dict[str, str]) -> None:
    """Whatever stands in the headers: no exception, and only numbers that can be counted with."""
    for quota in quotas(headers, NOW):
        assert 0 <= quota.remaining <= 1e15
        assert quota.limit is None or 0 <= quota.limit <= 1e15
        assert quota.reset is None or 0 <= quota.reset <= 366 * 86_400
        assert quota.window is None or quota.window > 0
        assert 0 <= quota.pause <= 366 * 86_400


@pytest.mark.parametrize("headers", [None, 7, [1, 2], object(), [("a",)]])
def test_what_are_no_headers_say_nothing(headers: object) -> None:
    """No library's idea of headers can break a call."""
    assert quotas(headers, NOW) == []
