"""Delays: bounds, distributions, no overflow, and never earlier than a hint."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan, sqrt
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._core.backoff import Backoff, Jitter, after_hint

_JITTERED: tuple[Jitter, ...] = ("full", "equal", "decorrelated", "proportional")
_ALL: tuple[Jitter, ...] = (*_JITTERED, "none", "constant")
_DRAWS = 4_000

_seeds = st.integers(0, 2**32)
_retries = st.one_of(st.integers(1, 12), st.integers(1, 10_000), st.just(10_000))
_factors = st.one_of(st.floats(1, 3), st.floats(1, 1e300))


def draws(delay: Callable[[Random], float], count: int = _DRAWS, seed: int = 20_240_607) -> list[float]:
    rng = Random(seed)
    return [delay(rng) for _ in range(count)]


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by chance once in a thousand; the seed is fixed."""
    shares = sorted((value - low) / (high - low) for value in values)
    assert shares[0] >= 0
    assert shares[-1] <= 1
    count = len(shares)
    distance = max(max((at + 1) / count - share, share - at / count) for at, share in enumerate(shares))
    assert distance < 1.95 / sqrt(count)


def bounds(backoff: Backoff, retry: int, previous: float, scale: float) -> tuple[float, float]:
    """The formulas of the docstring, the power by slow multiplication."""
    base = backoff.base * scale
    grown = base
    for _ in range(retry - 1):
        if not base < grown * backoff.factor <= 1e12:
            grown = base if backoff.factor == 1 or not base else inf
            break
        grown *= backoff.factor
    top = min(backoff.cap, grown)
    return {
        "full": (0.0, top),
        "none": (top, top),
        "equal": (top / 2, top),
        "decorrelated": (min(backoff.cap, base), min(backoff.cap, 3 * max(base, previous))),
        "proportional": (0.8 * top, min(backoff.cap, 1.2 * top)),
        "constant": (min(backoff.cap, base), min(backoff.cap, base)),
    }[backoff.jitter]


@given(
    jitter=st.sampled_from(_ALL),
    base=st.one_of(st.just(0.0), st.floats(1e-6, 1e4)),
    cap=st.floats(0, 1e4),
    factor=_factors,
    retry=_retries,
    previous=st.floats(0, 1e4),
    scale=st.floats(0.1, 10),
    seed=_seeds,
)
@settings(deadline=None, max_examples=600)
def test_every_delay_lies_within_its_bounds(
    *, jitter: Jitter, base: float, cap: float, factor: float, retry: int, previous: float, scale: float, seed: int
) -> None:
    """Every strategy keeps to its formula and its cap, for every retry, factor and scale."""
    backoff = Backoff(base, cap, factor, jitter)
    delay = backoff.delay(retry, Random(seed), previous=previous, scale=scale)
    low, high = bounds(backoff, retry, previous, scale)
    assert low * (1 - 1e-9) <= delay <= high * (1 + 1e-9)
    assert 0 <= delay <= cap


@pytest.mark.parametrize("factor", [1, 1.0, 1.0001, 2, 2.0, 10, 1e10, 1e300])
@pytest.mark.parametrize("jitter", _ALL)
def test_nothing_overflows_at_retry_ten_thousand(jitter: Jitter, factor: float) -> None:
    """A call that is retried ten thousand times still waits for a finite time, up to its cap."""
    delay = Backoff(0.5, 60.0, factor, jitter).delay(10_000, Random(1), previous=60.0)
    assert 0 <= delay <= 60


def test_a_base_of_zero_never_waits() -> None:
    """Zero times a factor beyond every float is still zero."""
    assert Backoff(0, 60, 1e300, "none").delay(10_000, Random(1)) == 0


def test_small_factors_keep_growing() -> None:
    """A gentle growth is not cut off at some number of retries."""
    backoff = Backoff(1, 60, 1.01, "none")
    assert backoff.delay(200, Random(1)) == pytest.approx(1.01**199)
    assert backoff.delay(1_000, Random(1)) == 60


def test_exponential_delays_are_exact() -> None:
    """Without jitter the delays double from the base up to the cap."""
    backoff = Backoff(1, 20, 2, "none")
    assert [backoff.delay(retry, Random(1)) for retry in range(1, 8)] == [1, 2, 4, 8, 16, 20, 20]


def test_constant_delays_do_not_grow() -> None:
    """A constant delay is the base for every retry, scaled, and capped."""
    backoff = Backoff(3, 20, 2, "constant")
    assert [backoff.delay(retry, Random(1), scale=scale) for retry, scale in ((1, 1), (9, 1), (9, 2), (9, 9))] == [
        3,
        3,
        6,
        20,
    ]


@pytest.mark.parametrize("retry, top", [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 20), (10_000, 20)])
def test_full_jitter_is_uniform_up_to_the_cap(retry: int, top: float) -> None:
    """Full jitter spreads clients evenly over the whole delay, also where the cap has cut it."""
    values = draws(lambda rng: Backoff(1, 20).delay(retry, rng))
    assert_uniform(values, 0, top)
    assert fmean(values) == pytest.approx(top / 2, abs=4 * stdev(values) / sqrt(_DRAWS))


