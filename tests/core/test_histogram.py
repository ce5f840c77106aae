"""Durations by bucket: counts, sums and estimates, against the durations themselves."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from resilience._core.histogram import BOUNDS, Histogram, summed

DURATIONS = st.lists(st.floats(0, 400), max_size=50)


def of(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.record(seconds)
    return histogram


@given(DURATIONS)
@hypothesis_settings(max_examples=100)
def test_each_duration_is_counted_in_its_bucket(durations: list[float]) -> None:
    """Upper bounds are included, as Prometheus has it, and the sum is theirs."""
    histogram = of(durations)
    for number, bound in enumerate(BOUNDS):
        assert sum(histogram.counts[: number + 1]) == sum(seconds <= bound for seconds in durations)
    assert histogram.count == len(durations)
    assert histogram.total == pytest.approx(sum(durations))


@given(DURATIONS, DURATIONS)
@hypothesis_settings(max_examples=50)
def test_two_histograms_add_up(one: list[float], other: list[float]) -> None:
    """The sum of two is the histogram of all, and leaves both as they were."""
    first, second = of(one), of(other)
    both = summed([first, second])
    assert both.counts == of(one + other).counts
    assert both.total == pytest.approx(sum(one) + sum(other))
    assert (first.counts, second.counts) == (of(one).counts, of(other).counts)


@given(DURATIONS.filter(bool), st.floats(0, 1))
@hypothesis_settings(max_examples=100)
def test_an_estimate_lies_in_the_bucket_of_the_truth(durations: list[float], share: float) -> None:
    """The quantile is off by a bucket's width at most; beyond the last bound, that bound is all there is."""
    ranked = sorted(durations)
    truth = ranked[max(0, min(len(ranked), -int(-share * len(ranked) // 1)) - 1)]
    found = of(durations).quantile(share)
    assert found is not None
    bucket = bisect_left(BOUNDS, truth)
    if bucket == len(BOUNDS):
        assert found == BOUNDS[-1]
    else:
        assert (BOUNDS[bucket - 1] if bucket else 0.0) - 1e-9 <= found <= BOUNDS[bucket] + 1e-9


def test_an_even_spread_is_told_exactly() -> None:
    """Within a bucket the estimate goes by the share of it, as in a query to Prometheus."""
    histogram = of([2.0] * 4)  # between 1.0 and 2.5 s
    assert [histogram.quantile(share) for share in (0.25, 0.5, 1.0)] == [1.375, 1.75, 2.5]


def test_nothing_counted_has_no_quantile() -> None:
    """None, and no zero that looks like an answer."""
    assert Histogram().quantile(0.5) is None