@pytest.mark.parametrize(
    "jitter, means",
    [("full", (0.5, 1, 2, 4, 8, 10)), ("equal", (0.75, 1.5, 3, 6, 12, 15)), ("none", (1, 2, 4, 8, 16, 20))],
)
def test_mean_delays_match_the_literature(jitter: Jitter, means: tuple[float, ...]) -> None:
    """The mean delay of each retry, base 1 and cap 20, is the published one."""
    for retry, mean in enumerate(means, start=1):
        values = draws(lambda rng, retry=retry: Backoff(1, 20, 2, jitter).delay(retry, rng))  # type: ignore[misc]
        assert fmean(values) == pytest.approx(mean, rel=0.04)


@pytest.mark.parametrize(
    "jitter, retry, previous, low, high",
    [
        ("equal", 3, 0, 2, 4),
        ("equal", 9, 0, 10, 20),
        ("decorrelated", 1, 0, 1, 3),
        ("decorrelated", 2, 2.5, 1, 7.5),
        ("decorrelated", 9, 19, 1, 20),
        ("proportional", 3, 0, 3.2, 4.8),
        ("proportional", 9, 0, 16, 20),
    ],
)
def test_other_jitters_are_uniform_within_their_bounds(
    jitter: Jitter, retry: int, previous: float, low: float, high: float
) -> None:
    """Below the cap and at the cap, every strategy draws evenly: no share of the clients piles up anywhere."""
    assert_uniform(draws(lambda rng: Backoff(1, 20, 2, jitter).delay(retry, rng, previous=previous)), low, high)


@pytest.mark.parametrize("jitter", _JITTERED)
def test_no_client_waits_exactly_the_cap(jitter: Jitter) -> None:
    """The cap is applied before the draw; after it, a third of the clients would come back in the same instant."""
    values = draws(lambda rng: Backoff(1, 20, 2, jitter).delay(50, rng, previous=20))
    assert len(set(values)) == _DRAWS
    assert max(values) < 20


def test_decorrelated_delays_follow_one_another() -> None:
    """Each delay grows from the one really drawn, with the published means: 2 s, then 3.5 s."""
    backoff = Backoff(1, 20, 2, "decorrelated")
    rng = Random(5)
    first = [backoff.delay(1, rng) for _ in range(_DRAWS)]
    second = [backoff.delay(2, rng, previous=previous) for previous in first]
    assert fmean(first) == pytest.approx(2, rel=0.04)
    assert fmean(second) == pytest.approx(3.5, rel=0.04)


def test_the_scale_moves_the_base_and_not_the_cap() -> None:
    """A kind that is retried more slowly still keeps to the cap."""
    backoff = Backoff(1, 20, 2, "none")
    assert [backoff.delay(3, Random(1), scale=scale) for scale in (0.5, 1, 2, 100)] == [2, 4, 8, 20]


def test_the_same_seed_gives_the_same_delays() -> None:
    """All chance comes from the generator that was handed in."""
    backoff = Backoff()
    assert draws(lambda rng: backoff.delay(4, rng), 50, seed=7) == draws(lambda rng: backoff.delay(4, rng), 50, seed=7)


@given(hint=st.one_of(st.floats(0, 1e6), st.just(0.0), st.just(5e-324)), seed=_seeds)
@settings(deadline=None, max_examples=300)
def test_never_earlier_than_the_hint(hint: float, seed: int) -> None:
    """A wait after a hint is longer than the hint, by at most a tenth of it, a second, or a hundredth of a second."""
    wait = after_hint(hint, Random(seed))
    assert wait > hint
    assert wait <= hint + min(1.0, max(0.01, 0.1 * hint)) + 1e-9


@pytest.mark.parametrize("hint, spread", [(0, 0.01), (2, 0.2), (10, 1), (120, 1)])
def test_waits_after_a_hint_are_spread(hint: float, spread: float) -> None:
    """Clients that were told the same hint do not come back in the same instant."""
    values = draws(lambda rng: after_hint(hint, rng))
    assert_uniform(values, hint, hint + spread)
    assert len(set(values)) == _DRAWS


@pytest.mark.parametrize("share", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("hint", [0.0, 0.3, 120.0, 1e9])
def test_even_an_extreme_draw_is_later_than_the_hint(hint: float, share: float) -> None:
    """The jitter after a hint is positive, also where it is too small to show beside the hint."""

    class Extreme(Random):
        def random(self) -> float:
            return share

    assert after_hint(hint, Extreme()) > hint


@pytest.mark.parametrize("hint", [-1.0, -inf, nan])
def test_a_hint_that_is_no_time_counts_as_now(hint: float) -> None:
    """Nonsense from a provider neither raises nor waits backwards."""
    assert 0 < after_hint(hint, Random(1)) <= 0.01


@pytest.mark.parametrize("field", ["base", "cap", "factor"])
@pytest.mark.parametrize("value", [-1, nan, inf])
def test_nonsense_numbers_are_refused(field: str, value: float) -> None:
    """A number that cannot be meant is named, with its field, when the back-off is built."""
    with pytest.raises(ValueError, match=rf"{field} {value!r}"):
        Backoff(**{field: value})


def test_a_shrinking_factor_is_refused() -> None:
    """A factor below 1 would make each retry come sooner than the one before."""
    with pytest.raises(ValueError, match=r"factor 0\.5: expected a finite number, 1 or more"):
        Backoff(factor=0.5)


def test_an_unknown_jitter_is_refused() -> None:
    """A misspelt strategy is answered with those there are."""
    with pytest.raises(ValueError, match=r"'ful': expected one of full, none, equal"):
        Backoff(jitter="ful")  # type: ignore[arg-type]
